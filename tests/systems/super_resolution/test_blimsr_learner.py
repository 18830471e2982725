import pytest
import torch

from medray.data.phantoms import thorax_ct
from medray.errors import UserError
from medray.learner import Step, seed_of
from medray.systems.super_resolution.blimsr_config import VARIANTS, BlimsrConfig
from medray.systems.super_resolution.blimsr_learner import BlimsrLearner, Crops
from medray.systems.super_resolution.degradation import DegradationSettings, degrade, draw_plan
from medray.systems.super_resolution.scores import image_scores

TINY = {"crop_px": 32, "num_blocks": 2, "num_channels": 8, "num_groups": 1, "disc_channels": 4, "batch_size": 4,
        "perceptual": "random", "lr": 2e-3, "degradation_strength": 0.3}  # fmt: skip


@pytest.fixture(scope="module")
def cases():
    return thorax_ct.cases(n=4, slices=1, size=64)


def make_learner(cases, **fields):
    torch.manual_seed(0)
    return BlimsrLearner(BlimsrConfig(**TINY | fields), cases[:3], cases[3:])


def trained(learner, num_epochs, first=0):
    optimizers, found = learner.configure_optimizers(), []
    for epoch in range(first, num_epochs):
        batch = learner.collate(learner.order(epoch, seed=0), epoch)
        found.append(learner.training_step(batch, Step(optimizers, epoch=epoch)))
    return found


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_a_tiny_set_is_learnt(cases):
    found = trained(make_learner(cases, crops_per_image=2), 40)
    content = [one["content_loss"].mean for one in found]
    assert sum(content[-5:]) < 0.5 * sum(content[:5])
    assert set(found[0]) == {"content_loss", "gradient_loss", "dissimilarity_loss", "perceptual_loss",
                             "adversarial_loss", "generator_loss", "discriminator_loss"}  # fmt: skip


def test_the_generators_loss_is_the_weighted_sum_of_its_terms(cases):
    weights = {"perc": 2.0, "adv": 3.0, "cont": 5.0, "grad": 7.0, "dssim": 11.0}
    found = trained(make_learner(cases, **{f"lambda_{name}": weight for name, weight in weights.items()}), 1)[0]
    names = ("perceptual_loss", "adversarial_loss", "content_loss", "gradient_loss", "dissimilarity_loss")
    expected = sum(weight * found[name].mean for name, weight in zip(names, weights.values(), strict=True))
    assert found["generator_loss"].mean == pytest.approx(expected, rel=1e-5)
    assert found["generator_loss"].count == 3


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "bicubic"])
def test_every_variant_takes_a_step(cases, name):
    learner = make_learner(cases, **VARIANTS[name].config)
    before = {key: weights_of(network) for key, network in learner.networks.items()}
    trained(learner, 1)
    for key, network in learner.networks.items():
        assert not torch.equal(before[key], weights_of(network)), key


def test_bicubic_has_nothing_to_learn(cases):
    learner = make_learner(cases, generator="bicubic")
    assert learner.schedule.num_epochs == 0
    assert learner.configure_optimizers() == {}
    assert list(learner.networks) == ["generator"]


def gradient_of_first_step(cases, **fields):
    learner = make_learner(cases, lambda_perc=0.0, lambda_adv=0.0, **fields)
    kept = []

    class Kept(Step):
        def update(self, name, *, max_norm=None):
            kept.append(torch.cat([p.grad.flatten() for p in learner.networks[name].parameters()]))

    learner.training_step(learner.collate([0, 1], 0), Kept(learner.configure_optimizers()))
    return kept[0]


def test_structure_losses_steer_the_generator_unless_they_are_detached(cases):
    content = gradient_of_first_step(cases, lambda_grad=0.0, lambda_dssim=0.0)
    assert torch.equal(gradient_of_first_step(cases, detached_structure_losses=True), content)
    for name in ("lambda_grad", "lambda_dssim"):
        alone = {"lambda_grad": 0.0, "lambda_dssim": 0.0} | {name: 1.0}
        assert not torch.allclose(gradient_of_first_step(cases, **alone), content)


def test_the_warm_up_has_the_content_loss_alone_and_leaves_the_discriminator(cases):
    learner = make_learner(cases, warmup_epochs=2, lambda_cont=0.0)
    judge = weights_of(learner.networks["discriminator"])
    for found in trained(learner, 2):
        assert set(found) == {"content_loss", "gradient_loss", "dissimilarity_loss", "generator_loss"}
        assert found["generator_loss"].mean == found["content_loss"].mean
    assert torch.equal(judge, weights_of(learner.networks["discriminator"]))
    assert "discriminator_loss" in trained(learner, 3, first=2)[0]


def test_the_generators_step_leaves_no_gradient_in_the_discriminator(cases):
    learner = make_learner(cases)
    order = []

    class Watched(Step):
        def update(self, name, *, max_norm=None):
            order.append(name)
            if name == "generator":
                assert all(p.grad is None for p in learner.networks["discriminator"].parameters())
            super().update(name, max_norm=max_norm)

    learner.training_step(learner.collate([0, 1], 0), Watched(learner.configure_optimizers()))
    assert order == ["generator", "discriminator"]


def test_a_sample_is_the_same_in_any_batch_and_another_in_every_epoch(cases):
    learner = make_learner(cases)
    together, alone, later = learner.collate([0, 1, 2], 3), learner.collate([1], 3), learner.collate([1], 4)
    assert together.high.shape == (3, 1, 32, 32)
    assert torch.equal(together.high[1], alone.high[0])
    low = degrade(together.high, together.plans)
    torch.testing.assert_close(low[1], degrade(alone.high, alone.plans)[0])
    assert not torch.equal(low[1], degrade(later.high, later.plans)[0])


def test_crops_are_parts_of_the_image_in_all_eight_positions(cases):
    learner = make_learner(cases, crop_px=64)
    image = learner.read.image(cases[0])
    ways = [turned.rot90(turns, (1, 2)) for turned in (image, image.flip(2)) for turns in range(4)]
    seen = set()
    for epoch in range(60):
        crop = learner.collate([0], epoch).high[0]
        seen |= {number for number, way in enumerate(ways) if torch.equal(way, crop)}
    assert seen == set(range(8))


def test_crops_of_one_image_differ(cases):
    learner = make_learner(cases, crops_per_image=2)
    assert learner.num_samples() == 6
    assert learner.sample_name(3) == cases[1].id
    first, second = learner.collate([2, 3], 0).high
    assert not torch.equal(first, second)


def test_an_image_smaller_than_a_crop_is_refused_by_name(cases):
    with pytest.raises(UserError, match=f"{cases[0].id}: the image of 64 x 64 pixels is smaller than .* 128"):
        make_learner(cases, crop_px=128).collate([0], 0)


def test_a_batch_on_two_workers_moves_the_weights_as_on_one(cases):
    """Workers give their sums and counts; gradients are added."""

    def gradients(parts):
        learner = make_learner(cases, lambda_adv=0.0)
        batch = learner.collate([0, 1, 2], 0)
        found = []

        class Part(Step):
            def mean(self, total, count):
                return total / 3  # of both workers

            def update(self, name, *, max_norm=None):
                found.append([p.grad.clone() for p in learner.networks[name].parameters()])
                self.optimizers[name].zero_grad()

        for part in parts:
            learner.training_step(Crops(batch.high[part], batch.plans[part]), Part(learner.configure_optimizers()))
        return [sum(ones) for ones in zip(*found, strict=True)]

    one, two = gradients([slice(0, 3)]), gradients([slice(0, 2), slice(2, 3)])
    for mine, other in zip(one, two, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


def test_validation_sees_the_same_degradation_every_time_and_whole_images(cases):
    learner = make_learner(cases)
    learner.networks.eval()
    with torch.no_grad():
        first, second = learner.validation_step(0), learner.validation_step(0)
    assert first == second
    assert set(first) == {"psnr_db", "ssim", "perceptual_distance"}
    high = learner.read.image(cases[3])
    generator = torch.Generator().manual_seed(seed_of("blimsr validation", 0))
    plan = draw_plan(DegradationSettings(strength=0.3), (64, 64), generator)
    with torch.no_grad():
        enlarged = learner.networks["generator"](degrade(high[None], [plan])).clamp(0, 1)[0]
    assert first["ssim"].mean == pytest.approx(image_scores(enlarged, high, None)["ssim"])


def test_the_best_ssim_is_kept_where_there_is_validation(cases):
    assert make_learner(cases).schedule.monitor == "ssim"
    assert BlimsrLearner(BlimsrConfig(**TINY), cases, []).schedule.monitor is None


def test_epochs_of_the_warm_up_do_not_compete_for_the_best(cases):
    def validated(**fields):
        learner, found = make_learner(cases, **fields), []
        for epoch in range(fields["num_epochs"]):
            learner.begin_epoch(epoch)
            found.append(learner.num_validation_samples())
        return found

    assert validated(num_epochs=4, warmup_epochs=2) == [0, 0, 1, 1]
    assert validated(num_epochs=2, warmup_epochs=2) == [
        1,
        1,
    ]  # nothing but the content loss: nothing to confuse it with


def test_scores_have_vif_from_41_pixels_on_and_a_distance_where_there_are_features(cases):
    learner = make_learner(cases)
    image = learner.read.image(cases[0])
    equal = image_scores(image, image, learner.features)
    assert equal["psnr_db"] == float("inf")
    assert equal["ssim"] == pytest.approx(1)
    assert equal["vif"] == pytest.approx(1, abs=1e-6)
    assert equal["perceptual_distance"] == pytest.approx(0, abs=1e-6)
    small = image[:, :40, :40]
    assert set(image_scores(small, small, None)) == {"psnr_db", "ssim"}
