"""Centrelines of thin structures as a field of a case, and images to trace them in.

| saved as | what counts |
|---|---|
| SWC | every branch between roots, forks and tips, projected onto x and y |
| JSON | ``{"branches": [{"points": [[x, y], ...]}, ...]}``, maybe ``shape`` and ``polarity``; or a list of polylines |

`envs.axon.centrelines` reads both. x is the column and y the row, in pixels; 0 is the middle of the first pixel. In
images that are no pictures (NIfTI, MHA, NPZ) the first array axis is the rows, the second the columns, the third is
projected along.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.axon.centrelines import Centrelines, parse_centrelines, point_outside
from envs.axon.pictures import Color, Projection, plane_of
from medray.data.case import Case, Volume
from medray.errors import UserError

FIELD = "centrelines"


def centrelines_of(case: Case) -> Centrelines:
    """The centrelines of a case.

    Raises:
        UserError: it has none, or they cannot be read.
    """
    if FIELD not in case.fields:
        raise UserError(f"case {case.id} has no {FIELD}; give an .swc or .json of the image's name")
    source = str(getattr(case.fields[FIELD], "path", f"{FIELD} of case {case.id}"))
    try:
        return parse_centrelines(case.load(FIELD), source)
    except ValueError as error:
        raise UserError(str(error)) from error


def picture_of(volume: Volume, *, color: Color = "luminance", projection: Projection = "max") -> NDArray[np.float32]:
    """One plane (H, W) to track in, values as stored; see `envs.axon.pictures.plane_of`.

    Raises:
        UserError: another number of channels than 1, 3 or 4, smaller than 21 x 21 px, or the same value everywhere.
    """
    pages_first = volume.header.get("format") == "raster"
    axes = "CYX" if volume.spatial_dims == 2 else "CZYX" if pages_first else "CYXZ"
    try:
        return plane_of(volume.array, axes=axes, color=color, projection=projection, name=volume.source or "the image")
    except ValueError as error:
        raise UserError(str(error)) from error


def pixel_size_mm(volume: Volume) -> tuple[float, float]:
    """Size of a pixel of `picture_of` along x and along y."""
    raster_stack = volume.spatial_dims == 3 and volume.header.get("format") == "raster"
    rows, columns = volume.spacing[1:] if raster_stack else volume.spacing[:2]
    return columns, rows


def centrelines_problem(case: Case, shape: tuple[int, int]) -> str:
    """A sentence on what keeps a case's centrelines from lying on an image of ``shape`` (H, W), or "".

    Names the file, the branch and the point that is outside; a file without a branch is a problem too.
    """
    try:
        centrelines = centrelines_of(case)
    except UserError as error:
        return str(error)
    if not centrelines.branches:
        return f"{centrelines.source} holds no branch of two or more points"
    return point_outside(centrelines, shape)


def as_table(centrelines: Centrelines) -> dict[str, Any]:
    """Centrelines as `parse_centrelines` takes them: what a field of a case loads as, plain enough to be packed."""
    return {
        "shape": list(centrelines.shape) if centrelines.shape else None,
        "polarity": centrelines.polarity,
        "branches": [{"type": branch.kind, "points": branch.points.tolist()} for branch in centrelines.branches],
    }
