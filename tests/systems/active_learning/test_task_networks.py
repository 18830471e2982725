"""The networks of the tasks, and published weights into them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from medray.errors import UserError
from medray.systems.active_learning.task_networks import build_classifier, build_unet

_WIDTHS = (64, 128, 256, 512)


def _norm(name: str, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.rand(channels, generator=generator) + 0.5,
        f"{name}.bias": torch.randn(channels, generator=generator) * 0.1,
        f"{name}.running_mean": torch.randn(channels, generator=generator) * 0.1,
        f"{name}.running_var": torch.rand(channels, generator=generator) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def published(seed: int = 0) -> dict[str, Tensor]:
    """Names and shapes of torchvision's ResNet-18, as its files have them; numbers are made up."""
    g = torch.Generator().manual_seed(seed)

    def conv(out: int, into: int, side: int) -> Tensor:
        return torch.randn(out, into, side, side, generator=g) * (2 / (into * side**2)) ** 0.5

    tensors = {"conv1.weight": conv(64, 3, 7), **_norm("bn1", 64, g)}
    for stage, width in enumerate(_WIDTHS, start=1):
        before = _WIDTHS[max(stage - 2, 0)]
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            tensors |= {f"{name}.conv1.weight": conv(width, before if block == 0 else width, 3)}
            tensors |= {f"{name}.conv2.weight": conv(width, width, 3)}
            tensors |= {**_norm(f"{name}.bn1", width, g), **_norm(f"{name}.bn2", width, g)}
        if stage > 1:
            tensors |= {f"layer{stage}.0.downsample.0.weight": conv(width, before, 1)}
            tensors |= _norm(f"layer{stage}.0.downsample.1", width, g)
    return {**tensors, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def resnet18_features(tensors: dict[str, Tensor], image: Tensor) -> Tensor:
    """He et al., CVPR 2016, fig. 3 and table 1, with strides where torchvision has them: (B, 512) of (B, 3, H, W)."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    x = F.relu(norm(F.conv2d(image, tensors["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, tensors[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, tensors[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in tensors:
                x = norm(F.conv2d(x, tensors[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return x.mean((2, 3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_weights_see_three_equal_channels_in_a_gray_image(suffix: str, tmp_path: Path) -> None:
    tensors, path = published(), tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    network = build_classifier("resnet18", 3, mean=0.5, sd=0.5, weights=path).eval()
    image = torch.rand(2, 1, 80, 64, generator=torch.Generator().manual_seed(1))
    colors = ((image - 0.5) / 0.5).expand(-1, 3, -1, -1)
    with torch.no_grad():
        assert_close(network.features(image), resnet18_features(tensors, colors), rtol=1e-3, atol=1e-4)
        assert network(image).shape == (2, 3)


def test_files_older_than_the_counters_of_batch_norm_will_do(tmp_path: Path) -> None:
    save_file({k: v for k, v in published().items() if "tracked" not in k}, tmp_path / "old.safetensors")
    network = build_classifier("resnet18", 2, mean=0.0, sd=1.0, weights=tmp_path / "old.safetensors")
    assert_close(network.state_dict()["body.layer3.1.conv2.weight"], published()["layer3.1.conv2.weight"])


def test_files_of_something_else_say_so_in_a_sentence(tmp_path: Path) -> None:
    def start(path: Path) -> None:
        build_classifier("resnet18", 2, mean=0.0, sd=1.0, weights=path)

    tensors = published()
    deeper = {**tensors, "layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}  # as a ResNet-34 has
    lacking = {name: tensor for name, tensor in tensors.items() if name != "layer4.1.bn2.bias"}
    for content, name in ((deeper, "layer1.2.conv1.weight"), (lacking, "layer4.1.bn2.bias")):
        save_file(content, tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=rf"other.safetensors does not hold torchvision's ResNet-18: {name}"):
            start(tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot read the weights in"):
        start(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        start(tmp_path / "list.pth")
    with pytest.raises(UserError, match="there are no weights at"):
        start(tmp_path / "nowhere.pth")


def test_standardizing_belongs_to_the_network() -> None:
    torch.manual_seed(0)
    network = build_unet((4, 4, 8, 8, 8), mean=0.25, sd=0.5).eval()
    raw = build_unet((4, 4, 8, 8, 8), mean=0.0, sd=1.0).eval()
    raw.load_state_dict({**network.state_dict(), "mean": torch.tensor(0.0), "sd": torch.tensor(1.0)})
    image = torch.rand(1, 1, 48, 40)
    with torch.no_grad():
        assert_close(network(image), raw((image - 0.25) / 0.5))
        assert_close(network.head(network.features(image)), network(image))
        assert network(image).shape == (1, 1, 48, 40)


def test_images_of_a_batch_do_not_see_each_other_without_batch_norm() -> None:
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    networks: list[nn.Module] = [
        build_unet((4, 4, 8, 8, 8), mean=0.0, sd=1.0),
        build_classifier("small", 2, mean=0.0, sd=1.0),
    ]
    for network in networks:
        assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)
