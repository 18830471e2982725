"""What a round hands to the annotators: a table to fill in, pictures, a page of thumbnails and how to go about it.

| in ``round-003/`` | |
|---|---|
| ``worklist.csv`` | a row per case, the most wanted first; label, status and note are empty |
| ``index.html`` | thumbnails on one page that needs nothing else |
| ``HOW_TO.txt`` | what to do, in plain words |
| ``images/`` | each image whole, 8-bit PNG, to draw on; ``images/auxiliary/`` the other modality, to look at |
| ``labels/`` | where masks come back |
| ``query.json`` | what was asked; written last, so that it says the others are whole |
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from medray.active.exchange import Exchange
from medray.active.oracle import Query
from medray.active.people.pictures import layout, picture, png, size_text, thumbnail
from medray.active.people.rules import LabelRules
from medray.active.people.tables import cell
from medray.data.case import Case
from medray.data.fields import FileRef
from medray.data.modalities import AUXILIARY, MAIN
from medray.data.sliced import SliceField
from medray.errors import UserError

COLUMNS = ("case", "patient", "picture", "files", "score", "label", "status", "note")
TABLE, PAGE, GUIDE, QUERY = "worklist.csv", "index.html", "HOW_TO.txt", "query.json"
LABELS, IMAGES = "labels", "images"
PLACEHOLDER = f"{LABELS}/PUT_MASKS_HERE.txt"
"""Object storage has no empty folders."""
_PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[a-z0-9][a-z0-9_-]{0,79}")
"""Windows has no files called aux.png and the like."""


def round_folder(number: int) -> str:
    """Name of a round's folder."""
    return f"round-{number:03d}"


def safe_name(case_id: str) -> str:
    """A file name for a case, different for different ids on any file system; the worklist leads back.

    >>> safe_name("film_07"), safe_name("Brats18/z=77")
    ('film_07', 'brats18_z_77-22b7620b')
    """
    if _PLAIN.fullmatch(case_id):
        return case_id
    readable = re.sub(r"[^a-z0-9]+", "_", case_id.lower()).strip("_")[:60]
    # 8 hex digits: some ids may differ in nothing else, by capitals or by slashes
    return f"{readable}-{hashlib.blake2b(case_id.encode(), digest_size=4).hexdigest()}"


def write_worklist(exchange: Exchange, query: Query, cases: Mapping[str, Case], rules: LabelRules) -> None:
    """Write a round. What an annotator may have changed already is left alone, however often this is called.

    Args:
        exchange: where to.
        query: what is asked.
        cases: by id.
        rules: what counts as a label.

    Raises:
        UserError: the folder holds a round of this number that asked for other cases, or an image cannot be read.
    """
    folder = round_folder(query.number)
    there = {item.name for item in exchange.list()}
    if f"{folder}/{QUERY}" in there:
        _check_same(exchange, f"{folder}/{QUERY}", query)
        return
    entries = [_write_pictures(exchange, folder, cases[name]) for name in query.cases]
    guide = "\n\n".join(f"{n}. {step}" for n, step in enumerate(rules.instructions(), 1)) + "\n"
    exchange.write(f"{folder}/{GUIDE}", guide.encode())
    exchange.write(f"{folder}/{PAGE}", _page(query, entries, rules).encode())
    if rules.kind == "mask":
        exchange.write(f"{folder}/{PLACEHOLDER}", f"See ../{GUIDE}.\n".encode())
    if f"{folder}/{TABLE}" not in there:
        exchange.write(f"{folder}/{TABLE}", _table(query, entries))
    asked = {"cases": list(query.cases), "pictures": [entry.picture for entry in entries]}
    exchange.write(f"{folder}/{QUERY}", (json.dumps(asked, indent=1) + "\n").encode())


def _check_same(exchange: Exchange, name: str, query: Query) -> None:
    if json.loads(exchange.read(name))["cases"] != list(query.cases):
        raise UserError(
            f"{exchange.url(name)} asks for other cases than this campaign does; give each campaign an annotation "
            "folder of its own"
        )


@dataclass(frozen=True)
class _Entry:
    """A case on the worklist."""

    case: Case
    picture: str
    size: str
    letters: tuple[str, ...]
    thumbnails: tuple[tuple[str, str], ...]
    """Name of the field and data url."""


def _write_pictures(exchange: Exchange, folder: str, case: Case) -> _Entry:
    name = safe_name(case.id)
    image = case.volume(MAIN)
    pages = {MAIN: picture(image)}
    if AUXILIARY in case.fields:
        pages[AUXILIARY] = picture(case.volume(AUXILIARY))
        exchange.write(f"{folder}/{IMAGES}/{AUXILIARY}/{name}.png", png(pages[AUXILIARY]))
    exchange.write(f"{folder}/{IMAGES}/{name}.png", png(pages[MAIN]))
    thumbnails = tuple((field, _data_url(thumbnail(page))) for field, page in pages.items())
    return _Entry(case, f"{IMAGES}/{name}.png", size_text(pages[MAIN].shape), layout(image).letters, thumbnails)


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _table(query: Query, entries: list[_Entry]) -> bytes:
    """With a byte order mark, without which Excel takes the text for another encoding and damages it on saving."""
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS, restval="")
    rows.writeheader()
    for entry, score in zip(entries, _scores(query), strict=True):
        case = entry.case
        told = {"case": case.id, "patient": case.patient, "picture": entry.picture, "files": _files(entry)}
        rows.writerow({**{name: cell(text) for name, text in told.items()}, "score": _score(score)})
    return text.getvalue().encode("utf-8-sig")


def _files(entry: _Entry) -> str:
    found = [text for name in (MAIN, AUXILIARY) if (text := _location(entry.case, name))]
    return " | ".join(found) or entry.picture


def _location(case: Case, field: str) -> str:
    """Path of a field's file, and the slice where it is one of a volume; empty if it comes from no file."""
    ref = case.fields.get(field)
    if isinstance(ref, SliceField):
        path = ref.ref.path if isinstance(ref.ref, FileRef) else ""
        return f"{path} slice {int(case.attributes['slice'])} from below, the first is 0" if path else ""
    return ref.path if isinstance(ref, FileRef) else ""


def _scores(query: Query) -> tuple[float, ...]:
    """One for each case; nan where the sampler says nothing."""
    return query.scores or (math.nan,) * len(query.cases)


def _score(score: float) -> str:
    return "" if math.isnan(score) else f"{score:.6g}"


def _page(query: Query, entries: list[_Entry], rules: LabelRules) -> str:
    cards: list[dict[str, Any]] = [
        {"order": order, "score": _score(score), "entry": entry}
        for order, (entry, score) in enumerate(zip(entries, _scores(query), strict=True), 1)
    ]
    is_mask = rules.kind == "mask"
    return _template().render(number=query.number, cards=cards, steps=rules.instructions(), is_mask=is_mask)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("medray.active.people"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("worklist.html.j2")
