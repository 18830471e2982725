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
from medray.rl.batch import Batch, in_parts, make_batch
from medray.rl.module import ActorCriticModule
from medray.rl.precision import bf16

_PART = 256
"""Steps that go through the networks at once on a CPU, whose caches larger parts overrun (20 % slower at 2048)."""


class EpisodeLearner(PPOTorchLearner):
    """PPO on complete episodes: clipped surrogate, squared value error, entropy; Adam with L2 penalty.

    What differs from RLlib's own is how the work is done: advantages come from arrays instead of one Python step per
    time step, gradients are checked once per update instead of once per parameter, and terms of the loss are added up
    on the device and read once per round. Large minibatches go through the networks in parts.
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
        return {**self._means(), "learning_rate": rate}

    def _means(self) -> dict[str, float]:
        num = self._num_updates
        means = {name: float(total) / num for name, total in self._terms.items()}
        return {**means, "explained_variance": self._explained, "num_updates": num}

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Tell RLlib's `Algorithm` too how it went."""
        self.metrics.log_dict(self._means(), key=DEFAULT_MODULE_ID, window=1)

    def _create_iterator_if_necessary(self, *, training_data: TrainingData, **_: Any) -> Iterator[MultiAgentBatch]:
        with bf16(self.device.type, self.config.env_config["precision"]):
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

    def _uncompiled_update(self, batch: Mapping[str, Any], **_: Any) -> tuple[Any, Any, Any]:
        columns: dict[str, Any] = dict(batch[DEFAULT_MODULE_ID])
        total = len(columns[Columns.ACTIONS])
        self.optimizer.zero_grad(set_to_none=True)
        for part in in_parts(columns, _PART if self.device.type == "cpu" else total):
            with bf16(self.device.type, self.config.env_config["precision"]):
                forward = self.networks.forward_train(part)
                values = self.networks.compute_values(part)
            self._loss(part, forward[Columns.ACTION_DIST_INPUTS].float(), values.float(), total).backward()
        self._step()
        return forward, {DEFAULT_MODULE_ID: self._terms["policy_loss"]}, {}

    def _loss(self, columns: Mapping[str, Any], logits: Tensor, values: Tensor, total: int) -> Tensor:
        """A part's share of the loss of a minibatch of ``total`` steps.

        Source: Schulman et al., 2017, eq. 7 and 9.
        """
        settings = self.settings
        policy, gain = self.problem.policy(logits), columns[Columns.ADVANTAGES]
        log_ratio = policy.log_prob(columns[Columns.ACTIONS]) - columns[Columns.ACTION_LOGP]
        ratio = log_ratio.exp()
        surrogate = torch.min(gain * ratio, gain * ratio.clamp(1 - settings.clip, 1 + settings.clip)).sum() / total
        entropy = policy.entropy().sum() / total
        value_loss = (values - columns[Columns.VALUE_TARGETS]).square().sum() / total
        with torch.no_grad():
            before = self.problem.policy(columns[Columns.ACTION_DIST_INPUTS])
            self._add(
                policy_loss=-surrogate,
                value_loss=value_loss,
                entropy=entropy,
                kl=before.kl(policy).sum() / total,
                clip_fraction=((ratio - 1).abs() > settings.clip).sum() / total,
            )
        return settings.value_coeff * value_loss - surrogate - settings.entropy_coeff * entropy

    def _step(self) -> None:
        """Check and clip the gradients, move both networks."""
        parameters = [parameter for parameter in self.networks.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters])
        if not torch.isfinite(norm):
            raise FloatingPointError("the loss or its gradient")
        if self.settings.max_grad_norm > 0:
            clip_grads_with_norm_(parameters, self.settings.max_grad_norm, norm)
        self._add(grad_norm=norm)
        self._num_updates += 1
        self.optimizer.step()

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
            for group in self.optimizer.param_groups:  # another may be configured: population-based training
                group["weight_decay"] = self.settings.weight_decay

    def actor_weights(self) -> dict[str, Any]:
        """What env runners need, as arrays."""
        state: dict[str, Any] = self.networks.get_state(inference_only=True)
        return state


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}
