"""Pictures of meshes: which way they are turned, and that surfaces and clouds are drawn."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from medray.data.case import Mesh
from medray.data.phantoms.dental import cases
from medray.figures.drawing import to_png
from medray.figures.meshes import ColoredMesh, main_axes, mesh_panels


def test_an_arch_is_turned_with_its_crowns_up_and_its_front_away_whatever_its_pose() -> None:
    mesh = cases(n=1, spacing=1.6, pose=0, noise=0, missing=0)[0].mesh("mesh")
    turn = Rotation.random(rng=np.random.default_rng(3))
    straight = main_axes(mesh.vertices, faces=mesh.faces)
    assert_allclose(straight @ straight.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(straight) > 0
    assert straight[2, 2] > 0.9  # up in the phantom's own frame
    assert straight[1, 1] > 0.9  # and its front is at +y
    turned = main_axes(turn.apply(mesh.vertices), faces=mesh.faces)
    assert_allclose(turned @ turn.as_matrix(), straight, atol=1e-6)


def test_surfaces_and_clouds_are_drawn() -> None:
    mesh = cases(n=1, spacing=2.0)[0].mesh("mesh")
    colors = np.tile([0.2, 0.4, 0.6], (len(mesh.vertices), 1))
    cloud = Mesh(mesh.vertices, np.zeros((0, 3), dtype=np.int64))
    figure = mesh_panels([ColoredMesh("surface", mesh, colors), ColoredMesh("cloud", cloud, colors)])
    surface, points = figure.axes[0], figure.axes[2]
    assert len(surface.collections[0].get_paths()) == len(mesh.faces)
    assert len(points.collections[0].get_offsets()) == len(mesh.vertices)
    assert to_png(figure).startswith(b"\x89PNG")
