"""RLlib's PPO learner, fed with episodes that are arrays already, and without its work per step and per parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from medray.policy import PolicyProblem
from medray.rl.batch import Batch, make_batch
from medray.rl.module import ActorCriticModule


class EpisodeLearner(PPOTorchLearner):
    """PPO on complete episodes: clipped surrogate, squared value error, entropy; Adam with L2 penalty.

    What differs from RLlib's own is how the work is done: advantages come from arrays instead of one Python step per
    time step, gradients are checked once per update instead of once per parameter, and terms of the loss are added up
    on the device and read once per round.
    """

    def build(self) -> None:
        """Build networks and optimizer."""
        self.problem: PolicyProblem = self.config.env_config["problem"]
        self.settings = self.problem.settings
        self._terms: dict[str, Tensor] = {}
        self._num_updates = 0
        super().build()

    @property
    def networks(self) -> ActorCriticModule:
        """The module that learns."""
        module: ActorCriticModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        return module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The one of both networks."""
        optimizer: torch.optim.Optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        return optimizer

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam with its coupled weight decay on everything."""
        params = self.get_parameters(self.module[module_id])
        adam = torch.optim.Adam(params, lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=adam, params=params)

    def learn(self, episodes: Sequence[SingleAgentEpisode], *, iteration: int, seed: int) -> dict[str, float]:
        """One round's update.

        Args:
            episodes: complete ones, as arrays.
            iteration: number of the round, from 0; decides the learning rate.
            seed: decides the order of steps.

        Returns:
            means over the round's updates: policy_loss, value_loss, entropy (unit box, nats), kl (nats), clip_fraction,
            grad_norm; and explained_variance of the critic before them, num_updates, learning_rate.

        Raises:
            FloatingPointError: something is not finite; says what. Weights are those of the last finite update.
        """
        torch.default_generator.manual_seed(seed)
        rate = self.settings.lr_at(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.update(episodes=list(episodes))
        num = self._num_updates
        means = {name: float(total) / num for name, total in self._terms.items()}
        return {**means, "explained_variance": self._explained, "num_updates": num, "learning_rate": rate}

    def _create_iterator_if_necessary(self, *, training_data: TrainingData, **_: Any) -> Iterator[MultiAgentBatch]:
        batch = make_batch(training_data.episodes, self.networks, self.settings, self.device)
        self._terms, self._num_updates, self._explained = {}, 0, batch.explained_variance
        return self._passes(batch)

    def _passes(self, batch: Batch) -> Iterator[MultiAgentBatch]:
        for _ in range(self.settings.num_epochs):
            moved, updates = self._terms.get("kl", 0.0), self._num_updates
            for columns in batch.minibatches(self.settings.minibatch_size):
                size = len(columns[Columns.ACTIONS])
                yield MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=size)
            if self.settings.kl_stop > 0:
                kl = float(self._terms["kl"] - moved) / (self._num_updates - updates)
                if kl > self.settings.kl_stop:
                    return

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """The loss of one minibatch.

        Source: Schulman et al., 2017, eq. 7 and 9.
        """
        settings = self.settings
        policy = self.problem.policy(fwd_out[Columns.ACTION_DIST_INPUTS])
        log_ratio = policy.log_prob(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        ratio, gain = log_ratio.exp(), batch[Columns.ADVANTAGES]
        surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - settings.clip, 1 + settings.clip)).mean()
        entropy = policy.entropy().mean()
        value_loss = (self.networks.compute_values(batch) - batch[Columns.VALUE_TARGETS]).square().mean()
        with torch.no_grad():
            before = self.problem.policy(batch[Columns.ACTION_DIST_INPUTS])
            self._add(
                policy_loss=-surrogate,
                value_loss=value_loss,
                entropy=entropy,
                kl=before.kl(policy).mean(),
                clip_fraction=((ratio - 1).abs() > settings.clip).float().mean(),
            )
        return settings.value_coeff * value_loss - surrogate - settings.entropy_coeff * entropy

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Check, clip and move both networks."""
        gradients = [gradient for gradient in gradients_dict.values() if gradient is not None]
        norm = get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise FloatingPointError("the loss or its gradient")
        if self.settings.max_grad_norm > 0:
            clip_grads_with_norm_(self.networks.parameters(), self.settings.max_grad_norm, norm)
        self._add(grad_norm=norm)
        self._num_updates += 1
        self.optimizer.step()

    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """Nothing: `apply_gradients` clips."""
        return gradients_dict

    def _add(self, **terms: Tensor) -> None:
        for name, value in terms.items():
            value = value.detach()
            self._terms[name] = self._terms[name] + value if name in self._terms else value

    def _log_metrics(self, batch: MultiAgentBatch) -> None:
        """Nothing per minibatch: `learn` returns what there is."""

    def _log_steps_trained_metrics(self, batch: MultiAgentBatch) -> None:
        """As above."""

    def snapshot(self) -> dict[str, Any]:
        """Weights by name and the optimizer's state, on the CPU; on the CPU they are what it goes on working with."""
        optimizer = self.optimizer.state_dict()
        state = {number: _on_cpu(entries) for number, entries in optimizer["state"].items()}
        return {"weights": _on_cpu(self.networks.state_dict()), "optimizer": {**optimizer, "state": state}}

    def restore(self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None = None) -> None:
        """Take weights, and the optimizer's state unless it starts anew."""
        self.networks.load_state_dict(weights)
        if optimizer is not None:
            self.optimizer.load_state_dict(dict(optimizer))

    def actor_weights(self) -> dict[str, Any]:
        """What env runners need, as arrays."""
        state: dict[str, Any] = self.networks.get_state(inference_only=True)
        return state


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
