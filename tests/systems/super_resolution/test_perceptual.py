import logging

import pytest
import torch
from safetensors.torch import save_file

from medray.data.phantoms import thorax_ct
from medray.errors import UserError
from medray.metrics.super_resolution import perceptual_distance
from medray.systems.super_resolution import perceptual
from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blur_kernels import gaussian_kernel
from medray.systems.super_resolution.filtering import filter_each
from medray.systems.super_resolution.high_res import HighResReader
from medray.systems.super_resolution.perceptual import (
    RELEASED_WEIGHTS,
    block_weights,
    open_features,
    small_network,
    vgg19,
)

# torchvision's VGG-19: index in `features` of each convolution, with its input and output channels
VGG19 = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512), 30: (512, 512),
    32: (512, 512), 34: (512, 512),
}  # fmt: skip


@pytest.fixture(scope="module")
def published():
    """A state dict with the names and shapes of torchvision's, the classifier's made small."""
    tensors = {}
    for index, (before, after) in VGG19.items():
        tensors[f"features.{index}.weight"] = torch.full((after, before, 3, 3), 1e-3)
        tensors[f"features.{index}.bias"] = torch.full((after,), float(index))
    return tensors | {"classifier.0.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_state_dict_loads_from_either_kind_of_file(tmp_path, published, suffix):
    path = tmp_path / f"vgg19{suffix}"
    (torch.save if suffix == ".pth" else save_file)(published, path)
    features = open_features(BlimsrConfig(vgg19_weights=str(path)))
    assert features.name == "vgg19"
    assert features.taken == [2, 7, 16, 25, 34]
    assert float(features.features[34].bias[0]) == 34.0
    assert [one.shape[1:] for one in features(torch.rand(1, 1, 16, 16))] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("features.34.weight"), "features.34.weight does not fit"),
        (lambda tensors: tensors.update({"features.0.weight": torch.zeros(64, 1, 3, 3)}), "features.0.weight does"),
        (lambda tensors: tensors.update({"features.36.weight": torch.zeros(1)}), "features.36.weight does not fit"),
    ],
)
def test_other_networks_are_refused(tmp_path, published, change, sentence):
    tensors = dict(published)
    change(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"does not hold torchvision's VGG-19: {sentence}"):
        open_features(BlimsrConfig(vgg19_weights=str(tmp_path / "other.safetensors")))


def test_a_missing_and_an_unreadable_file_are_told(tmp_path):
    with pytest.raises(UserError, match="there are no weights at"):
        open_features(BlimsrConfig(vgg19_weights=str(tmp_path / "none.pth")))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match="cannot read the weights in"):
        open_features(BlimsrConfig(vgg19_weights=str(tmp_path / "text.pth")))


def test_imagenet_statistics_are_applied_unless_the_features_are_those_of_the_released_code():
    gray = torch.full((1, 1, 4, 4), 0.485)
    seen = []
    for network in (vgg19(imagenet_statistics=True), vgg19(imagenet_statistics=False)):
        network.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, :, 0, 0]))
        network(torch.nn.functional.interpolate(gray, (16, 16)))
    torch.testing.assert_close(seen[0], torch.tensor([0.0, (0.485 - 0.456) / 0.224, (0.485 - 0.406) / 0.225]))
    torch.testing.assert_close(seen[1], torch.tensor([0.485] * 3))


def test_features_are_taken_before_the_activation_and_pass_gradients_to_the_image_alone():
    network, image = small_network("random"), torch.rand(1, 1, 32, 32, requires_grad=True)
    found = network(image)
    assert all(float(one.detach().min()) < 0 for one in found)
    sum(one.square().mean() for one in found).backward()
    assert image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_random_features_are_the_same_every_time():
    torch.manual_seed(1)
    first = open_features(BlimsrConfig(perceptual="random"))
    torch.manual_seed(2)
    second = open_features(BlimsrConfig(perceptual="random"))
    image = torch.rand(1, 1, 16, 16)
    assert all(torch.equal(*pair) for pair in zip(first(image), second(image), strict=True))


def test_without_a_file_phantom_features_stand_in_and_that_is_told_once(caplog):
    perceptual._warn_of_stand_in.cache_clear()
    with caplog.at_level(logging.WARNING):
        features = [open_features(BlimsrConfig()) for _ in range(3)]
    assert [one.name for one in features] == ["phantom"] * 3
    assert len(caplog.records) == 1
    assert "cannot be compared with published LPIPS values" in caplog.text
    caplog.clear()
    open_features(BlimsrConfig(perceptual="phantom"))
    assert not caplog.records


def test_phantom_features_are_small_enough_for_the_package_and_of_one_scale():
    assert perceptual.PHANTOM_FEATURES.stat().st_size < 150_000
    images = torch.stack([HighResReader((-1024, 1024)).image(case) for case in thorax_ct.cases(n=4, slices=1, size=96)])
    for block in open_features(BlimsrConfig(perceptual="phantom"))(images):
        assert 0.3 < float(block.std()) < 3


def test_phantom_features_put_blur_further_away_than_an_equally_large_change_of_brightness():
    features = open_features(BlimsrConfig(perceptual="phantom"))
    sharp = torch.stack([HighResReader((-1024, 1024)).image(case) for case in thorax_ct.cases(n=4, slices=1, size=96)])
    blurred = filter_each(sharp, gaussian_kernel(13, (1.5, 1.5)).expand(len(sharp), 13, 13))
    brighter = sharp + (blurred - sharp).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()  # the same squared error
    reference = features(sharp)
    far, near = (perceptual_distance(features(one), reference) for one in (blurred, brighter))
    assert (far > 5 * near).all()


def test_no_features_where_none_are_wanted():
    assert open_features(BlimsrConfig(perceptual="none", lambda_perc=0.0)) is None


def test_blocks_weigh_alike_or_as_in_the_released_code():
    assert block_weights(BlimsrConfig()) == (0.2,) * 5
    assert block_weights(BlimsrConfig(perceptual_weights="released")) == RELEASED_WEIGHTS
    assert sum(RELEASED_WEIGHTS) == 1
