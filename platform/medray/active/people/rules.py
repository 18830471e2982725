"""What an annotator may answer, and what they are told about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from medray.active.answers import NO_CLASSES, SEPARATOR, LabelKind
from medray.errors import UserError

CANNOT_LABEL = ("cannot label", "can not label", "skip")
"""What the column status says of a case without an answer; the first is what people are told."""
FINISHED = ("", "done", "labelled", "labeled")
"""What the column status may say besides."""
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".nii.gz", ".nii", ".mha", ".nrrd", ".npz", ".npy")


@dataclass(frozen=True)
class LabelRules:
    """What counts as a label.

    Attributes:
        kind: a mask, one class, or any number of classes.
        classes: their names; for masks those of the values, where there are as many.
        values: of a mask besides 0 (background), from 1 to 254. With the single value 1 a picture may have 255 instead.
        empty_masks: whether a mask with nothing in it is taken as it is. It may also be a drawing that was not saved,
            and an answer stands once it is taken: unless this is set, the column label must say "none" as well.
    """

    kind: LabelKind
    classes: tuple[str, ...] = ()
    values: tuple[int, ...] = (1,)
    empty_masks: bool = False

    def __post_init__(self) -> None:
        if self.kind != "mask" and not self.classes:
            raise ValueError(f"labels of kind {self.kind!r} need the names of the classes")
        if not self.values or not all(1 <= value <= 254 for value in self.values):
            raise ValueError(f"mask values lie between 1 and 254 (0 is the background), got {self.values}")

    def value_of(self, text: str) -> str:
        """The answer's value that a person's text stands for, in one spelling and order.

        Raises:
            UserError: a name that is no class, or several where one is expected.
        """
        if self.kind == "class":
            return self._class(text.strip())
        names = [name.strip() for name in re.split(r"[;,|\n]", text) if name.strip()]
        if [name.lower() for name in names] == [NO_CLASSES]:
            return NO_CLASSES
        chosen = {self._class(name) for name in names}
        return SEPARATOR.join(name for name in self.classes if name in chosen)

    def _class(self, text: str) -> str:
        for name in self.classes:
            if name.casefold() == text.casefold():
                return name
        known = [*self.classes, *([NO_CLASSES] if self.kind == "classes" else [])]
        raise UserError(f"{text!r} is no class{did_you_mean(text, known)}; expected {' or '.join(known)}")

    def values_text(self) -> str:
        """The mask's values in words.

        >>> LabelRules("mask", ("lesion",)).values_text()
        '0 background, 1 (or 255) lesion'
        """
        names = self.classes if len(self.classes) == len(self.values) else ("",) * len(self.values)
        also = " (or 255)" if self.values == (1,) else ""
        parts = [f"{value}{also} {name}".rstrip() for value, name in zip(self.values, names, strict=True)]
        return ", ".join(["0 background", *parts])

    def instructions(self) -> list[str]:
        """What to do, a sentence or two each, in plain words."""
        return [*(self._mask_steps() if self.kind == "mask" else self._class_steps()), *_COMMON_STEPS]

    def _mask_steps(self) -> list[str]:
        return [
            "Open each picture of the folder images and draw on it. The ones in images/auxiliary show the same place "
            "and are there to look at.",
            f"Save the mask alone, in the size of the picture, under the picture's name in the folder labels. Its "
            f"values: {self.values_text()}. PNG and TIFF keep them, JPEG does not; switch off smoothing of edges.",
            "Or, for scans, load the original file (column files) into a program for medical images and save the mask "
            "as .nii.gz, .mha or .nrrd, on the image's own grid: of the slice, or of the whole volume, from which the "
            "slice is taken. A mask under another name is found if the column label holds its path.",
            f'If there is nothing to draw, write "{NO_CLASSES}" into the column label.',
        ]

    def _class_steps(self) -> list[str]:
        if self.kind == "class":
            return [f"Look at each picture and write one of these into the column label: {', '.join(self.classes)}."]
        return [
            f"Look at each picture and write what is there into the column label, with a semicolon between several: "
            f'{", ".join(self.classes)}; or "{NO_CLASSES}".'
        ]


_COMMON_STEPS = [
    f'If you cannot say, write "{CANNOT_LABEL[0]}" into the column status, and why into the column note if you like.',
    "Save worklist.csv in this folder, under its own name or another one ending in .csv; columns may be moved, rows "
    "left out. You may hand in a few cases at a time. What is not filled in stays open.",
    "The first answer that was taken for a case stands. What cannot be used is told to whoever runs the campaign.",
]


def did_you_mean(text: str, known: Collection[str]) -> str:
    """A hint at the name that looks most like it, or nothing."""
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(text.casefold(), by_fold, n=1)
    return f" (did you mean {by_fold[close[0]]!r}?)" if close else ""
