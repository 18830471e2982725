"""SWC, the exchange format of neuron tracing: a node per line, ``id type x y z radius parent``.

Lines that start with # are comments; the parent of a root is -1; a file may hold several trees. Coordinates are taken
as pixels of the image, x = column and y = row, and 3D reconstructions are projected onto (x, y).

The policy's entropy at a node has no column in SWC, and readers disagree about an eighth one. It is written as a
comment before the node it belongs to, which every reader skips and `read_swc` reads back:

    # entropy 12 -3.417
    12 2 101.250 77.500 0.000 1.000 11
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_COLUMNS = "id type x y z radius parent"
_ROOT = -1
_AXON = 2  # SWC's code for an axon


@dataclass(frozen=True)
class Swc:
    """The nodes of one file, in its order.

    Attributes:
        ids: (n,) int64, as in the file.
        kinds: (n,) int64, SWC's structure codes (2 is an axon).
        points: (n, 3) x, y, z.
        radii: (n,).
        parents: (n,) int64, row of each node's parent, -1 for a root. Rows, not ids.
        entropy: (n,) in nats, nan where the file does not say.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.int64]
    points: FloatArray
    radii: FloatArray
    parents: NDArray[np.int64]
    entropy: FloatArray

    @property
    def roots(self) -> NDArray[np.int64]:
        """Rows of the nodes without a parent."""
        return np.flatnonzero(self.parents == _ROOT)

    def paths(self) -> list[NDArray[np.int64]]:
        """Rows along every branch: from a root or branch point to the next branch point or tip, both included.

        In the order of a walk from the roots; a root without children has no branch.
        """
        children: list[list[int]] = [[] for _ in range(len(self.ids))]
        for row, parent in enumerate(self.parents.tolist()):
            if parent != _ROOT:
                children[parent].append(row)
        found: list[NDArray[np.int64]] = []
        waiting = [(int(root), child) for root in self.roots[::-1] for child in reversed(children[root])]
        while waiting:
            start, row = waiting.pop()
            path = [start, row]
            while len(children[row]) == 1:
                row = children[row][0]
                path.append(row)
            found.append(np.array(path, dtype=np.int64))
            waiting += [(row, child) for child in reversed(children[row])]
        return found

    def branches(self) -> list[FloatArray]:
        """The polylines (n, 2) of `paths`, projected onto (x, y).

        Nodes that fall onto the one before them are dropped, and so is a branch of which a single point is left.
        """
        lines = [without_repeats(self.points[path, :2]) for path in self.paths()]
        return [line for line in lines if len(line) > 1]


def without_repeats(points: FloatArray) -> FloatArray:
    """A polyline (n, 2) without points equal to the one before them."""
    moved = np.ones(len(points), dtype=bool)
    moved[1:] = (np.diff(points, axis=0) != 0).any(axis=1)
    return points[moved]


def read_swc(path: str | Path) -> Swc:
    """Read an SWC file.

    Raises:
        ValueError: a line is not seven numbers, an id is given twice, a parent does not exist, nodes form a ring, or
            there is no node at all; the sentence has the line's number.
        OSError: the file cannot be opened.
    """
    ids: dict[int, int] = {}
    rows: list[list[float]] = []
    lines: list[int] = []
    entropy: dict[int, float] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        text = line.strip()
        if text.startswith("#"):
            entropy.update(_entropy_in(text))
            continue
        if not text:
            continue
        row = _node(path, number, text)
        if int(row[0]) in ids:
            raise ValueError(
                f"{path}, line {number}: the node {int(row[0])} was given in line {lines[ids[int(row[0])]]} already"
            )
        ids[int(row[0])] = len(rows)
        rows.append(row)
        lines.append(number)
    if not rows:
        raise ValueError(f"{path} holds no nodes; an SWC file has lines of {_COLUMNS}")
    return _tree(path, np.array(rows, dtype=np.float64), ids, lines, entropy)


def swc_text(
    lines: Sequence[FloatArray], entropy: Sequence[FloatArray] | None = None, *, comments: Sequence[str] = ()
) -> str:
    """The text of an SWC file with a tree for each polyline.

    Args:
        lines: polylines (n, 2), x and y in pixels, the first point a root.
        entropy: of the policy at their points, (n,) each, in nats; nan is left out.
        comments: lines to put in front.
    """
    parts = [f"# {comment}" for comment in comments]
    if entropy is not None:
        parts.append("# '# entropy ID VALUE' before a node is the policy's entropy there, in nats")
    parts.append(f"# {_COLUMNS}")
    number = 0
    for index, line in enumerate(lines):
        values = np.full(len(line), np.nan) if entropy is None else entropy[index]
        for step, ((x, y), value) in enumerate(zip(line.tolist(), values.tolist(), strict=True)):
            number += 1
            if math.isfinite(value):
                parts.append(f"# entropy {number} {value:.4f}")
            parts.append(f"{number} {_AXON} {x:.4f} {y:.4f} 0 1 {number - 1 if step else _ROOT}")
    return "\n".join(parts) + "\n"


def _node(path: str | Path, number: int, text: str) -> list[float]:
    """The seven numbers of a line; what follows them is another program's."""
    words = text.split("#", 1)[0].replace(",", " ").split()[:7]
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 7 or not all(map(math.isfinite, values)):
        raise ValueError(f"{path}, line {number}: {text[:60]!r} where seven numbers are expected: {_COLUMNS}")
    if any(values[column] != int(values[column]) for column in (0, 1, 6)) or values[0] < 0:
        raise ValueError(f"{path}, line {number}: id, type and parent are whole numbers, got {text[:60]!r}")
    return values


def _entropy_in(comment: str) -> dict[int, float]:
    words = comment.lstrip("# ").split()
    if len(words) != 3 or words[0] != "entropy":
        return {}
    try:
        return {int(words[1]): float(words[2])}
    except ValueError:
        return {}  # somebody else's comment


def _tree(path: str | Path, table: FloatArray, ids: dict[int, int], lines: list[int], entropy: dict[int, float]) -> Swc:
    parents = np.full(len(table), _ROOT, dtype=np.int64)
    for row, parent in enumerate(table[:, 6].astype(np.int64).tolist()):
        if parent >= 0 and parent not in ids:
            raise ValueError(f"{path}, line {lines[row]}: the parent {parent} is no node of this file; a root has -1")
        parents[row] = ids[parent] if parent >= 0 else _ROOT
    if (lost := _in_ring(parents)) is not None:
        raise ValueError(f"{path}, line {lines[lost]}: node {int(table[lost, 0])} is its own ancestor; a root has -1")
    numbers = table[:, 0].astype(np.int64)
    return Swc(
        ids=numbers,
        kinds=table[:, 1].astype(np.int64),
        points=table[:, 2:5],
        radii=table[:, 5],
        parents=parents,
        entropy=np.array([entropy.get(number, math.nan) for number in numbers.tolist()]),
    )


def _in_ring(parents: NDArray[np.int64]) -> int | None:
    """A node whose ancestors never end in a root, or None. Pointer doubling: log2(n) steps."""
    ancestors = parents
    for _ in range(len(parents).bit_length()):
        ancestors = np.where(ancestors == _ROOT, _ROOT, ancestors[ancestors])
    lost = np.flatnonzero(ancestors != _ROOT)
    return int(lost[0]) if len(lost) else None
