"""The server's side of federated training: rounds, averages, sites that are away.

A site is any object with two methods: ``train(round number, weights, own weights or None) -> Update`` and
``score(weights) -> Confusion``. It lives wherever the workbench puts it and may be lost at any time; a round goes on
with those that answer. Every finished round is a stage of the run, so a run that was stopped goes on with the next.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medray.learner import seed_of
from medray.metrics.segmentation import Confusion, pooled
from medray.system import Team, Workbench

Weights = dict[str, Tensor]
ItemT = TypeVar("ItemT")

_WAIT_S = 5.0
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Update:
    """What a site sends back after local training.

    Attributes:
        weights: of its network.
        num_samples: images it trained on.
        drift: |w_k - w_global| over the parameters.
        loss: mean over the last stretch of its training.
    """

    weights: Weights
    num_samples: int
    drift: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Federation:
    """How rounds are run.

    Attributes:
        rounds: how many.
        participation: share of the sites that train in a round, drawn by the seed.
        min_sites: a round waits until as many have answered.
        aggregation: sites count by their images, or all alike.
        keep_own: whether a site's own weights of its last round are kept and sent back to it with the server's.
    """

    rounds: int
    participation: float = 1.0
    min_sites: int = 1
    aggregation: Literal["samples", "uniform"] = "samples"
    keep_own: bool = False


@dataclass(frozen=True)
class RoundRecord:
    """A finished round, for tables and curves.

    Attributes:
        number: from 0.
        answered: sites that trained.
        absent: sites that were asked and are left out.
        drift: of each site that answered.
        loss: likewise.
        scores: rates of the new global weights on each site's held-out images, and on all of them under "all".
    """

    number: int
    answered: tuple[str, ...]
    absent: tuple[str, ...]
    drift: Mapping[str, float]
    loss: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]


def run_rounds(
    work: Workbench,
    make_site: Callable[[Workbench, ItemT], Any],
    sites: Mapping[str, ItemT],
    start: Weights,
    settings: Federation,
) -> tuple[Path, list[RoundRecord]]:
    """Train in rounds.

    Args:
        work: of the run.
        make_site: makes a site from its item, on its workbench.
        sites: items by name.
        start: weights before the first round, the same however often the run is resumed.
        settings: see `Federation`.

    Returns:
        the folder of the last round, which holds `WEIGHTS`, and all rounds.
    """
    server = _Server(work, settings, tuple(sites))
    weights, records, folder = start, [], Path()
    with work.team(make_site, sites, name="sites") as team:
        for number in range(settings.rounds):
            own = server.own_weights(number)

            def one(folder: Path, number: int = number, weights: Weights = weights, own: Any = own) -> None:
                server.run(team, number, weights, own, folder)

            folder = work.stage(f"round-{number:03d}", one)
            weights = load_file(folder / WEIGHTS)
            records.append(_read(folder))
    return folder, records


class _Server:
    def __init__(self, work: Workbench, settings: Federation, names: tuple[str, ...]) -> None:
        self.work, self.settings, self.names = work, settings, names

    def run(self, team: Team, number: int, weights: Weights, own: Mapping[str, Weights], folder: Path) -> None:
        chosen = participants(self.names, self.settings.participation, seed_of(self.work.seed, "round", number))
        updates = self._updates(team, {name: (number, weights, own.get(name)) for name in chosen}, number)
        merged = aggregate(list(updates.values()), self.settings.aggregation)
        save_file(merged, folder / WEIGHTS)
        if self.settings.keep_own:
            for name in self.names:  # who was not asked or away keeps what it had
                kept = updates[name].weights if name in updates else own.get(name)
                if kept is not None:
                    save_file(kept, folder / f"own-{self.names.index(name)}.safetensors")
        counts: dict[str, Confusion] = team.call("score", dict.fromkeys(self.names, (merged,)))
        record = RoundRecord(
            number,
            tuple(updates),
            tuple(name for name in chosen if name not in updates),
            {name: update.drift for name, update in updates.items()},
            {name: update.loss for name, update in updates.items()},
            {**{name: found.rates() for name, found in counts.items()}, "all": pooled(list(counts.values()))},
        )
        (folder / "round.json").write_text(json.dumps(asdict(record)))
        self._tell(record)

    def own_weights(self, number: int) -> dict[str, Weights]:
        """Each site's weights of its last round before this one."""
        if not self.settings.keep_own or number == 0:
            return {}
        folder = self.work.stage(f"round-{number - 1:03d}", _never)
        paths = {name: folder / f"own-{index}.safetensors" for index, name in enumerate(self.names)}
        return {name: load_file(path) for name, path in paths.items() if path.is_file()}

    def _updates(self, team: Team, arguments: Mapping[str, tuple[Any, ...]], number: int) -> dict[str, Update]:
        """Of all who answer; waits and asks again while they are too few."""
        wanted = min(self.settings.min_sites, len(arguments))
        updates: dict[str, Update] = team.call("train", arguments)
        while len(updates) < wanted:
            missing = [name for name in arguments if name not in updates]
            self.work.say(f"round {number + 1}: waiting for {', '.join(missing)} ({len(updates)} of {wanted} answered)")
            time.sleep(_WAIT_S)
            updates |= team.call("train", {name: arguments[name] for name in missing})
        return {name: updates[name] for name in arguments if name in updates}

    def _tell(self, record: RoundRecord) -> None:
        loss, drift = (float(np.mean(list(values.values()))) for values in (record.loss, record.drift))
        dice = record.scores["all"]["dice"]
        away = f"; {', '.join(record.absent)} did not answer and is left out" if record.absent else ""
        self.work.say(
            f"round {record.number + 1} of {self.settings.rounds}: Dice {dice:.3f} on held-out images, "
            f"loss {loss:.3f}, drift {drift:.2f}{away}"
        )
        told = {"loss": loss, "drift": drift, "answered": float(len(record.answered))}
        held_out = {f"dice_{name}": rates["dice"] for name, rates in record.scores.items() if name != "all"}
        finite = {key: value for key, value in {"dice": dice, **held_out}.items() if math.isfinite(value)}
        self.work.log({"step": record.number + 1, **told, **finite}, name="rounds")


def participants(names: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """At least one of the sites, in their order."""
    count = max(1, round(share * len(names)))
    drawn = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    return tuple(names[index] for index in sorted(drawn))


def aggregate(updates: Sequence[Update], how: Literal["samples", "uniform"]) -> Weights:
    """Mean of the sites' weights, by their number of images or alike. Counters of batch norm take the largest."""
    shares = torch.tensor([u.num_samples if how == "samples" else 1 for u in updates], dtype=torch.float64)
    shares /= shares.sum()
    merged = {}
    for name, first in updates[0].weights.items():
        stack = torch.stack([update.weights[name] for update in updates])
        if first.is_floating_point():
            merged[name] = (stack.double() * shares.view(-1, *(1,) * first.ndim)).sum(0).to(first.dtype)
        else:
            merged[name] = stack.amax(0)
    return merged


def _read(folder: Path) -> RoundRecord:
    kept = json.loads((folder / "round.json").read_text())
    return RoundRecord(**{**kept, "answered": tuple(kept["answered"]), "absent": tuple(kept["absent"])})


def _never(folder: Path) -> None:
    raise AssertionError(f"{folder} is of a finished round")
