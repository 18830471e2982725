"""Tiles cover an image once, agree with MONAI where it applies, and leave no seams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor

from medray.nn.tiling import Tiling, read_reflected, reflect, tiled_bands


def _reader(image: NDArray[Any]) -> Callable[[int, int, int, int], NDArray[Any]]:
    def read(top: int, left: int, height: int, width: int) -> NDArray[Any]:
        assert top >= 0
        assert left >= 0
        assert top + height <= image.shape[0]
        assert left + width <= image.shape[1]
        return image[top : top + height, left : left + width]

    return read


def _through(image: NDArray[Any], tiling: Tiling, predict: Callable[[NDArray[Any]], Tensor]) -> Tensor:
    bands = list(tiled_bands(_reader(image), image.shape, predict, tiling))
    assert [top for top, _ in bands] == np.cumsum([0, *[band.shape[1] for _, band in bands]])[:-1].tolist()
    return torch.cat([band for _, band in bands], dim=1)


def _as_it_is(tile: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.moveaxis(tile, -1, 0).copy())


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(0, 6), st.integers(0, 5),
    st.sampled_from(("flat", "pyramid", "printed")),
)  # fmt: skip
def test_what_changes_nothing_gives_the_image_back(
    height: int, width: int, step: int, more: int, margin: int, blend: Any
) -> None:
    image = np.random.default_rng(0).normal(size=(height, width, 2)).astype(np.float32)
    tiling = Tiling(tile=step + more + 2 * margin, kept=step + more, step=step, blend=blend)
    torch.testing.assert_close(_through(image, tiling, _as_it_is), _as_it_is(image), atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(-60, 60), st.integers(1, 9))
def test_reflection_is_numpys(start: int, length: int) -> None:
    axis = np.arange(length)
    padded = np.pad(axis, 70, mode="reflect")
    assert reflect(np.arange(start, start + 5), length).tolist() == padded[start + 70 : start + 75].tolist()


def test_a_tile_beyond_the_border_is_mirrored() -> None:
    image = np.arange(12.0).reshape(3, 4, 1)
    tile = read_reflected(_reader(image), image.shape, -1, 2, 4)[..., 0]
    assert tile.tolist() == [[6, 7, 6, 5], [2, 3, 2, 1], [6, 7, 6, 5], [10, 11, 10, 9]]


def test_weights_by_hand() -> None:
    tiling = {"tile": 4, "kept": 4, "step": 2}
    pyramid = Tiling(**tiling, blend="pyramid").weights()
    assert pyramid.tolist() == [[0.5] * 4, [0.5, 1.5, 1.5, 0.5], [0.5, 1.5, 1.5, 0.5], [0.5] * 4]
    printed = Tiling(**tiling, blend="printed").weights()
    assert printed[1].tolist() == pytest.approx([0.501] * 4)  # least on the middle cross, most in the corners
    assert printed.argmax() == 0


def test_agrees_with_monai_where_windows_fit() -> None:
    """Windows of 32 every 16 px of a 96 px image, each with its own statistics as instance norm has them."""
    image = np.random.default_rng(1).normal(size=(96, 96, 3)).astype(np.float32)

    def normalized(tiles: Tensor) -> Tensor:
        return torch.nn.functional.instance_norm(tiles)

    tiling = Tiling(tile=32, kept=32, step=16, blend="pyramid")
    ours = _through(image, tiling, lambda tile: normalized(_as_it_is(tile)[None])[0])
    theirs = sliding_window_inference(
        _as_it_is(image)[None], 32, 4, normalized, overlap=0.5, roi_weight_map=tiling.weights()[None, None]
    )
    torch.testing.assert_close(ours, theirs[0], atol=1e-5, rtol=1e-4)


def test_a_margin_as_wide_as_the_network_sees_is_exact() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 5, padding=2)
    )
    image = np.random.default_rng(2).normal(size=(50, 70, 1)).astype(np.float32)

    @torch.no_grad()
    def predict(tile: NDArray[Any]) -> Tensor:
        return network(_as_it_is(tile)[None])[0]

    tiled = _through(image, Tiling(tile=24, kept=16, step=16), predict)
    whole = _through(image, Tiling(tile=88, kept=80, step=80), predict)
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=1e-6)
    naive = _through(image, Tiling(tile=16, kept=16, step=16), predict)
    assert (naive - whole).abs().max() > 1e-2


@pytest.mark.parametrize(("tile", "kept", "step"), [(8, 10, 4), (8, 5, 4), (8, 4, 5), (8, 4, 0)])
def test_a_tiling_that_cannot_work_is_refused(tile: int, kept: int, step: int) -> None:
    with pytest.raises(ValueError, match="step <= kept <= tile"):
        Tiling(tile=tile, kept=kept, step=step)
