"""Histology phantoms: what is drawn is what is annotated, and the two labs differ by more than a linear map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medray.data.phantoms.histology import LABS, KidneyField, Stain, kidney_cases, kidney_image, nuclei_cases, render
from medray.data.points import as_points, centroids, point_outside
from medray.data.sources import open_source
from medray.errors import UserError
from medray.metrics.detection import assign, in_close_pairs


def test_one_dye_by_hand() -> None:
    stain = Stain(dyes=((1.0, 2.0, 0.0),), gamma=(2.0,), white=(1.0, 0.5, 1.0), blur_px=0.0, noise=0.0)
    shown = render(np.full((1, 2, 2), 0.5), stain, np.random.default_rng(0))
    # density 0.25 and 0.5: 255 e^-0.25, 127.5 e^-0.5, 255
    assert shown[:, 0, 0].tolist() == [199, 77, 255]


def test_the_same_seed_draws_the_same_and_more_tiles_change_none() -> None:
    first, again = nuclei_cases(n=1, seed=3, size=64)[0], nuclei_cases(n=4, seed=3, size=64)[0]
    np.testing.assert_array_equal(first.volume("image").array, again.volume("image").array)
    other = nuclei_cases(n=1, seed=4, size=64)[0]
    assert not np.array_equal(first.volume("image").array, other.volume("image").array)
    assert first.fields["image"].fingerprint() != other.fields["image"].fingerprint()


def test_clicks_lie_on_their_nuclei() -> None:
    case = nuclei_cases(n=1, size=200, jitter=0.5)[0]
    clicks = as_points(case.load("points"))
    image, instances = case.volume("image").array, case.volume("instances").array[0]
    assert point_outside(clicks, image.shape[1:]) == ""
    on_nuclei = instances[tuple(np.rint(clicks).astype(int).clip(0, 199).T)] > 0
    assert on_nuclei.mean() > 0.97
    found = assign(centroids(instances), clicks, limit=6.0)
    assert len(found.distance) > 0.9 * len(clicks)
    red = image[0].astype(float)
    assert red[instances > 0].mean() < red[instances == 0].mean() - 40  # hematoxylin takes the red


def test_many_nuclei_are_packed() -> None:
    close = [in_close_pairs(as_points(case.load("points")), 14.0).mean() for case in nuclei_cases(n=3)]
    assert 0.4 < np.mean(close) < 0.9


def test_stain_spread_leaves_the_nuclei_where_they_are() -> None:
    plain, stained = (nuclei_cases(n=1, size=64, stain_spread=s)[0] for s in (0.0, 0.5))
    np.testing.assert_array_equal(plain.load("points")["x"], stained.load("points")["x"])
    assert not np.array_equal(plain.volume("image").array, stained.volume("image").array)


def test_kidneys_of_two_labs_come_as_a_folder_per_lab_would() -> None:
    source = open_source("phantom:kidney?n=2&size=96")
    assert [case.id for case in source.cases] == ["A/slide000", "A/slide001", "B/slide000", "B/slide001"]
    assert [case.attributes["class"] for case in source.cases] == ["A", "A", "B", "B"]
    assert len({case.patient for case in source.cases}) == 4
    for case in source.cases:
        assert case.volume("image").array.shape == (3, 96, 96)
        assert set(np.unique(case.volume("label").array)) <= {0, 1, 2, 3}


def test_every_tissue_occurs() -> None:
    labels = np.stack([case.volume("label").array for case in kidney_cases(n=3)])
    shares = np.bincount(labels.ravel(), minlength=4) / labels.size
    assert (shares > 0.02).all()


def _misfit(gamma: tuple[float, float]) -> float:
    """What the best linear map from B's optical density leaves of A's, as a share of its deviation."""
    dyes = np.random.default_rng(0).uniform(0.05, 1.0, (2, 40, 40))
    clean = {"blur_px": 0.0, "noise": 0.0}
    labs = (replace(LABS["A"], **clean), replace(LABS["B"], gamma=gamma, **clean))
    ours, theirs = (-np.log(render(dyes, lab, np.random.default_rng(0)).reshape(3, -1) / 255) for lab in labs)
    design = np.vstack([theirs, np.ones(theirs.shape[1])]).T
    fitted, *_ = np.linalg.lstsq(design, ours.T, rcond=None)
    return float((ours.T - design @ fitted).std() / ours.std())


def test_no_linear_map_of_optical_density_takes_one_lab_to_the_other() -> None:
    assert _misfit((1.0, 1.0)) < 0.02  # rounding to 8 bits
    assert _misfit(LABS["B"].gamma) > 0.08  # type: ignore[arg-type]


def test_a_section_can_be_seen_through_either_lab() -> None:
    field = kidney_cases(n=1, size=64)[0].fields["image"]
    assert isinstance(field, KidneyField)
    np.testing.assert_array_equal(kidney_image(field.slide, "A"), field.load().array)
    assert abs(kidney_image(field.slide, "B").astype(float) - field.load().array).mean() > 20


@pytest.mark.parametrize("spec", ["nuclei?n=0", "nuclei?size=8", "nuclei?density=1", "kidney?drift=1", "kidney?n=0"])
def test_parameters_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UserError, match="phantom:"):
        open_source(f"phantom:{spec}")
