"""What an annotator says about a case, and the case with that label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from medray.data.case import Case
from medray.data.fields import is_label_name, ref_to
from medray.data.places import Places

LabelKind = Literal["mask", "class", "classes"]
"""A label map (field ``label``), one class, or any number of classes (attributes ``class`` and ``classes``)."""
SEPARATOR = ";"
"""Between the names of several classes in one text; a case with none of them has the text "none"."""
NO_CLASSES = "none"
_ATTRIBUTES = ("class", "classes", "label", "diagnosis", "grade", "folder", "kind")
"""That say the class, or come with it: images of a class may lie in a folder of their own."""


@dataclass(frozen=True)
class Answer:
    """What came back for one case that was asked for.

    Attributes:
        case: its id.
        status: labelled, or the annotator could not say.
        value: the class, or the classes with `SEPARATOR` between them; empty for a mask.
        file: where the mask is kept: a path or url that lasts as long as the run. Empty where the data holds it.
        digest: of the mask's bytes, so that the same file is known when it comes again.
        note: what the annotator wrote besides.
    """

    case: str
    status: Literal["labelled", "cannot_label"]
    value: str = ""
    file: str = ""
    digest: str = ""
    note: str = ""

    def same_as(self, other: Answer) -> bool:
        """Whether both say the same, whatever is written besides."""
        return replace(self, file="", note="") == replace(other, file="", note="")


def without_label(case: Case) -> Case:
    """The case as a sampler may see it: no label map and no class."""
    fields = {name: ref for name, ref in case.fields.items() if not is_label_name(name)}
    attributes = {name: text for name, text in case.attributes.items() if name not in _ATTRIBUTES}
    return replace(case, fields=fields, attributes=attributes)


def with_label(case: Case, answer: Answer, kind: LabelKind) -> Case:
    """The case as the task is trained on it.

    Args:
        case: of the data, with its own label where it has one.
        answer: whose status is ``labelled``.
        kind: what is labelled.
    """
    if kind != "mask":
        return replace(case, attributes={**case.attributes, kind: answer.value})
    if not answer.file:
        return case
    return replace(case, fields={**case.fields, "label": ref_to(Places()(answer.file), "label")})


def class_list(text: str) -> tuple[str, ...]:
    """The names in an answer's value or an attribute; none for "none"."""
    names = (name.strip() for name in text.split(SEPARATOR))
    return tuple(name for name in names if name and name.lower() != NO_CLASSES)


def as_record(answer: Answer) -> dict[str, Any]:
    """For a ledger: what is not empty."""
    return {name: value for name, value in vars(answer).items() if value}


def from_record(record: Mapping[str, Any]) -> Answer:
    """What `as_record` wrote."""
    return Answer(**record)
