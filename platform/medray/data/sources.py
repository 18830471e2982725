"""One string names the data: a phantom, a folder, a manifest, here or in object storage.

phantom:abdomen?n=20&seed=0          a seeded generator; nothing is downloaded
/scans/abdomen                       a folder in one of the layouts of `medray.data.folders`
/scans/shoulder?image=mri&label=tear a folder whose sub-folders are named as fields
/scans/index.csv                     a manifest; also .parquet
s3://bucket/abdomen                  the same kinds in object storage
/scans/packed, s3://bucket/packed    what `medray data pack` wrote (`medray.data.packed`)
deformed:/scans?moving=t1&fixed=flair   pairs with a known deformation, made from co-registered modalities
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from medray.data import folders, manifest, packed
from medray.data.case import BadCase, Case, Source
from medray.data.fields import Kind, source_fingerprint
from medray.data.phantoms import GENERATORS
from medray.data.places import Places, StoredPath, listed
from medray.errors import UserError

Generator = Callable[..., tuple[Case, ...]]
KINDS = "a folder, a manifest (.csv, .tsv, .parquet), either also as s3://..., phantom:NAME or deformed:FOLDER"


def open_source(spec: str, *, fields: Mapping[str, Kind] | None = None) -> Source:
    """Open a data source. Files are found, not read; `medray.data.check` reads them.

    Args:
        spec: see the module's text.
        fields: how the named fields are read where their name does not tell, for example ``{"psf": "array"}``.

    Returns:
        Cases in a stable order, a fingerprint of their content, and what was set aside (labels without an image).

    Raises:
        UserError: nothing there, an unknown layout, phantom or parameter, a faulty manifest row.
    """
    scheme, separator, rest = spec.partition(":")
    if spec.startswith(("gs://", "http://", "https://", "az://")):
        raise UserError(f"{spec}: data is read from local folders and from s3:// only; copy it first")
    cases: Sequence[Case]
    bad: Sequence[BadCase] = ()
    if separator and scheme == "phantom":
        cases = _phantom(rest)
    elif separator and scheme == "deformed":
        from medray.data.deformed import deformed_cases

        path, options = _query(rest)
        cases = call_with(deformed_cases, f"deformed:{path}", {"folder": path, **options})
    else:
        cases, bad = _files(spec, fields)
    return Source(spec=spec, cases=tuple(cases), fingerprint=source_fingerprint(cases), bad=tuple(bad))


def _files(spec: str, kinds: Mapping[str, Kind] | None) -> tuple[list[Case], list[BadCase]]:
    if not spec.strip():
        raise UserError(f"the data source is empty; give {KINDS}")
    options: dict[str, str] = {}
    places = Places()
    path = _path(spec, places)
    if not path.exists() and "?" in spec:
        text, options = _query(spec)
        path = _path(text, places)
    if not path.exists():
        raise UserError(f"{path} does not exist; a data source is {KINDS}")
    if path.is_dir():
        path = listed(path)
        if packed.is_packed(path):
            if options:
                raise UserError(f"{path}: a packed source takes no parameters, got {', '.join(options)}")
            return packed.read_index(path)
        found = folders.by_fields(path, options, kinds) if options else folders.discover(path, kinds)
        return found.cases, found.bad
    if path.suffix.lower() not in manifest.SUFFIXES:
        raise UserError(f"{path} is a single file; a data source is {KINDS}")
    if options:
        raise UserError(f"{path}: a manifest takes no parameters, got {', '.join(options)}")
    return manifest.read_manifest(path, kinds), []


def _path(text: str, places: Places) -> Path | StoredPath:
    path = places(text)
    return path.expanduser() if isinstance(path, Path) else path


def _phantom(rest: str) -> tuple[Case, ...]:
    name, options = _query(rest)
    if name not in GENERATORS:
        raise UserError(f"there is no phantom {name!r}; known are {', '.join(sorted(GENERATORS))}")
    module, _, function = GENERATORS[name].partition(":")
    generator: Generator = getattr(importlib.import_module(module), function)
    return call_with(generator, f"phantom:{name}", options)


def _query(text: str) -> tuple[str, dict[str, str]]:
    """Split ``name?a=1&b=2``."""
    head, mark, query = text.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if mark and query else []
    except ValueError as error:
        raise UserError(f"{text!r}: parameters are written ?name=value&name=value") from error
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise UserError(f"{text!r} gives the parameter {max(names, key=names.count)} twice")
    return head, dict(pairs)


def call_with(generator: Generator, where: str, options: Mapping[str, str]) -> tuple[Case, ...]:
    """Call a generator with parameters given as text, turned into the types of its signature.

    Raises:
        UserError: an unknown parameter (the known ones are listed), a value of the wrong type, or what the generator
            itself says with a ValueError.
    """
    signature = inspect.signature(generator)
    hints = typing.get_type_hints(generator)
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in signature.parameters:
            raise UserError(f"{where} has no parameter {name!r}; known are {', '.join(_listed(signature))}")
        values[name] = _convert(where, name, text, hints.get(name, str))
    missing = [
        name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty and name not in values
    ]
    if missing:
        raise UserError(f"{where} needs the parameter {missing[0]}; known are {', '.join(_listed(signature))}")
    try:
        return tuple(generator(**values))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _listed(signature: inspect.Signature) -> list[str]:
    return [
        name if p.default is inspect.Parameter.empty else f"{name}={p.default}"
        for name, p in signature.parameters.items()
        if name != "folder"
    ]


def _convert(where: str, name: str, text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        match = next((value for value in allowed if str(value) == text), None)
        if match is None:
            raise UserError(f"{where}: {name}={text} is not one of {', '.join(map(str, allowed))}")
        return match
    kinds = typing.get_args(hint) or (hint,)
    if bool in kinds and text.lower() in ("1", "0", "true", "false", "yes", "no"):
        return text.lower() in ("1", "true", "yes")
    for kind in (int, float, str):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}
    expected = " or ".join(wanted[kind] for kind in kinds if kind in wanted)
    raise UserError(f"{where}: {name}={text} is not {expected}")
