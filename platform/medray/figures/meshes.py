"""Pictures of surfaces and point clouds, one color per vertex, seen along their own main axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medray.data.case import Mesh

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_FACES = 60_000
_LIGHT = np.array([0.25, 0.35, 0.9])  # in the frame of the main axes, from above and in front
_PANEL_INCHES = 3.4
_ROWS: dict[str, tuple[int, int, int, int]] = {"from above": (0, 1, 2, 1), "from the front": (0, 2, 1, -1)}
"""Axes across and up, the depth axis, and the sign that brings near parts to the end; of the main axes' frame."""


@dataclass(frozen=True)
class ColoredMesh:
    """What one column of panels shows: colors are (N, 3) in 0 to 1; legend pairs a name with its color."""

    title: str
    mesh: Mesh
    colors: NDArray[np.float64]


def mesh_panels(columns: Sequence[ColoredMesh], *, legend: Sequence[tuple[str, NDArray[np.float64]]] = ()) -> Figure:
    """Each mesh from above (along the axis it is thinnest in) and from the front.

    Surfaces of more than 60,000 faces, and point clouds, are drawn as points.

    Args:
        columns: meshes that are shown side by side, each turned into the main axes of the first one's vertices.
        legend: names and colors, below everything.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    frame = main_axes(columns[0].mesh.vertices, faces=columns[0].mesh.faces)
    figure = Figure(figsize=(_PANEL_INCHES * len(columns), _PANEL_INCHES * 1.55), layout="constrained")
    grid = figure.add_gridspec(2, len(columns), height_ratios=(1.0, 0.45))
    for number, column in enumerate(columns):
        turned = (column.mesh.vertices - columns[0].mesh.vertices.mean(axis=0)) @ frame.T
        for row, (name, view) in enumerate(_ROWS.items()):
            axes = figure.add_subplot(grid[row, number])
            _draw(axes, turned, column.mesh.faces, column.colors, view)
            if row == 0:
                axes.set_title(column.title, fontsize=9)
            if number == 0:
                axes.set_ylabel(name, fontsize=8)
    if legend:
        marks = [Line2D([], [], marker="s", linestyle="", color=tuple(color)) for _, color in legend]
        figure.legend(
            marks,
            [name for name, _ in legend],
            loc="outside lower center",
            ncols=min(9, 4 * len(columns)),
            fontsize=7,
            frameon=False,
        )
    return figure


def main_axes(vertices: NDArray[np.float64], *, faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows are the axes of largest, middle and least extent, right-handed; the last along the mean normal of the faces.

    Args:
        vertices: (N, 3).
        faces: (F, 3); without any the last axis keeps the sign it comes with.
    """
    centered = vertices - vertices.mean(axis=0)
    axes = np.linalg.svd(centered.T @ centered)[0].T
    if len(faces) and _normals(vertices, faces).sum(axis=0) @ axes[2] < 0:
        axes[2] *= -1
    across = centered @ axes[1]
    if (across**3).sum() > 0:  # the closed end of an arch is where its points are dense: show it at the top
        axes[1] *= -1
    axes[0] = np.cross(axes[1], axes[2])
    return np.asarray(axes)


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unnormalized, their length is twice the area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _draw(
    axes: Axes, points: NDArray[Any], faces: NDArray[np.int64], colors: NDArray[np.float64], view: tuple[int, ...]
) -> None:
    from matplotlib.collections import PolyCollection

    across, up, depth, sign = view
    if 0 < len(faces) <= _MOST_FACES:
        normals = _normals(points, faces)
        lengths = np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
        light = 0.45 + 0.55 * np.clip(normals @ _LIGHT / lengths, 0.0, 1.0)
        order = np.argsort(sign * points[faces].mean(axis=1)[:, depth])
        corner_colors = colors[faces]
        shown = np.where(  # the color two corners agree on, else the first's: no blends that are no label's
            (corner_colors[:, 1] == corner_colors[:, 2]).all(axis=1)[:, None], corner_colors[:, 1], corner_colors[:, 0]
        )
        shaded = (shown * light[:, None])[order]
        outlines = list(points[faces][order][:, :, [across, up]])
        patches = PolyCollection(outlines, facecolors=shaded, edgecolors=shaded)
        patches.set_linewidth(0.2)
        axes.add_collection(patches)
    else:
        order = np.argsort(sign * points[:, depth])
        axes.scatter(points[order, across], points[order, up], c=colors[order], s=1.0, linewidths=0)
    axes.set_xlim(points[:, across].min(), points[:, across].max())
    axes.set_ylim(points[:, up].min(), points[:, up].max())
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
