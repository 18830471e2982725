"""The networks of a `PolicyProblem` as an RLlib module: an actor for everybody, a critic where there is learning."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from medray.policy import PolicyProblem
from medray.rl.distributions import BoundedDistribution


class ActorCriticModule(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """``model_config`` is ``{"problem": PolicyProblem}``. Weights are named ``actor.*`` and ``critic.*``."""

    def setup(self) -> None:
        """Build the networks; env runners never build the critic."""
        problem: PolicyProblem = self.model_config["problem"]
        self.action_dist_cls = BoundedDistribution.for_policy(problem.policy)
        self.actor = problem.make_actor()
        if not self.inference_only:
            self.critic = problem.make_critic()

    def get_non_inference_attributes(self) -> list[str]:
        """What env runners do without."""
        return ["critic"]

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self.actor(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """The critic's values (B,)."""
        values: Tensor = self.critic(batch[Columns.OBS])
        return values


def module_spec(problem: PolicyProblem) -> RLModuleSpec:
    """How RLlib builds the module, anywhere."""
    return RLModuleSpec(
        module_class=ActorCriticModule,
        observation_space=problem.observation_space,
        action_space=problem.action_space,
        model_config={"problem": problem},
    )
