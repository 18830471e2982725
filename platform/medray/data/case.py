"""What a data source hands out: cases with named fields, each loaded only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Volume:
    """An image, label map or vector field on a regular grid.

    Attributes:
        array: channel first, (C, *spatial) with two or three spatial axes in array order. A label map has C = 1 and an
            integer type; several overlapping masks are several channels.
        affine: 4x4, voxel index to world position in mm, RAS+ as in NIfTI. A 2D image is the plane of index (i, j, 0).
        source: where it came from, for messages.
        header: format-specific metadata a writer can use to hand the grid back unchanged.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    source: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, channels left out."""
        return tuple(int(n) for n in self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.array.ndim - 1

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along each spatial array axis."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : self.spatial_dims], axis=0))


@dataclass(frozen=True)
class Mesh:
    """A surface of triangles, or a point cloud.

    Attributes:
        vertices: (N, 3) float64, in the file's own coordinates and unit (dental and anatomical scans: mm).
        faces: (F, 3) int64, indices of vertices; (0, 3) for a point cloud.
        corners: of a file without shared vertices (STL), the vertex that each of its 3 F corners became when equal
            positions were merged, in file order; None for other files.
        source: where it came from, for messages.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    corners: NDArray[np.int64] | None = None
    source: str = ""


@runtime_checkable
class FieldRef(Protocol):
    """Where one field of a case comes from. Picklable and cheap: it travels to every worker."""

    def load(self) -> Any:
        """Read or generate it: a `Volume` for images and labels, a `Mesh`, arrays or tables for other kinds.

        Raises:
            UserError: the file is missing, truncated or not what its name says.
        """

    def fingerprint(self) -> str:
        """A short text that changes when the content does (size and checksum of the file, or generator and seed)."""


@dataclass(frozen=True)
class Case:
    """One sample of a source.

    Attributes:
        id: unique within its source.
        patient: cases of one patient never end up on both sides of a split.
        fields: named data, for example image and label; or moving, fixed, moving_label, fixed_label, displacement for
            a ready-made registration pair.
        attributes: what a manifest says about the case besides files: modality, site, grade, split.
    """

    id: str
    patient: str
    fields: Mapping[str, FieldRef]
    attributes: Mapping[str, str] = field(default_factory=dict)

    def load(self, name: str) -> Any:
        """Load one field.

        Raises:
            KeyError: the case has no such field.
            UserError: the field cannot be read.
        """
        return self.fields[name].load()

    def volume(self, name: str) -> Volume:
        """Load one field that must be an image-like `Volume`.

        Raises:
            TypeError: the field is of another kind.
        """
        value = self.load(name)
        if not isinstance(value, Volume):
            raise TypeError(f"field {name!r} of case {self.id!r} is a {type(value).__name__}, not a volume")
        return value

    def mesh(self, name: str) -> Mesh:
        """Load one field that must be a `Mesh`.

        Raises:
            TypeError: the field is of another kind.
        """
        value = self.load(name)
        if not isinstance(value, Mesh):
            raise TypeError(f"field {name!r} of case {self.id!r} is a {type(value).__name__}, not a mesh")
        return value


@dataclass(frozen=True)
class BadCase:
    """A case set aside, with the sentence that says why."""

    case: str
    reason: str
    file: str = ""


@dataclass(frozen=True)
class Source:
    """An opened data source: its cases in a stable order, and what identifies its content."""

    spec: str
    cases: tuple[Case, ...]
    fingerprint: str
    bad: tuple[BadCase, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Cases by role. Patients are disjoint between the three."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
