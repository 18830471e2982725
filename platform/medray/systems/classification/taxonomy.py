"""A tree, or several, of findings: who is whose parent, and the labels of cases in it.

A file is YAML or JSON, one line per finding, ``child: parent``, with nothing behind the colon of a root:

    abnormality:
    pulmonary: abnormality
    nodule: pulmonary

Shape letters: N cases, M nodes. Nodes are in the order of their depth-first walk, so parents come before children.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medray.data.case import BadCase, Case
from medray.errors import UserError

BoolArray = NDArray[np.bool_]
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class Taxonomy:
    """Nodes and parents.

    Attributes:
        names: of the nodes, each after its parent.
        parents: position of each node's parent; -1 for a root.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]

    @cached_property
    def ancestors(self) -> BoolArray:
        """(M, M): row m is true at m itself and at everything above it, A(m) of the paper."""
        table = np.eye(len(self.names), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                table[node] |= table[parent]
        return table

    @cached_property
    def leaves(self) -> BoolArray:
        """(M,): nodes without children."""
        found = np.ones(len(self.names), dtype=bool)
        found[[parent for parent in self.parents if parent >= 0]] = False
        return found

    @property
    def leaf_names(self) -> tuple[str, ...]:
        """Names of the leaves."""
        return tuple(name for name, leaf in zip(self.names, self.leaves, strict=True) if leaf)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) of all nodes but the roots."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    def close(self, leaf_labels: BoolArray) -> BoolArray:
        """Labels of all nodes, (N, M), from those of the leaves, (N, leaves): a parent is there with any child."""
        below = self.ancestors[self.leaves]
        return np.asarray(leaf_labels.astype(int) @ below.astype(int) > 0)

    def to_mapping(self) -> dict[str, str | None]:
        """Child to parent, as `taxonomy_of` takes it."""
        return {n: self.names[p] if p >= 0 else None for n, p in zip(self.names, self.parents, strict=True)}


def taxonomy_of(parents: Mapping[str, str | None], where: str = "the taxonomy") -> Taxonomy:
    """Build a taxonomy.

    Args:
        parents: child to parent; None or "" for a root. There may be several roots.
        where: its file, for messages.

    Raises:
        UserError: no node, a parent that is no node itself, or a cycle.
    """
    if not parents:
        raise UserError(f"{where} is empty; it needs a line `child: parent` for each finding")
    for child, parent in parents.items():
        if parent and parent not in parents:
            raise UserError(
                f"{where}: the parent {parent!r} of {child!r} is no finding itself; add a line `{parent}:` if it is a "
                "root, or correct its name"
            )
    for name in parents:
        _check_cycle(name, parents, where)
    names: list[str] = []
    waiting = [name for name, parent in reversed(list(parents.items())) if not parent]
    while waiting:
        names.append(waiting.pop())
        waiting += [child for child, parent in reversed(list(parents.items())) if parent == names[-1]]
    position = {name: index for index, name in enumerate(names)}
    return Taxonomy(tuple(names), tuple(position[p] if (p := parents[name]) else -1 for name in names))


def _check_cycle(name: str, parents: Mapping[str, str | None], where: str) -> None:
    path = [name]
    while parent := parents[path[-1]]:
        if parent in path:
            circle = " -> ".join([*path[path.index(parent) :], parent])
            raise UserError(f"{where} has a cycle, {circle}; a finding cannot be above itself")
        path.append(parent)


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a YAML or JSON file.

    Raises:
        UserError: missing, unreadable, no mapping of names to names, or as `taxonomy_of`.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"there is no taxonomy at {path}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not readable as YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(
        isinstance(child, str) and (parent is None or isinstance(parent, str)) for child, parent in content.items()
    ):
        raise UserError(f"{path} is no taxonomy; each line is `child: parent`, both names, or `root:`")
    return taxonomy_of(content, str(path))


def flat_taxonomy(names: Sequence[str]) -> Taxonomy:
    """Every name a root of its own."""
    return taxonomy_of(dict.fromkeys(names))


def require_columns(cases: Sequence[Case], taxonomy: Taxonomy) -> None:
    """Refuse a source in which a finding is never spoken of.

    Raises:
        UserError: no case has the column of a leaf.
    """
    known = sorted({name for case in cases for name in case.attributes})
    missing = [name for name in taxonomy.leaf_names if name not in known]
    if missing:
        raise UserError(
            f"the manifest has no column {missing[0]!r}, which the taxonomy names"
            + (f" (nor {len(missing) - 1} others)" if len(missing) > 1 else "")
            + f"; its columns are {', '.join(known) or 'none besides its files'}"
        )


def label_problems(cases: Sequence[Case], taxonomy: Taxonomy) -> list[BadCase]:
    """Cases whose columns are empty, not 0 or 1, or say of a parent what its children deny."""
    bad = []
    for case in cases:
        reason = _label_problem(case, taxonomy)
        if reason:
            bad.append(BadCase(case.id, reason))
    return bad


def _label_problem(case: Case, taxonomy: Taxonomy) -> str:
    for name in taxonomy.leaf_names:
        value = case.attributes.get(name, "").lower()
        if value not in (*_TRUE, *_FALSE):
            return f"its {name} is {value!r} where 0 or 1 is expected" if value else f"its {name} is missing"
    given = labels_of([case], taxonomy)[0]
    for node, name in enumerate(taxonomy.names):
        told = case.attributes.get(name, "").lower()
        if told in (*_TRUE, *_FALSE) and (told in _TRUE) != given[node]:
            children = "one of the findings below it is 1" if given[node] else "none of the findings below it is"
            return f"its {name} is {told} while {children}"
    return ""


def labels_of(cases: Sequence[Case], taxonomy: Taxonomy) -> BoolArray:
    """Labels of all nodes, (N, M), from the columns of the leaves."""
    told = [[case.attributes[name].lower() in _TRUE for name in taxonomy.leaf_names] for case in cases]
    return taxonomy.close(np.array(told, dtype=bool).reshape(len(cases), len(taxonomy.leaf_names)))
