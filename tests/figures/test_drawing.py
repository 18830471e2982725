"""Figures: which way is up, what is drawn where, and that the pictures are pictures."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medray.figures.drawing import curves, feature_panel, registration_overview, to_png
from medray.figures.views import views

FloatArray = NDArray[np.float64]
SHAPE = (5, 6, 7)


def turned(
    array: FloatArray, displacement: FloatArray, affine: FloatArray, order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same image and field with array axes permuted and flipped, and the affine that says so."""
    dims = len(order)
    array, displacement = array.transpose(order), displacement[list(order)].transpose(0, *(a + 1 for a in order))
    affine = affine.copy()
    affine[:, :dims] = affine[:, list(order)]
    for axis, flip in enumerate(flips):
        if flip:
            array, displacement = np.flip(array, axis), np.flip(displacement, axis + 1).copy()
            displacement[axis] *= -1
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return array, displacement, affine


def test_axial_view_has_anterior_up_and_the_patients_right_on_the_left() -> None:
    volume = np.zeros(SHAPE)
    volume[4, 5, 3] = 1.0  # the right-most, anterior-most corner of the middle slice of a RAS+ volume
    axial, coronal, sagittal = views(SHAPE, affine=np.diag([1.0, 2.0, 3.0, 1.0]))
    page = axial.plane(volume)
    assert page.shape == (6, 5)
    assert page[0, 0] == 1.0
    assert axial.letters == ("R", "L", "A", "P")
    assert (axial.name, coronal.name, sagittal.name) == ("axial", "coronal", "sagittal")
    assert axial.spacing == (1.0, 2.0)
    assert coronal.letters == ("R", "L", "S", "I")
    assert sagittal.letters == ("A", "P", "S", "I")
    assert sagittal.plane(volume).shape == (7, 6)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_page_does_not_depend_on_the_order_of_the_array(dims: int) -> None:
    rng = np.random.default_rng(0)
    array, field = rng.normal(size=SHAPE[:dims]), rng.normal(size=(dims, *SHAPE[:dims]))
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    middle = (1, 2, 3)[:dims]
    wanted = views(array.shape, affine=affine, middle=middle)
    for order in itertools.permutations(range(dims)):
        for flips in itertools.product((False, True), repeat=dims):
            other, other_field, other_affine = turned(array, field, affine, order, flips)
            position = [middle[axis] for axis in order]
            position = [n - 1 - p if flip else p for p, n, flip in zip(position, other.shape, flips, strict=True)]
            found = views(other.shape, affine=other_affine, middle=position)
            for one, two in zip(wanted, found, strict=True):
                np.testing.assert_array_equal(two.plane(other), one.plane(array))
                np.testing.assert_array_equal(two.page_field(other_field), one.page_field(field))
                assert (two.name, two.letters, two.spacing, two.ratio) == (
                    one.name,
                    one.letters,
                    one.spacing,
                    one.ratio,
                )


def test_without_an_affine_a_picture_is_a_picture() -> None:
    picture = np.arange(6.0).reshape(2, 3)
    (view,) = views(picture.shape, spacing=(2.0, 0.5))
    np.testing.assert_array_equal(view.plane(picture), picture)
    assert view.spacing == (0.5, 2.0)
    assert view.ratio == pytest.approx(2 * 2.0 / (3 * 0.5))
    assert view.letters == ()
    right, down = view.page_field(np.stack([np.full((2, 3), 1.0), np.full((2, 3), -3.0)]))
    assert (right[0, 0], down[0, 0]) == (-3.0, 1.0)


def test_views_reject_what_they_cannot_show() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 4\)"):
        views((1, 4, 4, 4))
    with pytest.raises(ValueError, match="spacing needs 2 positive numbers"):
        views((4, 4), spacing=(1.0, 1.0, 1.0))


@pytest.fixture
def shifted() -> dict[str, Any]:
    """A square that lies 4 px further along axis 1 in the moving image, registered exactly."""
    fixed, moving = np.zeros((24, 32)), np.zeros((24, 32))
    fixed[8:16, 8:16], moving[8:16, 12:20] = 1.0, 1.0
    displacement = np.stack([np.zeros((24, 32)), np.full((24, 32), 4.0)])
    return {"moving": moving, "fixed": fixed, "warped": fixed.copy(), "displacement_px": displacement}


def titled(figure: Any, word: str) -> Any:
    return next(axes for axes in figure.axes if word in axes.get_title())


def test_overview_shows_before_and_after(shifted: dict[str, Any]) -> None:
    labels = {name: (shifted[name] * 2).astype(int) for name in ("moving", "fixed")}
    figure = registration_overview(
        **shifted,
        moving_label=labels["moving"],
        fixed_label=labels["fixed"],
        label_names={2: "square"},
        spacing=(3.0, 1.5),
        title="case 1",
    )
    assert len(figure.axes) == 8
    assert figure.get_suptitle() == "case 1"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["square"]
    assert all(axes.get_aspect() == pytest.approx(2.0) for axes in figure.axes)
    np.testing.assert_array_equal(titled(figure, "fixed and warped").images[0].get_array(), shifted["fixed"])
    before = np.asarray(titled(figure, "fixed and moving").images[0].get_array())
    assert set(np.unique(before[:, 8:20])) == {0.0, 1.0}
    assert not np.array_equal(before, shifted["fixed"])

    def outlines(word: str) -> list[tuple[float, ...]]:
        boxes = [lines.get_paths()[0].get_extents() for lines in titled(figure, word).collections]
        return [(box.x0, box.x1, box.y0, box.y1) for box in boxes]

    assert outlines("outlines before") == [(7.5, 15.5, 7.5, 15.5), (11.5, 19.5, 7.5, 15.5)]
    assert outlines("outlines after") == [(7.5, 15.5, 7.5, 15.5)] * 2  # moving labels are resampled here


def test_overview_draws_the_grid_where_it_goes_and_crosses_where_it_folds(shifted: dict[str, Any]) -> None:
    figure = registration_overview(**shifted)
    assert len(figure.axes) == 6
    grid = titled(figure, "folded 0.00%")
    assert "|u| mean 4.0, max 4.0 px" in grid.get_title()
    vertical = [line.get_xdata() for line in grid.lines if np.ptp(line.get_xdata()) == 0]
    assert vertical[0][0] == 4.0  # the first column, moved to the right by 4 px
    assert not any(line.get_marker() == "x" for line in grid.lines)

    columns = np.arange(32.0)
    u = np.zeros((2, 24, 32))
    u[1] = np.where(columns < 16, 0.0, -2.0 * (columns - 16))  # x + u turns back at column 16: slope -1 beyond
    folding = registration_overview(**(shifted | {"displacement_px": u}))
    crosses = [line for line in titled(folding, "folded").lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    where = np.arange(16.0, 32.0)  # the central difference at 16 is exactly 0
    np.testing.assert_allclose(np.unique(crosses[0].get_xdata()), np.unique(where - 2 * (where - 16)))
    assert "folded 50.00%" in titled(folding, "folded").get_title()


def test_overview_of_a_volume_cuts_it_where_the_labels_are() -> None:
    rng = np.random.default_rng(0)
    volume, label = rng.normal(size=(10, 12, 14)), np.zeros((10, 12, 14), dtype=int)
    label[2, 3, 4] = label[2, 3, 5] = 1
    figure: Any = registration_overview(
        volume,
        volume,
        volume,
        np.zeros((3, *volume.shape)),
        moving_label=label,
        fixed_label=label,
        affine=np.diag([2.0, 2.0, 4.0, 1.0]),
    )
    assert len(figure.axes) == 3 * 8
    assert [axes.get_ylabel() for axes in figure.axes[::8]] == ["axial", "coronal", "sagittal"]
    low, high = np.percentile(volume, (1, 99))
    gray = np.clip((volume - low) / (high - low), 0, 1)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), gray[::-1, ::-1, 4].T)
    np.testing.assert_allclose(figure.axes[8].images[0].get_array(), gray[::-1, 3, ::-1].T)
    np.testing.assert_allclose(figure.axes[16].images[0].get_array(), gray[2, ::-1, ::-1].T)
    assert figure.axes[8].get_aspect() == pytest.approx(2.0)
    assert {text.get_text() for text in figure.axes[0].texts} == {"R", "L", "A", "P"}


def test_overview_names_shapes_that_do_not_fit(shifted: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"moving \(24, 31\) and fixed \(24, 32\)"):
        registration_overview(**(shifted | {"moving": np.zeros((24, 31))}))
    with pytest.raises(ValueError, match=r"displacement_px must be \(2, 24, 32\), got \(24, 32, 2\)"):
        registration_overview(**(shifted | {"displacement_px": np.zeros((24, 32, 2))}))
    with pytest.raises(ValueError, match=r"fixed_label \(3, 3\)"):
        registration_overview(**shifted, fixed_label=np.zeros((3, 3), dtype=int))


def test_curves_have_one_panel_per_key_and_one_line_per_name() -> None:
    records: list[dict[str, Any]] = [
        {"loop": "fit", "name": "train", "step": 2, "loss": 0.5},
        {"loop": "fit", "name": "train", "step": 1, "loss": 1.0},
        {"loop": "fit", "name": "train", "step": 3, "loss": float("nan")},
        {"loop": "fit", "name": "validation", "step": 2, "loss": 0.7, "dice": 0.6},
        {"note": "no step"},
    ]
    figure = curves(records, ["loss", "dice", "absent"], titles={"loss": "loss (px²)"})
    assert [axes.get_title() for axes in figure.axes] == ["loss (px²)", "dice"]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"fit train", "fit validation"}
    np.testing.assert_array_equal(lines["fit train"].get_xydata(), [[1, 1.0], [2, 0.5]])
    same = figure.axes[1].lines[0]
    assert (same.get_label(), same.get_color()) == ("fit validation", lines["fit validation"].get_color())
    with pytest.raises(ValueError, match="no record holds a number under any of dice together with 'epoch'"):
        curves(records, ["dice"], x="epoch")


def test_feature_panel_has_one_symmetric_scale() -> None:
    features = np.linspace(-1.0, 3.0, 8 * 6 * 5).reshape(8, 6, 5)
    figure = feature_panel(features, limit=2.0)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [f"feature {k}" for k in range(1, 9)]
    assert {axes.images[0].get_clim() for axes in panels} == {(-2.0, 2.0)}
    np.testing.assert_array_equal(panels[3].images[0].get_array(), features[3])
    low, high = next(axes for axes in feature_panel(features).axes if axes.images).images[0].get_clim()
    assert low == -high == pytest.approx(-np.percentile(np.abs(features), 99))
    assert sum(bool(axes.images) for axes in feature_panel(np.zeros((3, 4, 5, 6))).axes) == 3
    with pytest.raises(ValueError, match=r"\(6, 5\)"):
        feature_panel(features[0])


def test_png_is_a_png_and_the_same_every_time(shifted: dict[str, Any]) -> None:
    first, second = (to_png(registration_overview(**shifted), dpi=50) for _ in range(2))
    assert first == second
    image = Image.open(io.BytesIO(first))
    image.load()
    assert image.format == "PNG"
    assert image.size[0] == pytest.approx(3 * 2.6 * 50, abs=2)


def test_importing_figures_is_cheap() -> None:
    code = "import sys, medray.figures.drawing; sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
