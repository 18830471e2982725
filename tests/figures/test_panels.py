"""Rows of images: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest

from medray.figures.drawing import to_png
from medray.figures.panels import Panel, panel_rows


def test_a_slice_is_turned_to_how_radiologists_look_at_it() -> None:
    image = np.zeros((4, 6))
    image[3, 5] = 1.0  # the patient's right and front
    figure = panel_rows([[Panel(image, "a", (0, 1)), Panel(image, "b", (0, 1), outline=image > 0)]], names=["case"])
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (6, 4)
    assert shown[0, 0] == 1.0  # left on the page, at the top
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert not figure.axes[0].collections
    assert figure.axes[1].collections


def test_pictures_stay_as_they_are_and_equal_titles_are_written_once() -> None:
    image = np.arange(6.0).reshape(2, 3)
    figure = panel_rows([[Panel(image, "same")], [Panel(image, "same")]], picture=True, title="all")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)
    assert [axes.get_title() for axes in figure.axes] == ["same", ""]
    assert to_png(figure).startswith(b"\x89PNG")


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        panel_rows([[Panel(np.zeros((2, 2)))], [Panel(np.zeros((2, 2)))] * 2])
