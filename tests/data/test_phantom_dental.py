"""The dental phantom: what its anatomy promises, and that it is the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from medray.data.phantoms.dental import FDI, cases
from medray.data.sources import open_source
from medray.errors import UserError


def test_it_is_seeded_and_patients_do_not_depend_on_how_many_there_are() -> None:
    first, second = cases(n=2, spacing=1.6)[1], cases(n=3, spacing=1.6)[1]
    np.testing.assert_array_equal(first.mesh("mesh").vertices, second.mesh("mesh").vertices)
    assert first.fields["mesh"].fingerprint() == second.fields["mesh"].fingerprint()
    other = cases(n=2, spacing=1.6, seed=1)[1]
    assert other.fields["mesh"].fingerprint() != first.fields["mesh"].fingerprint()


@pytest.mark.parametrize("jaw", ["upper", "lower"])
def test_teeth_follow_each_other_along_the_arch(jaw: str) -> None:
    (case,) = cases(n=1, spacing=1.2, jaw=jaw, missing=0, pose=0, noise=0)  # type: ignore[arg-type]
    mesh, label = case.mesh("mesh"), case.load("label")
    order = FDI[jaw]  # type: ignore[index]
    assert set(np.unique(label)) == {0, *order}
    across = np.array([mesh.vertices[label == number, 0].mean() for number in order])
    # crowns up: the patient's right is at -x in an upper jaw, at +x in a lower one
    assert (np.diff(across) > 0).all() if jaw == "upper" else (np.diff(across) < 0).all()


def test_the_surface_faces_up_and_crowns_stand_out() -> None:
    (case,) = cases(n=1, spacing=1.2, pose=0, noise=0, holes=0)
    mesh, label = case.mesh("mesh"), case.load("label")
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    assert np.cross(b - a, c - a)[:, 2].sum() > 0
    assert mesh.vertices[label > 0, 2].mean() > mesh.vertices[label == 0, 2].max() - 2.0
    assert len(label) == len(mesh.vertices)
    assert np.unique(mesh.faces).tolist() == list(range(len(mesh.vertices)))


def test_missing_teeth_are_third_molars_more_often_than_others() -> None:
    labels = [set(np.unique(case.load("label"))) for case in cases(n=40, spacing=2.0, missing=4)]
    gone = [16 - (len(values) - 1) for values in labels]
    assert min(gone) == 0
    assert max(gone) == 4
    wisdom = sum(number not in values for values in labels for number in (18, 28))
    assert wisdom / 2 > (sum(gone) - wisdom) / 14


def test_noise_and_pose_leave_the_anatomy_as_it_is() -> None:
    clean, noisy = (cases(n=1, spacing=1.6, noise=noise, pose=pose)[0] for noise, pose in ((0, 0), (0.05, 180)))
    np.testing.assert_array_equal(clean.load("label"), noisy.load("label"))
    lengths = [np.linalg.norm(c.mesh("mesh").vertices[0] - c.mesh("mesh").vertices[-1]) for c in (clean, noisy)]
    assert abs(lengths[0] - lengths[1]) < 0.5


def test_jaws_of_a_patient_share_it() -> None:
    both = cases(n=2, spacing=2.0, jaw="both")
    assert [case.id for case in both][:2] == ["patient000/upper", "patient000/lower"]
    assert len({case.patient for case in both}) == 2


def test_parameters_out_of_range() -> None:
    for spec in ("spacing=5", "missing=9", "n=0", "pose=200", "jaw=left"):
        with pytest.raises(UserError, match=spec.split("=")[0]):
            open_source(f"phantom:dental?{spec}")
