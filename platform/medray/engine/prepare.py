"""Networks made ready for a device and a world: where their weights lie, in which layout, compiled or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from medray.engine.nested import in_channels_last
from medray.engine.options import LoopOptions
from medray.engine.world import World
from medray.learner import Learner


def prepare_networks(learner: Learner, world: World, options: LoopOptions) -> None:
    """Move the networks to the worker's device and change them in place as the options ask; names stay the same."""
    networks = learner.networks
    if world.size > 1 and world.device.type == "cuda":  # PyTorch has it for GPUs only
        for name, module in list(networks.items()):
            networks[name] = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if options.channels_last:
        for parameter in networks.parameters():
            parameter.data = in_channels_last(parameter.data)
    if options.shard and world.size > 1:
        _shard(learner, world)  # moves each part to the device on its own: the whole may not fit
    networks.to(world.device)
    if options.compile:
        for module in networks.values():
            module.compile()


def _shard(learner: Learner, world: World) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in (*learner.shard_units(), *learner.networks.values()):
        sharded = fully_shard(module, mesh=mesh)
        if isinstance(sharded, FSDPModule):
            # Losses are means over all workers already (`Step.mean`), so their gradients are added, not averaged.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)  # which gloo needs


@contextmanager
def arithmetic(options: LoopOptions) -> Iterator[None]:
    """Only deterministic algorithms inside, where the options ask for it."""
    if not options.deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
