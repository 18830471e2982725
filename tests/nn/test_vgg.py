from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from medray.errors import UserError
from medray.nn.vgg import Vgg, vgg_layers
from medray.nn.weights import load_published, read_state_dict

# torchvision's VGG-19: index in `features` of each convolution, with its input and output channels
CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512), 30: (512, 512),
    32: (512, 512), 34: (512, 512),
}  # fmt: skip
LINEAR = {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}


def load(network: Vgg, path: Path) -> None:
    load_published(network, read_state_dict(path), path, "torchvision's VGG-19", last="classifier.6")


def small(num_outputs: int) -> Vgg:
    return Vgg(num_outputs, channels=(4, 8), convs=(1, 2), hidden=6, grid=2)


def test_names_and_shapes_are_torchvisions_vgg19():
    with torch.device("meta"):  # 144 million weights need no memory to be looked at
        found = {name: tuple(tensor.shape) for name, tensor in Vgg().state_dict().items()}
    expected = {f"features.{n}.weight": (out, into, 3, 3) for n, (into, out) in CONVOLUTIONS.items()}
    expected |= {f"features.{n}.bias": (out,) for n, (_, out) in CONVOLUTIONS.items()}
    expected |= {f"classifier.{n}.weight": (out, into) for n, (into, out) in LINEAR.items()}
    expected |= {f"classifier.{n}.bias": (out,) for n, (_, out) in LINEAR.items()}
    assert found == expected


def test_a_block_ends_in_a_maximum_and_the_last_relu_has_a_name():
    layers = vgg_layers(1, (4, 8), (1, 2))
    kinds = [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert [type(layer) for layer in layers] == kinds
    assert small(1).last_convolution == "features.6"


def test_logits_come_from_the_mean_over_the_grid():
    network = small(1).eval()
    image = torch.rand(2, 3, 12, 16)
    by_hand = network.classifier(nn.functional.adaptive_avg_pool2d(network.features(image), 2).flatten(1))
    assert_close(network(image), by_hand)
    assert network(image).shape == (2, 1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_published_file_gives_everything_but_a_last_layer_of_other_size(tmp_path, suffix):
    torch.manual_seed(0)
    published, mine = small(1000), small(1)
    last = mine.classifier[-1].weight.clone()
    path = tmp_path / f"vgg{suffix}"
    (torch.save if suffix == ".pth" else save_file)(published.state_dict(), path)
    load(mine, path)
    assert_close(mine.features[0].weight, published.features[0].weight)
    assert_close(mine.classifier[3].weight, published.classifier[3].weight)
    assert_close(mine.classifier[-1].weight, last)


def test_another_network_is_told_by_the_tensor_that_does_not_fit(tmp_path):
    tensors = small(1000).state_dict()
    del tensors["classifier.3.bias"]
    torch.save(tensors, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"does not hold torchvision's VGG-19: classifier\.3\.bias does not fit"):
        load(small(1), tmp_path / "vgg.pth")
