import functools
import itertools

import pytest
import torch

from medray.nn.inception import InceptionV3
from medray.nn.unet import UNet


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def note(sizes, name, _, __, out):
    sizes.setdefault(name, tuple(out.shape[1:]))


def test_inception_has_the_published_number_of_weights_and_names():
    with torch.device("meta"):
        network = InceptionV3()
    assert parameters(network) == 23_834_568  # 27,161,264 with the 3,326,696 of the auxiliary classifier
    names = set(network.state_dict())
    assert {"Conv2d_1a_3x3.conv.weight", "Conv2d_4a_3x3.bn.running_var", "fc.bias"} <= names
    assert {"Mixed_5b.branch_pool.conv.weight", "Mixed_6e.branch7x7dbl_5.bn.bias"} <= names
    assert {"Mixed_7a.branch7x7x3_4.conv.weight", "Mixed_7c.branch3x3dbl_3b.conv.weight"} <= names


def test_inceptions_grids_are_the_papers():
    """Table 1: 299 becomes 35, 17 and 8; the smallest image it takes has 75 pixels."""
    sizes = {}
    with torch.device("meta"):
        network = InceptionV3(2).eval()
        for name in ("Mixed_5d", "Mixed_6e", "Mixed_7c"):
            layer = dict(network.named_children())[name]
            layer.register_forward_hook(functools.partial(note, sizes, name))
        assert network(torch.zeros(1, 3, 299, 299)).shape == (1, 2)
        assert network(torch.zeros(2, 3, 75, 75)).shape == (2, 2)
    assert sizes == {"Mixed_5d": (288, 35, 35), "Mixed_6e": (768, 17, 17), "Mixed_7c": (2048, 8, 8)}


def test_unet_of_the_papers_size_has_ronnebergers_convolutions():
    """By hand: 9 (i + o) o per pair of convolutions and 4 i o per transposed one, biases and norms aside."""
    with torch.device("meta"):
        network = UNet(1, 1)
    levels = (64, 128, 256, 512, 1024)
    down = sum(9 * (i + o) * o for i, o in zip((1, *levels[:-1]), levels, strict=True))
    up = sum(4 * coarse * fine + 9 * (2 * fine + fine) * fine for fine, coarse in itertools.pairwise(levels))
    kernels = sum(p.numel() for p in network.parameters() if p.ndim == 4)
    assert kernels == down + up + 64


@pytest.mark.parametrize("shape", [(32, 32), (33, 45)])
def test_unet_keeps_the_size(shape):
    assert UNet(2, 3, (4, 8, 16))(torch.rand(2, 2, *shape)).shape == (2, 3, *shape)


def test_an_images_result_does_not_depend_on_its_batch():
    network = UNet(1, 1, (4, 8))
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))
