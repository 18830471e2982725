"""Trees of findings: how they are read, closed upwards, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medray.data.case import Case
from medray.data.phantoms.chest import SIGNS, TAXONOMY
from medray.errors import UserError
from medray.systems.classification.taxonomy import (
    flat_taxonomy,
    label_problems,
    labels_of,
    read_taxonomy,
    require_columns,
    taxonomy_of,
)

TREE = {"nodule": "lung", "lung": "any", "any": None, "fluid": "any", "device": ""}


def _case(name: str, **attributes: str) -> Case:
    return Case(name, name, {}, attributes)


def test_parents_come_first_and_ancestors_are_a_nodes_own_line() -> None:
    tree = taxonomy_of(TREE)
    assert tree.names == ("any", "lung", "nodule", "fluid", "device")
    assert tree.parents == (-1, 0, 1, 0, -1)
    assert tree.leaf_names == ("nodule", "fluid", "device")
    np.testing.assert_array_equal(tree.ancestors.sum(axis=1), [1, 2, 3, 2, 1])
    assert tree.edges == ((1, 0), (2, 1), (3, 0))
    assert taxonomy_of(tree.to_mapping()) == tree
    assert flat_taxonomy(["a", "b"]).parents == (-1, -1)


def test_a_parent_is_there_with_any_child() -> None:
    closed = taxonomy_of(TREE).close(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=bool))
    expected = [[1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(closed, expected)


def test_yaml_and_json_and_the_papers_counts(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("any:\nlung: any\nnodule: lung\n")
    (tmp_path / "t.json").write_text(json.dumps({"any": None, "lung": "any", "nodule": "lung"}))
    assert read_taxonomy(tmp_path / "t.yaml") == read_taxonomy(tmp_path / "t.json")
    phantom = taxonomy_of(TAXONOMY)
    assert (len(phantom.names), len(phantom.leaf_names)) == (19, 14)
    assert set(phantom.leaf_names) == set(SIGNS)
    assert phantom.ancestors.sum(axis=1).max() == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: b\nb: c\nc: a\n", "has a cycle, a -> b -> c -> a"),
        ("a: a\n", "has a cycle, a -> a"),
        ("root:\nd: root\na: b\nb: a\n", "cycle, a -> b -> a"),
        ("root:\na: rot\n", "the parent 'rot' of 'a' is no finding itself"),
        ("", "is no taxonomy"),
        ("- a\n- b\n", "is no taxonomy"),
        ("a: [b\n", "not readable as YAML"),
        ("{}", "is empty"),
        ("a: {b: c}\n", "is no taxonomy"),
    ],
)
def test_files_that_are_no_tree(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_taxonomy(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no taxonomy at"):
        read_taxonomy(tmp_path / "none.yaml")


def test_columns_of_a_manifest() -> None:
    tree = taxonomy_of(TREE)
    good = [_case("a", nodule="1", fluid="0", device="0"), _case("b", nodule="no", fluid="yes", device="0.0", any="1")]
    require_columns(good, tree)
    assert label_problems(good, tree) == []
    np.testing.assert_array_equal(labels_of(good, tree), [[1, 1, 1, 0, 0], [1, 0, 0, 1, 0]])
    assert labels_of([], tree).shape == (0, 5)
    with pytest.raises(UserError, match=r"no column 'nodule', which the taxonomy names \(nor 2 others\).* grade"):
        require_columns([_case("a", grade="2")], tree)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nodule": "maybe"}, "its nodule is 'maybe' where 0 or 1 is expected"),
        ({"nodule": ""}, "its nodule is missing"),
        ({"lung": "0"}, "its lung is 0 while one of the findings below it is 1"),
        ({"nodule": "0", "fluid": "0", "any": "1"}, "its any is 1 while none of the findings below it is"),
    ],
)
def test_labels_that_contradict_the_tree_are_set_aside(changes: dict[str, str], reason: str) -> None:
    case = _case("a", **{"nodule": "1", "fluid": "0", "device": "0", **changes})
    (bad,) = label_problems([case], taxonomy_of(TREE))
    assert (bad.case, bad.reason) == ("a", reason)
