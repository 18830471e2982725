"""What a trained network says of a cube: probabilities, the test repeated with dropout left on, and the heat map.

The heat map is the class activation map of the last feature map (Zhou et al., CVPR 2016). For the decision tear or none
it weighs the map's channels by the sum of the four tear classes' rows of the last layer; the paper shows the predicted
class's, which for the smaller sizes also speaks for what is not there. Shape letters as in `vrn_networks`; R repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medray.learner import seed_of
from medray.nn.sample_dropout import seed_dropout
from medray.nn.weights import load_network
from medray.systems.shoulder.vrn_config import VrnConfig
from medray.systems.shoulder.vrn_learner import network_of
from medray.systems.shoulder.vrn_networks import CamClassifier
from medray.systems.shoulder.vrn_volumes import Cube


@dataclass(frozen=True)
class Finding:
    """Of one cube.

    Attributes:
        probability: (L,), of `vrn_labels.CLASSES`.
        heat: (S, S, S) in [0, 1], for any tear.
        heat_of_class: (S, S, S) in [0, 1], for the predicted class; for any tear where that is none.
        repeats: (R,), the likeliest class of each repetition with dropout.
    """

    probability: NDArray[np.float64]
    heat: NDArray[np.float32]
    heat_of_class: NDArray[np.float32]
    repeats: NDArray[np.int64]

    @property
    def predicted(self) -> int:
        """The likeliest class."""
        return int(self.probability.argmax())

    @property
    def p_tear(self) -> float:
        """1 - P(none)."""
        return float(1 - self.probability[0])

    def shown(self, config: VrnConfig) -> NDArray[np.float32]:
        """The heat map that the config asks for."""
        return self.heat if config.cam == "tear" else self.heat_of_class


def trained_network(config: VrnConfig, weights: Path | None) -> CamClassifier:
    """The network with its weights, in evaluation mode."""
    network = network_of(config)
    if weights is not None:
        load_network(network, weights, prefix="net.")
    return network.eval()


@torch.no_grad()
def look_at(network: CamClassifier, cube: Cube, *, repeats: int, key: str) -> Finding:
    """Classify one cube.

    Args:
        network: in evaluation mode.
        cube: what it sees.
        repeats: R.
        key: decides, with a repetition's number, what its dropout leaves out.
    """
    features = network.trunk(torch.from_numpy(cube.network_input())[None])
    pooled = network.pooled(features)
    probability = network.classify(pooled)[0].double().softmax(dim=0).numpy()
    tears = network.head.weight[1:]
    best = int(probability.argmax())
    rows = torch.stack([tears.sum(dim=0), tears[best - 1] if best else tears.sum(dim=0)])
    heats = network.attention(features.expand(2, *features.shape[1:]), rows, cube.gray.shape).numpy()
    return Finding(probability, heats[0], heats[1], _repeated(network, pooled, repeats, key))


def _repeated(network: CamClassifier, pooled: Tensor, repeats: int, key: str) -> NDArray[np.int64]:
    if not repeats:
        return np.zeros(0, dtype=np.int64)
    network.dropout.train()
    seeds = [seed_of("vrn repeat", key, number) >> 1 for number in range(repeats)]
    seed_dropout(network, torch.tensor(seeds))
    logits = network.classify(pooled.expand(repeats, -1))
    network.dropout.eval()
    return np.asarray(logits.argmax(dim=1).numpy(), dtype=np.int64)
