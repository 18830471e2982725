"""Whether a run that was killed is the run that was not: compared bit for bit, as found in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medray.engine.checkpoint import CheckpointStore, load_weights
from medray.engine.rundir import read_json_lines
from tests.chaos.learners import NUM_EPOCHS, NUM_SAMPLES

_TIMES = {"wall_s", "samples_per_second"}


@dataclass(frozen=True)
class Verdict:
    """What kills changed in a run; nothing, if it is as it should be.

    Attributes:
        samples: visits lost or repeated, over all samples.
        weights: largest difference of a weight; inf where they cannot be compared.
        problems: whatever else is wrong, in sentences.
    """

    samples: float
    weights: float
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing changed."""
        return self.samples == 0 and self.weights == 0 and not self.problems

    def and_also(self, problems: Sequence[str]) -> Verdict:
        """With more of them."""
        return replace(self, problems=(*self.problems, *problems))


def failed(problem: str) -> Verdict:
    """Of a run that did not get to its end."""
    return Verdict(float("nan"), float("nan"), (problem,))


def compare(run: Path, reference: Path) -> Verdict:
    """Compare the folder of a run that was killed with that of an undisturbed one on as many workers."""
    store, undisturbed = (CheckpointStore(path / "checkpoints" / "train") for path in (run, reference))
    got, expected = store.latest(), undisturbed.latest()
    if got is None or expected is None:
        return failed("no whole checkpoint at the end")
    (weights, state), (right_weights, right_state) = got, expected
    visits = (float(state["sample_state"].get(i, {}).get("counted", 0.0)) for i in range(NUM_SAMPLES))
    problems = []
    for part in right_state:
        if not _same(state.get(part), right_state[part]):
            problems.append(f"{part} in the final checkpoint differ")
    best, right_best = store.best(), undisturbed.best()
    if best is None or right_best is None or _difference(load_weights(best), load_weights(right_best)):
        problems.append("the best weights differ")
    records, right_records = _records(run), _records(reference)
    if records != right_records:
        where = next((i for i, (a, b) in enumerate(zip(records, right_records, strict=False)) if a != b), "its end")
        problems.append(
            f"metrics.jsonl has {len(records)} records instead of {len(right_records)}, different from {where} on"
        )
    left_over = [path.name for path in store.folder.glob(".step-*")]
    if left_over:
        problems.append(f"left over: {', '.join(left_over)}")
    lost_or_repeated = sum(abs(count - NUM_EPOCHS) for count in visits)
    return Verdict(lost_or_repeated, _difference(weights, right_weights), tuple(problems))


def _records(run: Path) -> list[dict[str, Any]]:
    records = [record for record in read_json_lines(run / "metrics.jsonl") if record["name"] != "speed"]
    return [{key: value for key, value in record.items() if key not in _TIMES} for record in records]


def _difference(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    if got.keys() != expected.keys() or any(got[name].shape != value.shape for name, value in expected.items()):
        return float("inf")
    differences = [(got[name].double() - value.double()).abs().max() for name, value in expected.items()]
    return float(torch.stack(differences).nan_to_num(nan=float("inf")).max())


def _same(got: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return isinstance(got, Tensor) and got.dtype == expected.dtype and torch.equal(got, expected)
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and got.keys() == expected.keys()
            and all(_same(got[key], value) for key, value in expected.items())
        )
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return len(got) == len(expected) and all(map(_same, got, expected))
    return bool(got == expected)
