import pickle
from typing import Any

import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from toy_policies import ChaseProblem

from medray.rl.distributions import BoundedDistribution
from medray.rl.module import ActorCriticModule, module_spec


@pytest.fixture
def module() -> ActorCriticModule:
    return module_spec(ChaseProblem()).build()


def batch(secret: float) -> dict[str, Any]:
    views = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    return {Columns.OBS: {"views": views, "centreline": torch.full((3, 1, 5, 5), secret)}}


def test_what_only_the_critic_sees_changes_values_and_no_bit_of_the_policy(module: ActorCriticModule):
    one, other = (module.forward_inference(batch(secret))[Columns.ACTION_DIST_INPUTS] for secret in (0.0, 1.0))
    assert torch.equal(one, other)
    assert (module.compute_values(batch(0.0)) != module.compute_values(batch(1.0))).all()


def test_env_runners_never_build_the_critic(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: ChaseProblem) -> torch.nn.Module:
        raise AssertionError("the critic was built")

    monkeypatch.setattr(ChaseProblem, "make_critic", refuse)
    spec = module_spec(ChaseProblem())
    spec.inference_only = True
    assert not hasattr(spec.build(), "critic")
    with pytest.raises(AssertionError, match="was built"):
        module_spec(ChaseProblem()).build()


def test_weights_for_env_runners_are_the_actors(module: ActorCriticModule):
    names = module.get_state(inference_only=True)
    assert names
    assert all(name.startswith("actor.") for name in names)


def test_the_specification_is_picklable():
    spec: RLModuleSpec = pickle.loads(pickle.dumps(module_spec(ChaseProblem())))
    assert isinstance(spec.build(), ActorCriticModule)


def test_rllib_gets_the_bounded_policy_from_logits(module: ActorCriticModule):
    logits = torch.tensor([[0.0, 2.0, 0.0, 0.5]])
    made = module.get_exploration_action_dist_cls().from_logits(logits)
    policy = ChaseProblem().policy(logits)
    assert isinstance(made, BoundedDistribution)
    assert torch.equal(made.to_deterministic().sample(), policy.deterministic)
    actions = torch.tensor([[1.0, -2.0]])
    assert torch.equal(made.logp(actions), policy.log_prob(actions))
    assert torch.equal(made.entropy(), policy.entropy())
    assert made.kl(made).item() == pytest.approx(0, abs=1e-6)
    assert made.required_input_dim(ChaseProblem().action_space) == 4
