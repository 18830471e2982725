"""Attention maps over images: what is drawn where, and nothing where there is no heat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from medray.figures.attention import AttentionRow, attention_rows, rendering, three_planes
from medray.figures.compositing import composite
from medray.figures.drawing import to_png
from medray.figures.heat import heat_colors
from medray.figures.scene import make_scene

Array = np.ndarray[Any, Any]
RAS = np.diag([2.0, 4.0, 3.0, 1.0])
"""Axes run to the right, to the front and up."""
SPACING = (2.0, 4.0, 3.0)
SHAPE = (20, 12, 16)


def row(**changes: Any) -> AttentionRow:
    image = np.random.default_rng(0).random((10, 12))
    heat, truth = np.zeros((10, 12)), np.zeros((10, 12))
    heat[4, 5] = truth[3:6, 4:7] = 1
    given = {"image": image, "heats": {"Grad-CAM": heat, "guided": heat / 2}, "truth": truth, "title": "p1: 0.9"}
    return AttentionRow(**{**given, **changes})


def volume(*place: int) -> tuple[Array, Array]:
    """Noise, and heat with its maximum there."""
    away = np.stack([index - at for index, at in zip(np.indices(SHAPE), place, strict=True)])
    return np.random.default_rng(1).random(SHAPE), np.exp(-(away**2).sum(0) / 8.0)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_row_is_the_image_its_maps_and_the_outlines() -> None:
    figure = attention_rows([row(), row(title="p2: 0.1", found=row().truth)], title="all")
    panels = figure.axes[:8]
    assert [axes.get_title() for axes in panels] == ["image", "Grad-CAM", "guided", "outlines"] + [""] * 4
    assert [panels[0].get_ylabel(), panels[4].get_ylabel()] == ["p1: 0.9", "p2: 0.1"]
    assert [len(axes.images) for axes in panels] == [1, 2, 2, 1] * 2
    assert [len(axes.collections) for axes in panels] == [0, 0, 0, 1, 0, 0, 0, 2]
    assert figure.axes[8].get_ylabel() == "attention, share of the map's maximum"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true", "found"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_a_map_of_fine_structure_is_drawn_alone_and_brightly() -> None:
    sparse = np.zeros((10, 12))
    sparse[2, 2:6] = 0.02, 0.03, 0.04, 1.0
    figure = attention_rows([row(heats={"guided": sparse, "CAM": sparse}, truth=None)], alone=["guided"])
    (shown,) = figure.axes[1].images
    np.testing.assert_array_equal(shown.get_array(), sparse)
    assert shown.get_clim() == (0, np.percentile(sparse, 99.5))
    assert len(figure.axes[2].images) == 2
    empty = attention_rows([row(heats={"guided": 0 * sparse}, truth=None)], alone=["guided"])
    assert empty.axes[1].images[0].get_clim() == (0, 1)
    assert len(empty.axes) == 2  # no scale of heat where none lies over an image


def test_without_masks_there_is_no_panel_of_outlines() -> None:
    figure = attention_rows([row(truth=None)])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "Grad-CAM", "guided"]
    assert not figure.legends


def test_no_heat_covers_nothing_and_the_maximum_covers_most() -> None:
    colors = heat_colors()(np.array([0.0, 0.2, 1.0]))
    assert colors[0, 3] == 0
    assert 0 < colors[1, 3] < colors[2, 3] == 0.8
    figure = attention_rows([row()])
    shown = figure.axes[1].images[1]
    np.testing.assert_array_equal(shown.get_array(), row().heats["Grad-CAM"])
    assert shown.get_clim() == (0, 1)  # not the map's own range: an empty map must stay empty


@pytest.mark.parametrize(("spacing", "length"), [((1.0, 1.0), "2 mm"), ((0.5, 5.0), "10 mm"), (None, None)])
def test_the_bar_has_a_round_length_of_at_most_a_quarter_of_the_width(
    spacing: tuple[float, float] | None, length: str | None
) -> None:
    figure = attention_rows([row()], spacing=spacing)
    assert texts(figure) == ([] if length is None else [length])
    if spacing is not None and length is not None:
        drawn = np.ptp(figure.axes[0].lines[0].get_xdata())
        assert drawn == pytest.approx(float(length.removesuffix(" mm")) / (12 * spacing[1]))


def test_rows_with_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same names, got \[\['Grad-CAM', 'guided'\], \['CAM'\]\]"):
        attention_rows([row(), row(heats={"CAM": np.zeros((10, 12))})])
    with pytest.raises(ValueError, match=r"got \[\]"):
        attention_rows([])


def crossings(figure: Figure) -> list[tuple[float, float]]:
    """Row and column of the cross in each of three panels."""
    found = []
    for axes in figure.axes[:3]:
        lines = [line.get_segments() for line in axes.collections if isinstance(line, LineCollection)]
        found.append((lines[-2][0][0][1], lines[-1][0][0][0]))
    return found


def test_planes_meet_where_the_heat_is_largest() -> None:
    image, heat = volume(5, 3, 11)
    figure = three_planes(image, heat, SPACING, affine=RAS)
    panels = figure.axes[:3]
    assert [axes.get_title() for axes in panels] == ["axial", "coronal", "sagittal"]
    for axes in panels:
        assert axes.images[1].get_array().max() == 1.0
    # Seen with the right, the front and the upper end first: 20 - 1 - 5, 12 - 1 - 3, 16 - 1 - 11.
    assert crossings(figure) == [(8, 14), (4, 14), (4, 8)]
    for axes, (down, across) in zip(panels, crossings(figure), strict=True):
        assert axes.images[1].get_array()[int(down), int(across)] == 1.0
    assert axes.images[0].get_array().shape == (16, 12)
    np.testing.assert_allclose([axes.get_aspect() for axes in panels], [4 / 2, 3 / 2, 3 / 4])


def test_planes_through_a_point_of_ones_own() -> None:
    image, heat = volume(5, 3, 11)
    figure = three_planes(image, heat, SPACING, point=(0, 1, 2))
    assert crossings(figure) == [(0, 1), (0, 2), (1, 2)]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["axes 0 and 1", "axes 0 and 2", "axes 1 and 2"]


def test_a_map_of_zeros_shows_the_middle_without_a_cross() -> None:
    image, heat = volume(5, 3, 11)
    figure = three_planes(image, 0 * heat, SPACING, mask=heat > 0.5, title="nothing")
    assert not any(isinstance(line, LineCollection) for axes in figure.axes[:3] for line in axes.collections)
    assert figure.axes[0].images[1].get_array().max() == 0
    assert to_png(figure).startswith(b"\x89PNG")


def test_the_tear_is_outlined_in_every_plane_that_meets_it() -> None:
    image, heat = volume(5, 3, 11)
    with_mask, without = (three_planes(image, heat, SPACING, mask=mask) for mask in (heat > 0.5, heat < 0))
    counts = [[len(axes.collections) for axes in figure.axes[:3]] for figure in (with_mask, without)]
    assert counts == [[3, 3, 3], [2, 2, 2]]


@pytest.mark.parametrize("draw", [three_planes, rendering])
def test_other_shapes_are_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"one shape .*\(20, 12, 16\), \(2, 2, 2\)"):
        draw(volume(0, 0, 0)[0], np.zeros((2, 2, 2)), SPACING)


def spot_in_glass(place: tuple[int, int, int], *, heat: float) -> Any:
    """A cube of 16 mm with a spot, gray or hot; axes down, away, right."""
    image, hot = np.zeros((16, 16, 16)), np.zeros((16, 16, 16))
    spot = tuple(slice(at - 1, at + 2) for at in place)
    (hot if heat else image)[spot] = heat or 1.0
    image[0, 0, 0] = 1.0  # so that the volume has a range
    return make_scene(image, hot, (1.0, 1.0, 1.0))


def brightest(picture: Array) -> tuple[float, float]:
    """Down and right of the middle, mm."""
    bright = picture.max(axis=2)
    places = np.argwhere(bright > 0.5 * bright.max()).mean(axis=0)
    millimeters = 16 * np.sqrt(2) / picture.shape[1]
    down, right = (places - (np.asarray(bright.shape) - 1) / 2) * millimeters
    return float(down), float(right)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [(0, 0, (-3.5, 4.5)), (90, 0, (-3.5, -2.5)), (180, 0, (-3.5, -4.5)), (0, 90, (2.5, 4.5)), (-90, 0, (-3.5, 2.5))],
)
def test_a_spot_is_seen_where_it_is(azimuth: float, elevation: float, expected: tuple[float, float]) -> None:
    # 3.5 mm above the middle, 2.5 mm before it and 4.5 mm to the right. From the right end of the page, what is
    # nearer to the front viewer lies to the left; from above, it lies at the bottom.
    scene = spot_in_glass((4, 5, 12), heat=1.0)
    assert brightest(composite(scene, azimuth, elevation)) == pytest.approx(expected, abs=0.5)


def test_tissue_is_gray_heat_is_warm_and_nothing_is_black() -> None:
    gray = composite(spot_in_glass((8, 8, 8), heat=0), 30, 10)
    np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=1e-9)
    assert gray.max() > 0
    hot = composite(spot_in_glass((8, 8, 8), heat=1.0), 30, 10)
    place = np.unravel_index(hot.max(axis=2).argmax(), hot.shape[:2])
    assert hot[place][0] > hot[place][2] + 0.2
    empty = make_scene(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), (1, 1, 1))
    assert composite(empty, 0, 0).max() == 0


def test_rendering_shows_three_sides() -> None:
    image, heat = volume(5, 3, 11)
    figure = rendering(image, heat, SPACING, affine=RAS, title="p1")
    assert [axes.get_title() for axes in figure.axes] == ["from the front", "turned by 45°", "from the side"]
    assert texts(figure) == ["R", "L", "A", "P"]
    assert texts(rendering(0 * image, 0 * heat, SPACING)) == []  # black, and drawn all the same
