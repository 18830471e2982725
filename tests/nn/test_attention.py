"""Attention maps: by hand, against MONAI, and without a trace in the network they explain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.visualize import GradCAM, GuidedBackpropGrad
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from medray.nn.attention import class_activation_map, grad_cam, guided_backprop, guided_grad_cam

Explain = Callable[[nn.Module, Tensor], Tensor]
EXPLANATIONS: dict[str, Explain] = {
    "grad_cam": lambda network, images: grad_cam(network, images, "relu2", [0, 2]),
    "guided_backprop": lambda network, images: guided_backprop(network, images, [0, 2]),
    "guided_grad_cam": lambda network, images: guided_grad_cam(network, images, "relu2", [0, 2]),
}


class Small(nn.Module):
    """Two convolutions, batch normalization, global average pooling and a linear layer."""

    def __init__(self, spatial_dims: int = 2, *, inplace: bool = False) -> None:
        super().__init__()
        convolution: type[nn.Module] = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        norm: type[nn.Module] = (nn.BatchNorm2d, nn.BatchNorm3d)[spatial_dims - 2]
        self.conv1 = convolution(1, 4, 3, padding=1)
        self.norm = norm(4)
        self.relu1 = nn.ReLU(inplace)
        self.conv2 = convolution(4, 6, 3, stride=2, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.linear = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu2(self.conv2(self.relu1(self.norm(self.conv1(images)))))
        return self.linear(features.flatten(2).mean(2))


def small(spatial_dims: int = 2, *, inplace: bool = False) -> tuple[Small, Tensor]:
    """The network, with statistics of its own in the normalization, and two images."""
    torch.manual_seed(3)
    network = Small(spatial_dims, inplace=inplace)
    with torch.no_grad():
        network.linear.weight.uniform_(-0.3, 0.7)  # so that something speaks for every class
    size = (2, 1, 12, 10, 8)[: 2 + spatial_dims]
    for _ in range(3):
        network(torch.randn(size))
    return network.eval(), torch.randn(size)


def single(*layers: nn.Module) -> nn.Sequential:
    """Layers between a 1x1 convolution and one logit; weights are set by the tests."""
    return nn.Sequential(*layers, nn.Flatten())


def pointwise(weights: list[list[float]]) -> nn.Conv2d:
    layer = nn.Conv2d(len(weights[0]), len(weights), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights)[:, :, None, None])
    return layer


def pixel(*channels: float) -> Tensor:
    return torch.tensor(channels, dtype=torch.float32).view(1, -1, 1, 1)


def test_class_activation_map_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [0.0, 4.0]], [[3.0, 0.0], [1.0, 1.0]]])[None]
    heat = class_activation_map(features, torch.tensor([1.0, -1.0]), (2, 2))  # 1-3, 2-0, 0-1, 4-1
    assert_close(heat, torch.tensor([[[0.0, 2 / 3], [0.0, 1.0]]]))


def test_class_activation_map_is_interpolated_between_pixel_centers() -> None:
    heat = class_activation_map(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([1.0]), (1, 4))
    assert_close(heat, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))


def test_each_image_has_its_own_row_and_its_own_maximum() -> None:
    features = torch.rand(2, 3, 4, 4, 4)
    both = class_activation_map(features, torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), (8, 8, 8))
    assert_close(both[:1], class_activation_map(features[:1], torch.tensor([5.0, 0.0, 0.0]), (8, 8, 8)))
    assert both[0].max() == 1.0
    assert both[1].abs().max() == 0.0  # nothing speaks for it: zeros, not nan


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_before_average_pooling_and_one_linear_layer_is_the_class_activation_map(dims: int) -> None:
    network, images = small(dims)
    features: list[Tensor] = []
    handle = network.relu2.register_forward_hook(lambda module, inputs, output: features.append(output))
    network(images)
    handle.remove()
    expected = class_activation_map(features[0].detach(), network.linear.weight[[2, 1]].detach(), images.shape[2:])
    assert expected.flatten(1).amax(1).tolist() == [1.0, 1.0]
    assert_close(grad_cam(network, images, "relu2", [2, 1]), expected)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2"])
def test_grad_cam_agrees_with_monai(layer: str) -> None:
    network, images = small()
    reference = GradCAM(small()[0], layer, postprocessing=lambda heat: heat / heat.amax((1, 2, 3), keepdim=True))
    assert_close(grad_cam(network, images, layer, [1, 1]), reference(images, class_idx=1)[:, 0].detach())


def test_guided_backprop_by_hand() -> None:
    # Hidden (1, 2, -1) becomes (1, 2, 0). The logit's gradient there is (3, -4, 5): the first passes, the second is
    # negative, the third meets a unit that is off. The plain gradient would be (3, -4).
    network = single(pointwise([[1, 0], [0, 1], [1, -1]]), nn.ReLU(), pointwise([[3, -4, 5]]))
    assert_close(guided_backprop(network, pixel(1, 2), [0]), pixel(3, 0))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (nn.ReLU6(), [1.0, 0.0, 0.0, 0.0]),
        (nn.ELU(), [1.0, 2.0, torch.e**-1 * 3, 0.0]),
        (nn.LeakyReLU(0.1), [1.0, 2.0, 0.3, 0.0]),
        (nn.PReLU(init=0.2), [1.0, 2.0, 0.6, 0.0]),
        (nn.Hardtanh(-5, 5), [1.0, 0.0, 3.0, 0.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_activations_cut_negative_gradients_off_and_keep_their_own_derivative(
    activation: nn.Module, expected: list[float]
) -> None:
    network = single(activation, pointwise([[1, 2, 3, -4]]))
    assert_close(guided_backprop(network, pixel(5.0 - 1, 7, -1, 2), [0]), pixel(*expected))


class Functional(Small):
    """The same network with functions in the place of modules."""

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.conv2(F.relu(self.norm(self.conv1(images))))).clone()
        return self.linear(features.flatten(2).mean(2))


def test_functions_and_in_place_activations_are_guided_like_modules() -> None:
    network, images = small()
    functional = Functional().eval()
    functional.load_state_dict(network.state_dict())
    expected = guided_backprop(network, images, [0, 2])
    plain = torch.autograd.grad(network(images.requires_grad_())[[0, 1], [0, 2]].sum(), images)[0]
    assert not torch.allclose(expected, plain)
    assert_close(guided_backprop(small(inplace=True)[0], images, [0, 2]), expected)
    assert_close(guided_backprop(functional, images, [0, 2]), expected)


def test_guided_backprop_agrees_with_monai_where_relus_are_called_so() -> None:
    network, images = small()
    expected = [GuidedBackpropGrad(small()[0])(image[None].clone(), index=2) for image in images]
    assert_close(guided_backprop(network, images, [2, 2]), torch.cat(expected))


def test_guided_grad_cam_is_the_product_of_the_two() -> None:
    network, images = small()
    product = guided_backprop(network, images, [0, 2])[:, 0].abs() * grad_cam(network, images, "relu2", [0, 2])
    expected = product / product.amax((1, 2), keepdim=True)
    assert_close(guided_grad_cam(network, images, "relu2", [0, 2]), expected)


def test_of_several_channels_guided_grad_cam_shows_the_largest() -> None:
    network = single(pointwise([[1, -3], [1, 1]]), nn.ReLU(), pointwise([[1, 0]]))  # gradient (1, -3) where on
    image = torch.tensor([[[[4.0, 8.0]], [[0.0, 0.0]]]])
    pooled = nn.Sequential(network[:3], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_close(guided_grad_cam(pooled, image, "0.1", [0]), torch.tensor([[[0.5, 1.0]]]))  # the heat of 4 and 8


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_images_of_a_batch_do_not_depend_on_each_other(name: str) -> None:
    network, images = small()
    network.train()
    both = EXPLANATIONS[name](network, images)
    network.eval()
    other = EXPLANATIONS[name](network, torch.stack([images[0], 100 * images[0]]))
    assert_close(other[0], both[0])


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_nothing_is_left_in_the_network_or_the_images(name: str) -> None:
    network, images = small(inplace=True)
    network.train()
    network.norm.eval()  # as of a frozen backbone
    network.conv1.weight.requires_grad = False
    network.linear.weight.grad = torch.ones_like(network.linear.weight)  # of a training in progress
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seen = images.clone()
    heat = EXPLANATIONS[name](network, images)
    assert not heat.requires_grad
    assert network.training
    assert not network.norm.training
    assert_close(network.linear.weight.grad, torch.ones_like(network.linear.weight))
    assert {key for key, value in network.named_parameters() if value.grad is not None} == {"linear.weight"}
    assert not network.conv1.weight.requires_grad
    assert network.relu1.inplace
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert_close(network.state_dict(), before)
    assert_close(images, seen)
    assert not images.requires_grad


@pytest.mark.parametrize("name", EXPLANATIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_no_gradients_are_recorded(name: str, mode: Callable[[], torch.no_grad]) -> None:
    network, images = small()
    expected = EXPLANATIONS[name](network, images)
    with mode():
        assert_close(EXPLANATIONS[name](network, images + 0), expected)


def test_an_activation_in_place_does_not_change_what_is_explained() -> None:
    network, images = small()
    in_place, _ = small(inplace=True)
    assert_close(grad_cam(in_place, images, "conv2", [0, 1]), grad_cam(network, images, "conv2", [0, 1]))


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.Hardswish()])
def test_activations_without_a_rule_are_refused_not_ignored(activation: nn.Module) -> None:
    network = single(activation, pointwise([[1.0]]))
    with pytest.raises(ValueError, match=r"not defined for \w*(gelu|silu|hardswish)"):
        guided_backprop(network.train(), pixel(1.0), [0])
    assert network.training


def test_a_network_whose_activations_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="no activation was seen in Sequential"):
        guided_backprop(single(pointwise([[1.0]])), pixel(1.0), [0])


@pytest.mark.parametrize(
    ("layer", "classes", "message"),
    [
        ("relu3", [0, 0], r"no layer 'relu3'; it has conv1, norm, relu1"),
        ("linear", [0, 0], r"'linear' must put out \(B, K, \*f\) with 2 spatial axes"),
        ("relu2", [0], "each of 2 images, got 1"),
        ("relu2", [0, 3], r"\[0, 3\] must be columns of the logits \(2, 3\)"),
        ("relu2", [-1, 0], r"\[-1, 0\] must be columns"),
    ],
)
def test_what_cannot_be_explained_is_named(layer: str, classes: list[int], message: str) -> None:
    network, images = small()
    with pytest.raises(ValueError, match=message):
        grad_cam(network, images, layer, classes)


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [((2,), (4, 4), r"\(2,\) must be \(K,\) or \(B, K\)"), ((3,), (4,), r"size \(4,\) needs one number")],
)
def test_shapes_that_do_not_fit_are_named(weights: tuple[int, ...], size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_activation_map(torch.zeros(1, 3, 2, 2), torch.zeros(weights), size)
