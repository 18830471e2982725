"""The chest phantom: labels obey the tree, signs show where they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medray.data.phantoms import chest
from medray.data.sources import open_source
from medray.errors import UserError


def test_labels_obey_the_tree_and_no_path_ends_early() -> None:
    parents = {child: parent for child, parent in chest.TAXONOMY.items() if parent}
    several = 0
    for index in range(400):
        found = chest.Chest(seed=0, index=index, prevalence=0.5, size=64, noise=0.0).findings()
        assert all(parents[name] in found for name in found if name in parents)
        inner = [name for name in found if name in parents.values()]
        assert all(any(parents.get(name) == node for name in found) for node in inner)
        several += len(found & set(chest.SIGNS)) > 1
    assert several > 20


def test_prevalence_and_attributes() -> None:
    cases = chest.cases(n=1500)
    sick = [any(case.attributes[sign] == "1" for sign in chest.SIGNS) for case in cases]
    assert np.mean(sick) == pytest.approx(0.35, abs=0.04)
    shares = [np.mean([case.attributes[sign] == "1" for case in cases]) for sign in chest.SIGNS]
    assert 0.005 < min(shares) < max(shares) < 0.13
    assert len(chest.SIGNS) == 14


@pytest.mark.parametrize("sign", chest.SIGNS)
def test_a_sign_changes_a_part_of_the_image(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = []
    for index in range(8):
        one = chest.Chest(seed=0, index=index, prevalence=1.0, size=96, noise=0.0)
        images = []
        for found in (frozenset(), frozenset([sign])):
            monkeypatch.setattr(chest.Chest, "findings", lambda self, found=found: found)
            images.append(chest.ChestField(one).load().array[0].astype(int))
        changed.append((np.abs(images[1] - images[0]) > 10).mean())
    assert 0 < np.mean(changed) < 0.4  # a granuloma is a few pixels, emphysema both lungs


def test_a_radiograph_does_not_depend_on_how_many_there_are() -> None:
    first, second = chest.cases(n=1, seed=4)[0], chest.cases(n=3, seed=4)[0]
    np.testing.assert_array_equal(first.volume("image").array, second.volume("image").array)
    assert first.volume("image").array.shape == (1, 64, 64)
    other = replace(first.fields["image"].chest, seed=5)  # type: ignore[attr-defined]
    assert (chest.ChestField(other).load().array != first.volume("image").array).any()


@pytest.mark.parametrize(("query", "sentence"), [("size=8", "at least 32"), ("prevalence=1.5", r"\[0, 1\]")])
def test_parameters_out_of_range(query: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_source(f"phantom:chest?{query}")
