"""M-VAAL's sampler: latents of all images, and a critic that tells labelled ones. Khanal et al., MIUA 2023, sec. 2.2.

A beta-VAE encodes the main modality and reconstructs it and, by a second decoder, the auxiliary one. A Wasserstein
critic on its latents learns to score labelled images high and unlabelled ones low, while the VAE learns to hide the
difference; the unlabelled images with the lowest scores are asked for. Without the second decoder (gamma_3 = 0) it is
VAAL (Sinha et al., ICCV 2019), with everything else equal.

Departs from the text: eqs. 1-3 are printed as they are maximised and minimised here; eq. 5's mixes are of latents,
since that is what the critic takes (printed: of images); and labelled and unlabelled images pass encoder and critic in
one batch, the critic's output has no batch norm and the penalty uses its running statistics, since batch norm centers
what passes together: fed apart, both kinds would have the same mean score at every layer.
Chosen here, since the text does not say: Adam, an epoch that is one pass over the unlabelled images with the labelled
ones cycled beside them, and the balance of the terms (``kl_reduction``).
Shape letters: B pairs of a labelled and an unlabelled image, N images, H rows, W columns, Z latents.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from medray.active.sampler import Ranking, Sampler, SamplingRound, smallest
from medray.active.task import Task
from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.data.modalities import AUXILIARY, MAIN, ModalReader
from medray.errors import UserError
from medray.learner import Learner, Schedule, Step, SumCount, seed_of
from medray.nn.weights import load_network
from medray.storage import StorageError
from medray.system import FitResult, Workbench
from medray.systems.active_learning.mvaal_networks import Coded, Critic, TwoDecoderVae
from medray.systems.active_learning.mvaal_settings import MvaalSettings

FIELDS = (MAIN, AUXILIARY)
"""Modalities m1 and m2, in the order of the decoders."""
_RANKED_AT_ONCE = 32
_REVERSED = (
    "the critic scores labelled images no higher than unlabelled ones, so its picks mean little; the VAE hides the "
    "difference faster than the critic finds it: lower gamma_1 or raise critic_steps"
)
_NORMALIZED_BY = 256
"""Images that the pool's mean and deviation are taken from, at most."""


# --- the losses, in the form that is minimised -------------------------------------------------------------------


def reconstruction_error(made: Tensor, wanted: Tensor) -> Tensor:
    """-log p(x|z) of eqs. 1 and 2 up to constants, for each image: mean squared error over its values, (N,)."""
    return (made.float() - wanted).square().flatten(1).mean(1)


def kl_to_prior(z_mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) of eq. 3 for each image, summed over latents, (N,), nats."""
    return 0.5 * (z_mu.square() + log_variance.exp() - log_variance - 1).sum(1)


def fooling_loss(scores: Tensor, kind: str = "wgan_gp") -> Tensor:
    """Eq. 4 for each pair, (B,): the VAE lowers D of labelled images and raises D of unlabelled ones.

    Args:
        scores: (2 B,), labelled images first.
        kind: ``wgan_gp``, or ``bce``: the VAE has both taken for labelled (VAAL, eq. 2).
    """
    labelled, unlabelled = scores.chunk(2)
    if kind == "bce":
        return F.softplus(-labelled) + F.softplus(-unlabelled)
    return labelled - unlabelled


def telling_loss(scores: Tensor, kind: str = "wgan_gp") -> Tensor:
    """The first two terms of eq. 5 for each pair, (B,): the critic raises labelled and lowers unlabelled images.

    Args:
        scores: (2 B,), labelled images first.
        kind: ``wgan_gp``, or ``bce`` (VAAL, eq. 3).
    """
    labelled, unlabelled = scores.chunk(2)
    if kind == "bce":
        return F.softplus(-labelled) + F.softplus(unlabelled)
    return unlabelled - labelled


def penalty(critic: nn.Module, latents: Tensor, mix: Tensor) -> Tensor:
    """The last term of eq. 5 without lambda, for each pair, (B,).

    Args:
        critic: with its running statistics: a batch norm that looks at the batch has no gradient of one sample.
        latents: (2 B, Z), labelled images first.
        mix: epsilon of each pair, in [0, 1], (B, 1).
    """
    labelled, unlabelled = latents.chunk(2)
    between = (mix * labelled + (1 - mix) * unlabelled).requires_grad_(True)
    with _evaluating(critic), torch.compiler.set_stance("force_eager"):  # compiled code cannot be derived twice
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((slope.square().sum(1) + 1e-12).sqrt() - 1).square()  # where the slope is 0, its length has no gradient


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


# --- training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairBatch:
    """B labelled images, and after them B unlabelled ones.

    Attributes:
        images: main and, where it is learnt, auxiliary modality, (2 B, 1, H, W) each, in [0, 1].
        noise: standard normal, (updates, 2 B, Z): for each update of the VAE, then of the critic.
        mix: epsilon of eq. 5 for each update of the critic, (updates, B, 1).
    """

    images: tuple[Tensor, ...]
    noise: Tensor
    mix: Tensor


class MvaalLearner(Learner):
    """VAE against critic (algorithm 1, without line 7). A sample is an unlabelled image and a labelled one beside it.

    Args:
        settings: the method's.
        labelled: cases with the fields ``image`` and, unless gamma_3 is 0, ``auxiliary``; no label is looked at.
        unlabelled: likewise.
        cache: keeps what was decoded.

    Raises:
        UserError: there is nothing to tell apart, or an auxiliary image is missing.
    """

    def __init__(
        self,
        settings: MvaalSettings,
        labelled: Sequence[Case],
        unlabelled: Sequence[Case],
        cache: SampleCache | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.labelled, self.unlabelled = settings, labelled, unlabelled
        self.fields = FIELDS if settings.gamma_3 else FIELDS[:1]
        self._check()
        self.read = reader(settings, cache)
        self.read.read_ahead([*labelled, *unlabelled], self.fields)
        self.networks = build(settings)
        for modality, field in enumerate(self.fields):
            numbers = field_statistics(self.read, [*labelled, *unlabelled], field)
            self.networks["vae"].statistics[modality] = torch.tensor(numbers)  # type: ignore[operator]
        self.schedule = Schedule(
            num_epochs=settings.sampler_epochs, batch_size=settings.sampler_batch_size, validate_every_epochs=0
        )  # fmt: skip
        self._beside: dict[int, int] = {}

    def _check(self) -> None:
        if not self.labelled or not self.unlabelled:
            raise UserError(
                f"the sampler compares labelled with unlabelled cases and wants at least one of each, got "
                f"{len(self.labelled)} and {len(self.unlabelled)}"
            )
        for case in (*self.labelled, *self.unlabelled):
            for field in self.fields:
                if field not in case.fields:
                    hint = "; leave it out with gamma_3 = 0 (sampler vaal)" if field == AUXILIARY else ""
                    raise UserError(f"case {case.id} has no field {field!r}, which the sampler learns from{hint}")

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Adam for the VAE and for the critic; fused, which on CPUs takes a fifth of the time."""
        vae, critic = self.networks["vae"], self.networks["critic"]
        assert isinstance(vae, TwoDecoderVae)
        return {
            "vae": Adam(vae.parameter_groups(self.settings.lr_vae), fused=True),
            "critic": Adam(critic.parameters(), lr=self.settings.lr_critic, fused=True),
        }

    def num_samples(self) -> int:
        """Unlabelled images."""
        return len(self.unlabelled)

    def sample_name(self, index: int) -> str:
        """Id of the unlabelled case and of the labelled one beside it."""
        beside = self._beside.get(index)
        return self.unlabelled[index].id + ("" if beside is None else f" (beside {self.labelled[beside].id})")

    def begin_epoch(self, epoch: int) -> None:
        """Lay the labelled images, permuted anew, beside the unlabelled ones again and again in the epoch's order."""
        generator = torch.Generator().manual_seed(seed_of("beside", self.seed, epoch))
        cycle = torch.randperm(len(self.labelled), generator=generator).tolist()
        places = enumerate(self.order(epoch, self.seed))
        self._beside = {index: cycle[place % len(cycle)] for place, index in places}

    def collate(self, indices: Sequence[int], epoch: int) -> PairBatch:
        """Images of the pairs, and all noise that a step needs."""
        settings, generators = self.settings, [self.sample_generator(index, epoch) for index in indices]
        cases = [self.labelled[self._beside[i]] for i in indices] + [self.unlabelled[i] for i in indices]
        updates = settings.vae_steps + settings.critic_steps
        noise = torch.stack([torch.randn(updates, 2, settings.latent, generator=g) for g in generators], dim=2)
        mix = torch.stack([torch.rand(settings.critic_steps, 1, generator=g) for g in generators], dim=1)
        images = tuple(stacked(self.read, cases, field) for field in self.fields)
        return PairBatch(images, noise.flatten(1, 2), mix)

    def training_step(self, batch: PairBatch, step: Step) -> Mapping[str, SumCount]:
        """Lines 4 to 6 of algorithm 1. The critic takes the latents that the VAE's last pass gave."""
        measured: dict[str, SumCount] = {}
        for noise in batch.noise[: self.settings.vae_steps]:
            coded, terms = self._move_vae(batch, noise, step)
            measured.update(terms)
        for noise, mix in zip(batch.noise[self.settings.vae_steps :], batch.mix, strict=True):
            latents = coded.latent(self.settings.critic_sees, noise).detach()
            measured.update(self._move_critic(latents, mix, step))
        return measured

    def _move_vae(self, batch: PairBatch, noise: Tensor, step: Step) -> tuple[Coded, dict[str, SumCount]]:
        settings, vae, critic = self.settings, self.networks["vae"], self.networks["critic"]
        assert isinstance(vae, TwoDecoderVae)
        pairs = len(noise) // 2
        critic.requires_grad_(False)
        with step.autocast():
            coded: Coded = vae(batch.images[0], noise)
            scores = critic(coded.latent(settings.critic_sees, noise))
        critic.requires_grad_(True)
        adversarial = fooling_loss(scores.float(), settings.adversarial).sum()  # eq. 4
        errors = [  # eqs. 1 and 2
            reconstruction_error(made, vae.normalized(images, modality)).sum()
            for modality, (made, images) in enumerate(zip(coded.made, batch.images, strict=True))
        ]
        divergence = kl_to_prior(coded.z_mu, coded.log_variance).sum()  # eq. 3
        loss = settings.gamma_1 * adversarial + settings.kl_factor * divergence  # line 4 of algorithm 1
        for gamma, error in zip((settings.gamma_2, settings.gamma_3), errors, strict=False):
            loss = loss + gamma * error
        step.backward(step.mean(loss, pairs))
        step.update("vae")
        terms = {"vae_loss": SumCount(loss.detach(), pairs), "adversarial": SumCount(adversarial.detach(), pairs)}
        for field, error in zip(self.fields, errors, strict=True):
            terms[f"{field}_error"] = SumCount(error.detach(), 2 * pairs)
        return coded, {**terms, "kl": SumCount(divergence.detach(), 2 * pairs)}

    def _move_critic(self, latents: Tensor, mix: Tensor, step: Step) -> dict[str, SumCount]:
        settings, critic, pairs = self.settings, self.networks["critic"], len(mix)
        with step.autocast():
            scores = critic(latents)
        told = telling_loss(scores.float(), settings.adversarial).sum()  # eq. 5
        terms = {"critic_loss": SumCount(told.detach(), pairs)}
        if settings.adversarial == "wgan_gp":
            length = penalty(critic, latents, mix).sum()
            told = told + settings.gradient_penalty * length
            terms["penalty"] = SumCount(length.detach(), pairs)
        step.backward(step.mean(told, pairs))
        step.update("critic")
        return terms


def build(settings: MvaalSettings) -> nn.ModuleDict:
    """The networks that the learner trains and the sampler ranks with."""
    vae = TwoDecoderVae(
        settings.sampler_size,
        settings.channels,
        settings.latent,
        gray_channels=settings.gray_channels,
        num_decoders=2 if settings.gamma_3 else 1,
        decode=settings.decode,
    )
    critic = Critic(
        settings.latent, settings.critic_channels, norm=settings.critic_norm, sigmoid=settings.sigmoid_critic
    )
    return nn.ModuleDict({"vae": vae, "critic": critic})


def reader(settings: MvaalSettings, cache: SampleCache | None) -> ModalReader:
    """Reads images as the networks take them."""
    return ModalReader(settings.sampler_size, crop=settings.sampler_crop or None, cache=cache)


def stacked(read: ModalReader, cases: Iterable[Case], field: str) -> Tensor:
    """A field of some cases, (N, 1, H, W)."""
    return torch.from_numpy(np.stack([read.image(case, field) for case in cases]))


def field_statistics(read: ModalReader, cases: Sequence[Case], field: str) -> tuple[float, float]:
    """Mean and standard deviation over pixels of a field, of cases spread over the pool; those unreadable left out."""
    total, squares, count = 0.0, 0.0, 0
    for case in cases[:: -(-len(cases) // _NORMALIZED_BY)]:
        try:
            values = read.image(case, field).astype(np.float64)
        except StorageError:  # of another try it may not be one
            raise
        except UserError:
            continue
        total, squares, count = total + values.sum(), squares + np.square(values).sum(), count + values.size
    mean = total / max(count, 1)
    return float(mean), float(max(squares / max(count, 1) - mean**2, 1e-6) ** 0.5)


# --- sampling ----------------------------------------------------------------------------------------------------


class MvaalSampler(Sampler):
    """Asks for the unlabelled images with the lowest scores (algorithm 1, sampling phase)."""

    def __init__(self, settings: MvaalSettings) -> None:
        self.settings = settings

    def train(self, work: Workbench, view: SamplingRound) -> FitResult | None:
        """Train VAE and critic from scratch on all images; nothing where no image is left to ask for."""
        if not view.unlabelled:
            return None
        make = functools.partial(MvaalLearner, self.settings, view.labelled, view.unlabelled, work.cache)
        return work.fit(make, name=f"sampler-{view.number:03d}")

    def rank(
        self, work: Workbench, view: SamplingRound, *, weights: Path | None, task: Task, task_weights: Path | None
    ) -> Ranking:
        """Rank by D of the posterior mean. One batch of images is in memory at a time."""
        if not view.unlabelled:
            return Ranking(())
        networks, read = self.trained(work, weights)
        picks, scores = smallest(view.unlabelled, critic_scores(networks, read, view.unlabelled), view.budget)
        labelled = np.fromiter(critic_scores(networks, read, view.labelled), np.float32, len(view.labelled))
        metrics = {"score_unlabelled": float(scores.mean()), "score_labelled": float(labelled.mean())}
        return Ranking(picks, scores, labelled, metrics, "" if labelled.mean() > scores.mean() else _REVERSED)

    def trained(self, work: Workbench, weights: Path | None) -> tuple[nn.ModuleDict, ModalReader]:
        """What `train` left, ready to rank with, and the reader of its images."""
        if weights is None:
            raise ValueError("this sampler ranks with what its training left; got no weights")
        return load(self.settings, weights), reader(self.settings, work.cache)


def load(settings: MvaalSettings, weights: Path) -> nn.ModuleDict:
    """Trained networks, ready to rank with.

    Raises:
        UserError: the weights are missing, or of other settings.
    """
    networks = build(settings)
    for name, network in networks.items():
        load_network(network, weights, prefix=f"{name}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return networks.to(device).eval().requires_grad_(False)


def latent_means(networks: nn.ModuleDict, read: ModalReader, cases: Sequence[Case]) -> Iterator[Tensor]:
    """Posterior means z_mu of some cases, (N, Z), a batch at a time; the networks are those of `load`."""
    vae = networks["vae"]
    assert isinstance(vae, TwoDecoderVae)
    for start in range(0, len(cases), _RANKED_AT_ONCE):
        yield vae.encode(stacked(read, cases[start : start + _RANKED_AT_ONCE], MAIN).to(vae.statistics.device))[0]


def critic_scores(networks: nn.ModuleDict, read: ModalReader, cases: Sequence[Case]) -> Iterator[float]:
    """D(z_mu) of each case."""
    for latents in latent_means(networks, read, cases):
        yield from networks["critic"](latents).tolist()
