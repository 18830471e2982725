"""Meshes from files: order of vertices, merged STL corners, labels, folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medray.data.case import Mesh
from medray.data.check import check_cases
from medray.data.fields import FileRef
from medray.data.formats.mesh import per_vertex, write_ply
from medray.data.mesh_folders import jaw_of
from medray.data.packing import pack
from medray.data.readers import read_mesh, read_vertex_label
from medray.data.sources import open_source
from medray.errors import UserError

trimesh = pytest.importorskip("trimesh")

# A square of two triangles: vertex 2 and 0 are shared.
SQUARE = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0.5]], dtype=float)
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def save(path: Path, vertices: np.ndarray = SQUARE, faces: np.ndarray = FACES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(vertices, faces, process=False).export(path)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
def test_vertices_keep_the_order_of_the_file(tmp_path: Path, suffix: str) -> None:
    mesh = read_mesh(save(tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(mesh.vertices, SQUARE, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, FACES)
    assert mesh.corners is None


def test_an_stls_corners_are_merged_in_order_of_first_occurrence(tmp_path: Path) -> None:
    mesh = read_mesh(save(tmp_path / "a.stl"))
    np.testing.assert_allclose(mesh.vertices, SQUARE)
    np.testing.assert_array_equal(mesh.faces, FACES)
    np.testing.assert_array_equal(mesh.corners, [0, 1, 2, 0, 2, 3])


def test_text_stl(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    path.write_text(trimesh.Trimesh(SQUARE, FACES, process=False).export(file_type="stl_ascii"))
    np.testing.assert_allclose(read_mesh(path).vertices, SQUARE)


def test_point_clouds(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.xyz", SQUARE)
    np.save(tmp_path / "b.npy", SQUARE)
    np.savez(tmp_path / "c.npz", points=SQUARE, labels=[0, 11, 11, 12])
    for name in ("a.xyz", "b.npy", "c.npz"):
        mesh = read_mesh(tmp_path / name)
        np.testing.assert_allclose(mesh.vertices, SQUARE)
        assert mesh.faces.shape == (0, 3)
    np.testing.assert_array_equal(read_vertex_label(tmp_path / "c.npz"), [0, 11, 11, 12])


def test_labels_of_vertices_facets_and_corners() -> None:
    mesh = Mesh(SQUARE, FACES, corners=FACES.reshape(-1))
    np.testing.assert_array_equal(per_vertex(mesh, np.array([0, 11, 12, 13])), [0, 11, 12, 13])
    # facets 11 and 12: vertices 0 and 2 touch both, and the smaller number wins
    np.testing.assert_array_equal(per_vertex(mesh, np.array([11, 12])), [11, 11, 11, 12])
    np.testing.assert_array_equal(per_vertex(mesh, np.array([12, 0, 12, 12, 11, 0])), [12, 0, 11, 0])
    with pytest.raises(UserError, match=r"4 vertices but 5 labels.*2 faces.*6 corners"):
        per_vertex(mesh, np.zeros(5, dtype=int))


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.npy", "a.npz", "a.csv", "list.json"])
def test_labels_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    labels, path = [0, 48, 47, 47], tmp_path / name
    if name == "list.json":
        path.write_text(json.dumps(labels))
    elif name.endswith(".json"):
        path.write_text(json.dumps({"jaw": "lower", "labels": labels}))
    elif name.endswith(".txt"):
        path.write_text("\n".join(map(str, labels)))
    elif name.endswith(".npy"):
        np.save(path, np.array(labels))
    elif name.endswith(".npz"):
        np.savez(path, labels=labels, other=[1])
    else:
        path.write_text("vertex,label\n" + "\n".join(f"{i},{n}" for i, n in enumerate(labels)))
    found = read_vertex_label(path)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.int64


def test_a_written_ply_gives_its_labels_back(tmp_path: Path) -> None:
    mesh, numbers = Mesh(SQUARE, FACES), np.array([0, 11, 12, 48], dtype=np.int32)
    path = tmp_path / "a.ply"
    path.write_bytes(write_ply(mesh, np.full((4, 3), 7, np.uint8), {"label": numbers}))
    np.testing.assert_array_equal(read_vertex_label(path), numbers)
    np.testing.assert_allclose(read_mesh(path).vertices, SQUARE)
    assert trimesh.load(path, process=False).visual.vertex_colors[0, :3].tolist() == [7, 7, 7]


def test_what_is_no_mesh_is_said_in_one_sentence(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.stl").read_bytes()
    (tmp_path / "short.stl").write_bytes(whole[:120])
    (tmp_path / "short.ply").write_bytes(save(tmp_path / "whole.ply").read_bytes()[:-4])
    (tmp_path / "points.ply").write_bytes(trimesh.PointCloud(SQUARE).export(file_type="ply"))
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    (tmp_path / "none.stl").write_bytes(whole[:80] + bytes(4))
    (tmp_path / "empty.stl").write_bytes(b"")
    (tmp_path / "text.stl").write_text("not a mesh at all, but longer than the header of a binary STL " * 3)
    save(tmp_path / "nan.ply", np.where(SQUARE == 0.5, np.nan, SQUARE))
    np.save(tmp_path / "flat.npy", np.zeros((5, 2)))
    (tmp_path / "words.xyz").write_text("a b c\n")
    sentences = {
        "short.stl": "truncated: 120 bytes where its header announces 2 facets",
        "short.ply": "truncated, damaged or not PLY",
        "points.ply": r"mesh with no faces \(4 vertices\)",
        "points.obj": r"mesh with no faces \(3 vertices\)",
        "none.stl": "mesh with no faces",
        "empty.stl": "empty",
        "text.stl": "text.stl",
        "nan.ply": "1 of 4 vertices have coordinates that are NaN",
        "flat.npy": r"shape \(5, 2\)",
        "words.xyz": "not a table of points",
    }
    for name, sentence in sentences.items():
        with pytest.raises(UserError, match=sentence) as told:
            read_mesh(tmp_path / name)
        assert name in str(told.value)
        assert "\n" not in str(told.value)


def test_labels_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"jaw": "upper"}')
    (tmp_path / "b.txt").write_text("1.5\n2\n")
    (tmp_path / "c.txt").write_text("molar\n")
    for name, sentence in {"a.json": "no labels or label", "b.txt": "not whole", "c.txt": "can be read"}.items():
        with pytest.raises(UserError, match=sentence):
            read_vertex_label(tmp_path / name)


def test_jaws_of_one_patient_are_found_and_kept_together(tmp_path: Path) -> None:
    for jaw in ("upper", "lower"):
        save(tmp_path / jaw / "p07" / f"p07_{jaw}.obj")
        (tmp_path / jaw / "p07" / f"p07_{jaw}.json").write_text(json.dumps({"labels": [0, 1, 2, 3]}))
    source = open_source(str(tmp_path))
    assert [case.id for case in source.cases] == ["lower/p07/p07_lower", "upper/p07/p07_upper"]
    assert {case.patient for case in source.cases} == {"p07"}
    assert [case.attributes["jaw"] for case in source.cases] == ["lower", "upper"]
    np.testing.assert_array_equal(source.cases[0].load("label"), [0, 1, 2, 3])
    assert source.cases[0].mesh("mesh").vertices.shape == (4, 3)


def test_a_patients_folder_and_folders_of_labels(tmp_path: Path) -> None:
    save(tmp_path / "one" / "p1" / "upper.stl")
    np.savetxt(tmp_path / "one" / "p1" / "upper.txt", [0, 1, 2, 3], fmt="%d")
    save(tmp_path / "two" / "meshes" / "a.ply")
    (tmp_path / "two" / "labels").mkdir()
    np.savez(tmp_path / "two" / "labels" / "a.npz", labels=[0, 1, 2, 3])
    np.savez(tmp_path / "two" / "labels" / "b.npz", labels=[0, 1, 2, 3])
    first, second = open_source(str(tmp_path / "one")), open_source(str(tmp_path / "two"))
    assert [(case.id, case.patient, sorted(case.fields)) for case in first.cases] == [
        ("p1/upper", "p1", ["label", "mesh"])
    ]
    assert [(case.id, sorted(case.fields)) for case in second.cases] == [("a", ["label", "mesh"])]
    assert [bad.case for bad in second.bad] == ["b"]
    assert "no mesh of the same name" in second.bad[0].reason


def test_npz_clouds_are_meshes_where_the_system_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vertices=SQUARE, labels=[0, 1, 2, 3])
    (case,) = open_source(str(tmp_path), fields={"mesh": "mesh", "label": "vertex_label"}).cases
    assert case.mesh("mesh").vertices.shape == (4, 3)
    np.testing.assert_array_equal(case.load("label"), [0, 1, 2, 3])


def test_a_manifest_of_meshes(tmp_path: Path) -> None:
    save(tmp_path / "a.stl")
    np.save(tmp_path / "a.npy", np.array([0, 1, 2, 3]))
    (tmp_path / "index.csv").write_text("case,patient,mesh,label\nx,p,a.stl,a.npy\n")
    (case,) = open_source(str(tmp_path / "index.csv"), fields={"label": "vertex_label"}).cases
    assert isinstance(case.fields["mesh"], FileRef)
    assert case.fields["mesh"].kind == "mesh"
    np.testing.assert_array_equal(case.load("label"), [0, 1, 2, 3])


def test_the_checks_count_labels_and_quarantine_meshes_without_faces(tmp_path: Path) -> None:
    for name, labels in (("a", 4), ("b", 3)):
        save(tmp_path / f"{name}.ply", SQUARE + labels)
        np.save(tmp_path / f"{name}.npy", np.zeros(labels, dtype=int))
    (tmp_path / "c.obj").write_text("v 0 0 0\n")
    np.save(tmp_path / "c.npy", np.zeros(1, dtype=int))
    cases = open_source(str(tmp_path)).cases
    good, bad = check_cases(cases, required=("mesh", "label"), policy="quarantine")
    assert [case.id for case in good] == ["a"]
    assert "4 vertices but 3 labels" in bad[0].reason
    assert "mesh with no faces" in bad[1].reason


def test_packed_meshes_come_back(tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.stl")
    np.save(tmp_path / "scans" / "a.npy", np.array([0, 1, 2, 3]))
    source = open_source(str(tmp_path / "scans"))
    pack(source, str(tmp_path / "packed"))
    (case,) = open_source(str(tmp_path / "packed")).cases
    first, again = source.cases[0].mesh("mesh"), case.mesh("mesh")
    for name in ("vertices", "faces", "corners"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    np.testing.assert_array_equal(case.load("label"), [0, 1, 2, 3])


def test_jaw_words() -> None:
    assert [jaw_of(name) for name in ("p1_Upper", "x/mandible-2", "flower", "scan")] == ["upper", "lower", "", ""]
