"""Where a classifier looks: class activation maps, Grad-CAM, guided backpropagation and guided Grad-CAM, in 2D and 3D.

Grad-CAM's formula and interpolation are MONAI's (`monai.visualize.GradCAM`); its wrapper is replaced, since that one
leaves hooks in the network, switches in-place activations off for good, clears the gradients of a training in progress
and takes one class for a whole batch. `GuidedBackpropGrad` is not used: it finds ReLUs by the word "relu" in their
names, so that a VGG (``features.1``, ...) would silently get plain gradients.

Shape letters: B images, C input channels, K feature channels, N classes, s image and f feature axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.visualize.class_activation_maps import GradCAM, ModelWithHooks
from monai.visualize.visualizer import default_upsampler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_GUIDED = frozenset(
    getattr(where, name + suffix)
    for where in (torch, F, Tensor)
    for name in ("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu")
    for suffix in ("", "_")
    if hasattr(where, name + suffix)
)
"""Activations that never fall, so that more of their input is more of their output."""
_NOT_GUIDED = frozenset((F.gelu, F.silu, F.mish, F.hardswish))


def class_activation_map(features: Tensor, weights: Tensor, size: Sequence[int]) -> Tensor:
    """Weighted sum of the last feature maps: Zhou et al., CVPR 2016, eq. 2.

    Args:
        features: what global average pooling sees, (B, K, *f).
        weights: the row of the linear layer that belongs to the class, (K,), or one for each image, (B, K).
        size: of the image, s.

    Returns:
        (B, *s): negative evidence cut off, linearly interpolated, divided by its maximum. A map without any positive
        evidence is zero everywhere.

    Raises:
        ValueError: shapes that do not fit.
    """
    if weights.shape not in (features.shape[1:2], features.shape[:2]):
        raise ValueError(f"weights {tuple(weights.shape)} must be (K,) or (B, K) of features {tuple(features.shape)}")
    if len(size) != features.dim() - 2:
        raise ValueError(f"size {tuple(size)} needs one number for each axis of features {tuple(features.shape)}")
    rows = weights.expand(features.shape[:2])
    summed = torch.einsum("bk...,bk->b...", features, rows)[:, None]
    return _unit(default_upsampler(tuple(size))(F.relu(summed)))[:, 0]


def grad_cam(network: nn.Module, images: Tensor, layer: str, classes: Sequence[int]) -> Tensor:
    """Grad-CAM: Selvaraju et al., ICCV 2017, eqs. 1 and 2.

    The network is used in evaluation mode and left as it was: modes, weights, gradients and hooks.

    Args:
        network: images (B, C, *s) to logits (B, N).
        images: (B, C, *s).
        layer: name of the layer in ``network.named_modules()`` whose output (B, K, *f) is explained, usually the last
            with spatial axes.
        classes: the class to explain, for each image.

    Returns:
        (B, *s) in [0, 1], linearly interpolated, each image divided by its own maximum; zero where nothing speaks for
        the class.

    Raises:
        ValueError: no such layer, a layer without spatial axes, not one class for each image, no such class.
    """
    with _evaluating(network):
        probe: Any = _Probe(network, layer)
        heat: Tensor = GradCAM(probe, layer, postprocessing=_unit)(_copy(images), class_idx=_indices(images, classes))
        return heat[:, 0].detach()


def guided_backprop(network: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Gradient of the class's logit on its way back through positive gradients only: Springenberg et al., ICLR 2015.

    At each activation the gradient that arrives is cut off below zero and then goes through the activation's own
    derivative; for a ReLU that is the paper's rule. Covered are ReLU, ReLU6, hard tanh, leaky, parametric and
    randomized ReLU, ELU, CELU and SELU, as modules or as functions, in place or not. Sigmoid and tanh, which are gates,
    keep their gradient. A ReLU written by hand (``x.clamp(min=0)``) cannot be seen.

    Args:
        network: images (B, C, *s) to logits (B, N); left as it was.
        images: (B, C, *s).
        classes: the class to explain, for each image.

    Returns:
        (B, C, *s), signed, per unit of the image.

    Raises:
        ValueError: an activation for which the rule is not defined (GELU, SiLU), no activation seen at all (a compiled
            or scripted network hides them), not one class for each image, no such class.
    """
    with _evaluating(network):
        inputs = _copy(images)
        with _PositiveGradients() as guide:
            score = _class_score(network(inputs), _indices(images, classes))
        if not guide.num_seen:
            raise ValueError(f"no activation was seen in {type(network).__name__}, so nothing can guide its gradients")
        return torch.autograd.grad(score.sum(), inputs)[0]


def guided_grad_cam(network: nn.Module, images: Tensor, layer: str, classes: Sequence[int]) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM, Selvaraju et al., sec. 3.

    Args:
        network: as `grad_cam` and `guided_backprop`.
        images: (B, C, *s).
        layer: as `grad_cam`.
        classes: the class to explain, for each image.

    Returns:
        (B, *s) in [0, 1]: magnitude of the product, its largest channel, each image divided by its own maximum.

    Raises:
        ValueError: as `grad_cam` and `guided_backprop`.
    """
    fine = guided_backprop(network, images, classes).abs().amax(dim=1)
    return _unit(fine * grad_cam(network, images, layer, classes))


class _Probe(ModelWithHooks):
    """What `GradCAM` asks of a network: logits, one layer's output and the class's gradient there."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.model = network
        self.layer = layer

    def __call__(self, x: Tensor, class_idx: Any = None, retain_graph: bool = False, **kwargs: Any) -> Any:
        modules = dict(self.model.named_modules())
        if self.layer not in modules:
            raise ValueError(f"the network has no layer {self.layer!r}; it has {', '.join(filter(None, modules))}")
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            found.append(output)
            return output.clone()  # an in-place activation that follows must not change what was kept

        handle = modules[self.layer].register_forward_hook(keep)
        try:
            logits = self.model(x)
        finally:
            handle.remove()
        if not found or found[-1].dim() != x.dim():
            raise ValueError(f"layer {self.layer!r} must put out (B, K, *f) with {x.dim() - 2} spatial axes")
        (gradient,) = torch.autograd.grad(_class_score(logits, class_idx).sum(), found[-1])
        return logits, (found[-1],), (gradient,)


class _PositiveGradients(TorchFunctionMode):
    """Has every activation that is called let only positive gradients in, on their way back."""

    def __init__(self) -> None:
        super().__init__()
        self.num_seen = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _NOT_GUIDED:
            raise ValueError(f"guided backpropagation is not defined for {func.__name__}, which falls and rises")
        result = func(*args, **(kwargs or {}))
        if func in _GUIDED and result.requires_grad:
            self.num_seen += 1
            result.register_hook(lambda gradient: gradient.clamp(min=0))
        return result


def _class_score(logits: Tensor, classes: Tensor) -> Tensor:
    if logits.dim() != 2 or not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise ValueError(f"classes {classes.tolist()} must be columns of the logits {tuple(logits.shape)}")
    return logits.gather(1, classes[:, None])


def _copy(images: Tensor) -> Tensor:
    return images.detach().clone().requires_grad_()


def _indices(images: Tensor, classes: Sequence[int]) -> Tensor:
    if len(classes) != len(images):
        raise ValueError(f"one class is needed for each of {len(images)} images, got {len(classes)}")
    return torch.as_tensor(classes, dtype=torch.long, device=images.device)


def _unit(heat: Tensor) -> Tensor:
    """Each image divided by its maximum; zeros stay zero."""
    top = heat.flatten(1).amax(dim=1).view(-1, *[1] * (heat.dim() - 1))
    return heat / torch.where(top > 0, top, torch.ones_like(top))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, with gradients even where the caller records none; every module's own mode comes back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
