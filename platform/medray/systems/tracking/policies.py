"""Trained trackers on disk: the actor that predicts, the critic that only training goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medray.errors import UserError
from medray.learner import seed_of
from medray.nn.weights import load_network
from medray.storage.local import on_this_machine
from medray.system import Trained
from medray.systems.tracking.axon_tracker import AxonProblem, AxonTrackerConfig

_CARD, _WEIGHTS, _CRITIC = "medray.json", "model.safetensors", "critic"
_SHARED = ("max_step_px", "distribution", "channels", "hidden")
"""Settings that weights make sense with only."""


def take_apart(weights: Path, folder: Path) -> dict[str, Path]:
    """The actor and the critic of a fit as a file each, ``actor.safetensors`` and ``critic.safetensors``.

    Args:
        weights: as `Workbench.reinforce` leaves them.
        folder: where the files go; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(on_this_machine(weights))
    found = {}
    for part in ("actor", _CRITIC):
        found[part] = folder / f"{part}.safetensors"
        save_file({name: value for name, value in tensors.items() if name.startswith(f"{part}.")}, found[part])
    return found


def put_together(trained: Trained, folder: Path) -> Path:
    """The reverse of `take_apart`: one file to go on from."""
    assert trained.weights is not None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "start.safetensors"
    save_file(load_file(on_this_machine(trained.weights)) | load_file(on_this_machine(trained.files[_CRITIC])), path)
    return path


def load_actor(problem: AxonProblem, weights: Path) -> nn.Module:
    """The actor, ready to trace.

    Raises:
        UserError: the file cannot be read or is that of other networks.
    """
    actor = problem.make_actor()
    load_network(actor, weights, prefix="actor.")
    return actor.eval()


def starting_weights(config: AxonTrackerConfig, folder: Path, seed: int) -> Path | None:
    """The networks that training goes on from, as one file in ``folder``; None where it starts anew.

    A checkpoint without its critic, or whose critic saw other things, gets a fresh one.

    Raises:
        UserError: there is no such checkpoint, it is another system's, or made for other steps or networks.
    """
    if not config.start_from:
        return None
    found = _folder(config.start_from)
    card = _card(found, config.start_from)
    _check(card["config"], config)
    tensors = load_file(found / _WEIGHTS)
    critic = found / f"{_CRITIC}.safetensors"
    if critic.is_file() and card["config"]["critic_sees_centreline"] == config.critic_sees_centreline:
        tensors |= load_file(critic)
    else:
        tensors |= {f"critic.{name}": value for name, value in _fresh_critic(config, seed).items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "start.safetensors"
    save_file(tensors, path)
    return path


def _folder(where: str) -> Path:
    path = Path(where)
    folder = next((f for f in (path / "checkpoints" / "final", path, path.parent) if (f / _CARD).is_file()), None)
    if folder is None:
        raise UserError(f"start_from: there is no finished checkpoint at {where}; give a run directory on this machine")
    return folder


def _card(folder: Path, where: str) -> Mapping[str, Any]:
    try:
        card: Mapping[str, Any] = json.loads((folder / _CARD).read_text())
        system, _ = card["system"], card["config"]["max_step_px"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"start_from: {where} is not the checkpoint of a tracker: {error!r}") from None
    if system != "axon_tracker" or not card.get("weights"):
        raise UserError(f"start_from: {where} holds no trained tracker, its checkpoint is one of {system}")
    return card


def _check(saved: Mapping[str, Any], config: AxonTrackerConfig) -> None:
    for name in _SHARED:
        ours = getattr(config, name)
        theirs = tuple(saved[name]) if isinstance(saved[name], list) else saved[name]
        if theirs != ours:
            raise UserError(
                f"start_from: {config.start_from} was trained with {name} {theirs}, this run has {ours}; "
                f"give --config.{name.replace('_', '-')} as there"
            )


def _fresh_critic(config: AxonTrackerConfig, seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed_of(seed, "critic"))
        return AxonProblem(config, ()).make_critic().state_dict()
