"""SWC, centrelines, start points and traces: what is read, what is written, and each sentence for a bad file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from envs.axon.centrelines import Branch, Centrelines, parse_centrelines, point_outside, read_centrelines
from envs.axon.starts import Starts, read_starts, start_outside
from envs.axon.swc import read_swc, swc_text
from envs.axon.traces import Trace, traces_as_json, traces_as_swc

FORKED = """# a Y and a lone root; children may come before their parents
2 2 11 5 3 1 1
3 2 14 9 3 1 2

4 2 14 1 3 1 2   # a comment behind the numbers
5 2 16 0 3 1 4 88 another program's columns
1 2 10 5 3.5 1 -1
9 1 50 60 0 2 -1
"""


def _file(tmp_path: Path, text: str, name: str = "a.swc") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_branches_run_between_roots_forks_and_tips(tmp_path: Path) -> None:
    swc = read_swc(_file(tmp_path, FORKED))
    assert swc.ids[swc.roots].tolist() == [1, 9]
    assert [line.tolist() for line in swc.branches()] == [
        [[10, 5], [11, 5]],
        [[11, 5], [14, 9]],
        [[11, 5], [14, 1], [16, 0]],
    ]
    assert np.isnan(swc.entropy).all()


def test_projection_drops_what_falls_onto_one_place(tmp_path: Path) -> None:
    text = "1 2 10 5 0 1 -1\n2 2 10 5 1 1 1\n3 2 12 5 2 1 2\n4 2 30 30 0 1 -1\n5 2 30 30 9 1 4\n"
    assert [line.tolist() for line in read_swc(_file(tmp_path, text)).branches()] == [[[10, 5], [12, 5]]]


def test_every_node_is_on_a_branch_and_every_edge_on_one_only(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = [
        f"{i} 2 {i} {random.uniform():.3f} 0 1 {random.integers(0, i) if i and i % 40 else -1}" for i in range(400)
    ]
    swc = read_swc(_file(tmp_path, "\n".join(random.permutation(lines))))
    edges = [(a, b) for path in swc.paths() for a, b in zip(path[:-1].tolist(), path[1:].tolist(), strict=True)]
    assert sorted(edges) == sorted((int(p), row) for row, p in enumerate(swc.parents) if p >= 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# nothing\n", r"a\.swc holds no nodes"),
        ("1 2 0 0 0 1 -1\n2 2 1 0 0 1\n", r"a\.swc, line 2: '2 2 1 0 0 1' where seven numbers are expected"),
        ("1 2 0 x 0 1 -1\n", r"line 1: .* seven numbers"),
        ("1 2 0 nan 0 1 -1\n", r"line 1: .* seven numbers"),
        ("1.5 2 0 0 0 1 -1\n", r"line 1: id, type and parent are whole numbers"),
        ("1 2 0 0 0 1 -1\n# c\n1 2 1 0 0 1 -1\n", r"line 3: the node 1 was given in line 1 already"),
        ("1 2 0 0 0 1 -1\n2 2 1 0 0 1 7\n", r"line 2: the parent 7 is no node of this file"),
        ("1 2 0 0 0 1 -1\n2 2 1 0 0 1 3\n3 2 1 0 0 1 2\n", r"line 2: node 2 is its own ancestor"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_swc(_file(tmp_path, text))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    lines = [np.array([[1.25, 2.5], [3.0, 4.0], [5.0, 4.5]]), np.array([[7.0, 8.0], [9.0, 9.0]])]
    entropy = [np.array([-3.5, -2.25, np.nan]), np.array([-1.0, np.nan])]
    text = swc_text(lines, entropy, comments=["made by hand"])
    assert all(len(line.split()) == 7 for line in text.splitlines() if not line.startswith("#"))  # plain SWC
    swc = read_swc(_file(tmp_path, text))
    assert [line.tolist() for line in swc.branches()] == [line.tolist() for line in lines]
    np.testing.assert_array_equal(swc.entropy, np.concatenate(entropy))
    assert swc.parents.tolist() == [-1, 0, 1, -1, 3]


def test_centrelines_from_json(tmp_path: Path) -> None:
    content = {
        "shape": [20, 30],
        "polarity": "dark",
        "branches": [{"type": "junction-endpoint", "points": [[1, 2], [1, 2], [4, 6], [4, 16]]}],
    }
    found = read_centrelines(_file(tmp_path, json.dumps(content), "a.json"))
    assert (found.shape, found.polarity, found.branches[0].kind) == ((20, 30), "dark", "junction-endpoint")
    branch = found.branches[0]
    assert branch.points.tolist() == [[1, 2], [4, 6], [4, 16]]
    assert branch.length_px == 15.0
    assert branch.heading.tolist() == pytest.approx([0.6, 0.8])  # the first 5 px are the first segment
    assert branch.reversed().kind == "endpoint-junction"
    assert branch.reversed().heading.tolist() == [0.0, -1.0]
    bare = parse_centrelines([[[0, 0], [3, 4]]], "here")
    assert (bare.shape, bare.branches[0].length_px) == (None, 5.0)


def test_the_heading_of_a_short_branch_and_of_a_loop() -> None:
    assert Branch(np.array([[0.0, 0.0], [0.0, 2.0]])).heading.tolist() == [0.0, 1.0]
    loop = np.array([[0.0, 0.0], [1.25, 0.0], [1.25, 1.25], [0.0, 1.25], [0.0, 0.0], [0.0, -9.0]])
    assert Branch(loop).heading.tolist() == [1.0, 0.0]  # after 5 px it is back where it started


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", r"a\.json is not readable JSON"),
        ("{}", r"a\.json has no list of branches"),
        ('{"branches": [{"points": [[1, 2], [3, 4]]}, {"points": [[1, 2, 3]]}]}', r"branch 1: points are a list of"),
        ('{"branches": [{"points": [[1, 2], [1, NaN]]}]}', r"branch 0: points are a list"),
        ('{"branches": [{"points": [[1, 2], [1, 2]]}]}', r"branch 0 has fewer than two different points"),
        ('{"branches": [], "polarity": "grey"}', r"polarity is 'bright' or 'dark', got 'grey'"),
        ('{"branches": [], "shape": 7}', r"shape is \[rows, columns\], got 7"),
    ],
)
def test_bad_centrelines(tmp_path: Path, content: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_centrelines(_file(tmp_path, content, "a.json"))


def test_centrelines_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.txt is no file of centrelines; they are read from \.swc and \.json"):
        read_centrelines(_file(tmp_path, "", "a.txt"))


def test_a_point_outside_is_named() -> None:
    lines = Centrelines((Branch(np.array([[0.0, 0.0], [29.5, 19.5]])), Branch(np.array([[5.0, 5.0], [5, 19.6]]))))
    assert point_outside(Centrelines(lines.branches[:1]), (20, 30)) == ""  # the last pixel reaches to 29.5
    assert "branch 1, point 1 at x=5, y=19.6 px is outside its image of 30 x 20 px" in point_outside(lines, (20, 30))
    other = Centrelines(lines.branches, shape=(30, 20), source="a.json")
    assert point_outside(other, (20, 30)).startswith("a.json was made for an image of 20 x 30 px, this one has 30 x 20")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y,dx,dy\n10,20,3,4\n1.5,2,,\n"),
        ("a.csv", "\ufeffDY,DX,Y,X,note\n4,3,20,10,a\n0,0,2,1.5,b\n"),
        ("a.json", "[[10, 20, 3, 4], [1.5, 2]]"),
        ("a.json", '{"starts": [{"x": 10, "y": 20, "dx": 6, "dy": 8}, {"x": 1.5, "y": 2}]}'),
        ("a.swc", "1 2 10 20 0 1 -1\n2 2 13 24 0 1 1\n3 2 99 99 0 1 2\n4 1 1.5 2 0 1 -1\n"),
    ],
)
def test_starts_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    starts = read_starts(_file(tmp_path, text, name))
    assert starts.points.tolist() == [[10, 20], [1.5, 2]]
    np.testing.assert_allclose(starts.headings, [[0.6, 0.8], [np.nan, np.nan]], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "a,b\n1,2\n", r"the columns x and y .*found a, b"),
        ("a.csv", "x,y\n", r"a\.csv holds no start points"),
        ("a.csv", "x,y\n1,2\n1,z\n", r"start point 2: x and y are finite numbers"),
        ("a.csv", "x,y,dx,dy\n1,2,1,\n", r"start point 1 has one of dx and dy"),
        ("a.json", "[1, 2]", r"start point 1: x and y"),
        ("a.json", "7", r"start points are a list"),
        ("a.json", "[", r"not readable JSON"),
        ("a.txt", "", r"no file of start points; they are read from \.csv \.json \.swc"),
    ],
)
def test_bad_starts(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_starts(_file(tmp_path, text, name))


def test_a_start_outside_is_named() -> None:
    starts = Starts(np.array([[5.0, 5.0], [30.0, 5.0]]), np.full((2, 2), np.nan))
    assert start_outside(starts, (20, 31)) == ""
    assert start_outside(starts, (20, 30)).startswith(
        "start point 2 at x=30, y=5 px is outside the image of 30 x 20 px"
    )


def test_traces_in_both_formats(tmp_path: Path) -> None:
    trace = Trace(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([-2.0, np.nan]), "steps")
    content = json.loads(traces_as_json([trace], image="a", pixel_size=(2.0, 0.5), unit="um"))
    assert content["unit"] == "um"
    entry = content["traces"][0]
    assert (entry["points"], entry["entropy"], entry["stopped"]) == ([[0, 0], [3, 4]], [-2.0, None], "steps")
    assert (entry["length_px"], entry["length"]) == (5.0, pytest.approx(np.hypot(6, 2), abs=1e-6))
    text = traces_as_swc([trace], image="a")
    assert "# trace 0: stopped by steps" in text
    assert read_swc(_file(tmp_path, text)).branches()[0].tolist() == [[0, 0], [3, 4]]
