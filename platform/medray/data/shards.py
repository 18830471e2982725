"""One case as one row of a Parquet file: exact values, readable by any Parquet tool.

Columns: ``case``, ``patient``, ``attributes`` (a map), and one struct per field:

    kind     volume, array, json, columns (a CSV table) or mesh (an NPZ of its arrays)
    data     the C-ordered bytes in pieces of at most 64 MiB, since a Parquet value ends at 2 GiB; UTF-8 JSON for tables
    dtype    as numpy writes it, "<i2"
    shape    of the array, channel first for volumes
    affine   the 16 numbers of a volume's, row by row
    header   what a writer of images needs to hand the grid back, as JSON
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Mesh, Volume
from medray.errors import UserError

COLUMNS = ("case", "patient", "attributes")
_PIECE = 64 << 20


def schema(fields: Sequence[str]) -> Any:
    """The Arrow schema of cases with (at most) these fields.

    Raises:
        UserError: a field has the name of another column.
    """
    import pyarrow as pa

    taken = [name for name in fields if name in COLUMNS]
    if taken:
        raise UserError(f"the field {taken[0]!r} cannot be packed, packed cases have a column of that name; rename it")
    value = pa.struct(
        [
            ("kind", pa.string()),
            ("data", pa.list_(pa.large_binary())),
            ("dtype", pa.string()),
            ("shape", pa.list_(pa.int64())),
            ("affine", pa.list_(pa.float64())),
            ("header", pa.string()),
        ]
    )
    attributes = pa.map_(pa.string(), pa.string())
    return pa.schema(
        [
            ("case", pa.string()),
            ("patient", pa.string()),
            ("attributes", attributes),
            *((name, value) for name in fields),
        ]
    )


def encode(value: Any, what: str) -> dict[str, Any]:
    """A loaded field as a value of its column.

    Args:
        value: a `Volume`, a `Mesh`, an array, a table of arrays by name, or what JSON holds.
        what: for messages.

    Raises:
        UserError: of another kind.
    """
    if isinstance(value, Volume):
        header = json.dumps(dict(value.header), default=_plain)
        affine = np.asarray(value.affine, dtype=np.float64).ravel().tolist()
        return {"kind": "volume", **_array(value.array, what), "affine": affine, "header": header}
    if isinstance(value, Mesh):
        buffer = io.BytesIO()
        arrays = {"vertices": value.vertices, "faces": value.faces, "corners": value.corners}
        np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
        return {"kind": "mesh", "data": [buffer.getvalue()]}
    if isinstance(value, np.ndarray):
        return {"kind": "array", **_array(value, what)}
    if isinstance(value, Mapping) and value and all(isinstance(column, np.ndarray) for column in value.values()):
        columns = {str(name): {"dtype": column.dtype.str, "values": column.tolist()} for name, column in value.items()}
        return {"kind": "columns", "data": [json.dumps(columns).encode()]}
    try:
        return {"kind": "json", "data": [json.dumps(value).encode()]}
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} is a {type(value).__name__}, which cannot be packed") from error


def decode(stored: Mapping[str, Any], source: str) -> Any:
    """What `encode` was given.

    Args:
        stored: the struct; pieces of data may be any buffers.
        source: where it came from, for the volume's messages.

    Raises:
        ValueError: the bytes are not as many as the shape needs, or not what the kind says.
    """
    kind = stored["kind"]
    if kind in ("json", "columns"):
        value = json.loads(b"".join(bytes(piece) for piece in stored["data"]))
        if kind == "json":
            return value
        return {name: np.array(column["values"], dtype=column["dtype"]) for name, column in value.items()}
    if kind == "mesh":
        with np.load(io.BytesIO(b"".join(bytes(piece) for piece in stored["data"])), allow_pickle=False) as file:
            return Mesh(**{name: file[name] for name in file.files}, source=source)
    array: NDArray[Any] = np.empty(stored["shape"], dtype=stored["dtype"])
    target, done = array.reshape(-1).view(np.uint8), 0
    for piece in stored["data"]:
        part = np.frombuffer(piece, dtype=np.uint8)
        target[done : done + part.size] = part
        done += part.size
    if done != target.size:
        raise ValueError(f"{done} bytes where {target.size} are expected")
    if kind == "array":
        return array
    return Volume(array, np.array(stored["affine"]).reshape(4, 4), source, json.loads(stored["header"]))


def _array(array: NDArray[Any], what: str) -> dict[str, Any]:
    if array.dtype.kind not in "biufcUSmM":
        raise UserError(f"{what} holds {array.dtype} values, which cannot be packed")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    data = memoryview(flat.data)
    pieces = [data[start : start + _PIECE] for start in range(0, flat.size, _PIECE)]
    return {"data": pieces, "dtype": array.dtype.str, "shape": list(array.shape)}


def _plain(value: Any) -> Any:
    """Header entries of numpy's types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a header")
