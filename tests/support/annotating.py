"""Cases to annotate, and an annotator who works on the files of a round."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medray.active.answers import Answer
from medray.active.oracle import Query, Returned
from medray.active.people.human import HumanOracle
from medray.active.people.rules import LabelRules
from medray.active.people.worklist import COLUMNS, round_folder, safe_name
from medray.data.case import Case, Volume
from medray.data.fields import FileRef
from medray.data.writers import write_volume

AXIAL = np.array([[-2.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 3.0, -12], [0, 0, 0, 1]])
"""Of a volume whose first index grows to the patient's left and second one to the back, as scanners write them."""


@dataclass(frozen=True)
class Held:
    """A field that is an array."""

    volume: Volume

    def load(self) -> Volume:
        """The array."""
        return self.volume

    def fingerprint(self) -> str:
        """Of the array."""
        return str(hash(self.volume.array.tobytes()))


def image(shape: tuple[int, int], *, affine: NDArray[Any] | None = None, seed: int = 0) -> Volume:
    """Noise with a brighter corner at the origin of the array."""
    pixels = np.random.default_rng(seed).integers(0, 100, shape).astype(np.uint8)
    pixels[: shape[0] // 3, : shape[1] // 3] += 150
    header = {"format": "raster"} if affine is None else {"format": "nifti", "singleton_axis": 2}
    return Volume(pixels[None], np.eye(4) if affine is None else affine, header=header)


def films(folder: Path, names: Sequence[str], shape: tuple[int, int] = (12, 16)) -> dict[str, Case]:
    """PNG images, 12 rows and 16 columns, without a second modality."""
    cases = {}
    for seed, name in enumerate(names):
        path = write_volume(image(shape, seed=seed), folder / f"{safe_name(name)}.png")
        cases[name] = Case(name, f"patient {name}", {"image": FileRef(str(path))})
    return cases


def slices(names: Sequence[str], shape: tuple[int, int] = (12, 16), index: int = 2) -> dict[str, Case]:
    """Slices of number ``index`` of volumes with a position in the patient, main and auxiliary."""
    affine = AXIAL @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, index], [0, 0, 0, 1]])
    cases = {}
    for seed, name in enumerate(names):
        main, other = (Held(image(shape, affine=affine, seed=2 * seed + n)) for n in (0, 1))
        cases[name] = Case(name, "p", {"image": main, "auxiliary": other})
    return cases


def query(number: int, names: Sequence[str]) -> Query:
    """With scores that grow along the list."""
    return Query(number, tuple(names), tuple(0.125 * n - 1 for n in range(len(names))))


@dataclass
class Annotator:
    """Puts files into an exchange on a disk.

    Attributes:
        folder: the exchange.
        number: of the round.
    """

    folder: Path
    number: int = 0

    @property
    def round(self) -> Path:
        """The round's folder."""
        return self.folder / round_folder(self.number)

    def rows(self) -> list[dict[str, str]]:
        """The worklist as a program would read it."""
        text = (self.round / "worklist.csv").read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))

    def fill(self, said: Mapping[str, Mapping[str, str]], name: str = "worklist.csv") -> Path:
        """Save the worklist with these columns changed, by case."""
        rows = [row | dict(said.get(row["case"], {})) for row in self.rows()]
        text = io.StringIO(newline="")
        out = csv.DictWriter(text, COLUMNS)
        out.writeheader()
        out.writerows(rows)
        return self.save(name, text.getvalue().encode())

    def save(self, name: str, data: bytes) -> Path:
        """Put any file into the round's folder."""
        path = self.round / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def draw(self, case: str, mask: NDArray[Any], *, name: str = "", suffix: str = ".png") -> Path:
        """Save a mask (rows, columns) that was drawn on the picture."""
        path = self.round / "labels" / f"{name or safe_name(case)}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(mask, np.uint8)).save(path)
        return path

    def save_volume(self, case: str, mask: NDArray[Any], affine: NDArray[Any], suffix: str = ".nii.gz") -> Path:
        """Save a mask as a program for medical images does."""
        volume = Volume(np.asarray(mask, np.uint8)[None], affine)
        return write_volume(volume, self.round / "labels" / f"{safe_name(case)}{suffix}")


def square(shape: tuple[int, int] = (12, 16), *, value: int = 1, at: int = 2) -> NDArray[np.uint8]:
    """A mask with a small square."""
    mask = np.zeros(shape, np.uint8)
    mask[at : at + 3, at : at + 4] = value
    return mask


def with_fields(case: Case, **fields: Any) -> Case:
    """The case with other fields."""
    return replace(case, fields={**case.fields, **fields})


NAMES = ("a", "b", "site 1/c")


class Campaign:
    """Rounds that were asked, and the answers that were taken.

    Args:
        folder: for the data and, in ``x``, the exchange.
        rules: what counts as a label.
        cases: three films and one that nobody asks for, unless given.
        first: ids of the first query; those of all cases but that one, unless given.
    """

    def __init__(
        self,
        folder: Path,
        rules: LabelRules,
        cases: Mapping[str, Case] | None = None,
        first: Sequence[str] | None = None,
    ) -> None:
        self.cases = dict(cases or films(folder / "data", [*NAMES, "never asked"]))
        self.place, self.rules = str(folder / "x"), rules
        self.oracle = self.restarted()
        self.asked: list[Query] = []
        self.known: dict[str, Answer] = {}
        self.ask(first or [name for name in self.cases if name != "never asked"])
        self.annotator = Annotator(folder / "x")

    def restarted(self) -> HumanOracle:
        """The oracle of a new process."""
        return HumanOracle(self.place, self.cases, self.rules, settle_s=0)

    def ask(self, names: Sequence[str]) -> None:
        """Put the next query."""
        self.asked.append(query(len(self.asked), names))
        self.oracle.ask(self.asked[-1])

    def collect(self) -> Returned:
        """What came back; the same files say the same again, and to a process that remembers nothing."""
        returned = self.oracle.collect(self.asked, self.known)
        assert self.oracle.collect(self.asked, self.known) == returned
        assert self.restarted().collect(self.asked, self.known) == returned
        return returned

    def take(self) -> dict[str, Answer]:
        """As the pool does: what is new becomes known."""
        for answer in self.collect().answers:
            self.known.setdefault(answer.case, answer)
        return self.known

    def problem(self) -> str:
        """The only one."""
        returned = self.collect()
        (problem,) = returned.problems
        return f"{problem.subject}: {problem.reason}"

    def labels(self) -> dict[str, str]:
        """Value or status by case."""
        return {answer.case: answer.value or answer.status for answer in self.collect().answers}
