"""Ends of drawn curves are found, with the way in; noise has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from envs.axon.centrelines import read_centrelines
from envs.axon.ends import find_ends, with_headings
from envs.axon.pictures import read_picture
from envs.axon.preparation import prepare
from envs.axon.starts import Starts

Array = NDArray[np.float64]


def _drawn(*curves: Array, noise: float = 0.05, shape: tuple[int, int] = (150, 160)) -> Array:
    """Curves (n, 2) of x and y as ridges 0.6 high and 1.5 px wide on 0.1."""
    rows, columns = np.indices(shape)
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)
    gap = cKDTree(np.concatenate(curves)).query(places)[0].reshape(shape)
    grain = np.random.default_rng(0).normal(0, noise, shape)
    return 0.1 + 0.6 * np.exp(-(gap**2) / (2 * 1.5**2)) + grain


def _wave(x: Array, y: float) -> Array:
    return np.stack([x, y + 12 * np.sin(x / 15)], axis=1)


def test_both_ends_of_a_curve_with_headings_into_it() -> None:
    curve = _wave(np.linspace(25, 130, 600), 70)
    starts = find_ends(_drawn(curve))
    assert len(starts) == 2
    for end, inner in ((curve[0], curve[45]), (curve[-1], curve[-46])):
        gap = np.hypot(*(starts.points - end).T)
        assert gap.min() < 4
        way = (inner - end) / np.hypot(*(inner - end))
        assert starts.headings[gap.argmin()] @ way > 0.9


def test_a_y_has_three_ends_and_a_ring_none() -> None:
    middle = np.array([80.0, 75.0])
    arms = [middle + np.linspace(0, 50, 200)[:, None] * np.array([np.cos(a), np.sin(a)]) for a in (0.3, 2.4, 4.5)]
    starts = find_ends(_drawn(*arms))
    gaps = cKDTree(starts.points).query([arm[-1] for arm in arms])[0]
    assert len(starts) == 3
    assert gaps.max() < 4
    angle = np.linspace(0, 2 * np.pi, 500)
    ring = middle + 40 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert len(find_ends(_drawn(ring))) == 0


def test_the_stronger_structure_comes_first_and_short_ones_do_not_count() -> None:
    strong, faint = (_wave(np.linspace(25, 130, 600), y) for y in (45, 105))
    image = _drawn(strong, noise=0.01) + 0.8 * _drawn(faint, noise=0.01)
    starts = find_ends(image)
    assert len(starts) == 4
    assert (starts.points[:2, 1] < 75).all()
    assert (starts.points[2:, 1] > 75).all()
    assert len(find_ends(image, min_length_px=150)) == 0


def test_a_missing_heading_points_along_the_structure() -> None:
    curve = _wave(np.linspace(25, 130, 600), 70)
    given = [[0.0, -1.0], [np.nan, np.nan], [np.nan, np.nan]]
    starts = with_headings(_drawn(curve), Starts(curve[[0, 0, -1]], np.array(given)))
    assert starts.headings[0].tolist() == given[0]
    for heading, end, inner in zip(starts.headings[1:], curve[[0, -1]], curve[[55, -56]], strict=True):
        assert heading @ (inner - end) / np.hypot(*(inner - end)) > 0.95
    assert np.hypot(*starts.headings.T) == pytest.approx(1)


def test_noise_has_no_ends() -> None:
    starts = find_ends(np.random.default_rng(0).normal(0.15, 0.08, (150, 160)))
    assert starts.points.shape == starts.headings.shape == (0, 2)


@pytest.mark.real_data
def test_ends_of_vessels(real_data: Path) -> None:
    """Measured over all 16 photographs: 40 % of the ends within 10 px, nine of ten headings into the vessel."""
    folder = real_data / "retina_drive"
    if not folder.is_dir():
        pytest.skip(f"{real_data} has no retina_drive")
    found, total, right = 0, 0, 0
    for name in ("drive_01", "drive_06"):
        image = prepare(read_picture(folder / "images" / f"{name}.png"), intensity="local")
        starts = find_ends(image)
        assert len(starts) < 200
        for branch in read_centrelines(folder / "centrelines" / f"{name}.json").branches:
            for one in (branch, branch.reversed()):
                if one.kind.startswith("endpoint"):
                    gap = np.hypot(*(starts.points - one.start).T)
                    total += 1
                    found += bool(gap.min() <= 10)
                    right += bool(gap.min() <= 10 and starts.headings[gap.argmin()] @ one.heading > 0.7)
    assert found >= 0.25 * total
    assert right >= 0.7 * found
