"""The whole degradation: what is drawn how often, what it depends on, and what it does to an image."""

import math
import pickle
from collections import Counter

import pytest
import torch
from scipy.special import j1

from medray.engine.nested import map_tensors
from medray.errors import UserError
from medray.systems.super_resolution.degradation import DegradationSettings, Plan, degrade, draw_plan
from medray.systems.super_resolution.degradation_settings import KERNEL_SIZES, ROUNDS
from medray.systems.super_resolution.degradation_steps import Filter, GaussianNoise, Jpeg, PoissonNoise, Resize, Stretch

KINDS = tuple(ROUNDS)
NUM_PLANS = 2000
FIRST_BLUR, FIRST_SIZE, FIRST_GAUSSIAN, FIRST_POISSON, FIRST_JPEG = range(5)  # places in a plan's steps; 5 is empty
SECOND_BLUR, SECOND_SIZE, SECOND_GAUSSIAN, SECOND_POISSON, FORMER, LATTER = range(6, 12)


def plans_of(kind: str, size: tuple[int, int], number: int, seed: int = 0, strength: float = 1.0) -> list[Plan]:
    generator = torch.Generator().manual_seed(seed)
    return [draw_plan(DegradationSettings(kind=kind, strength=strength), size, generator) for _ in range(number)]


def picture(height: int, width: int, number: int = 1) -> torch.Tensor:
    """Disks and thin stripes in [0, 1], (number, 1, height, width)."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    disk = ((x - width / 2) ** 2 + (y - height / 3) ** 2 < (height / 4) ** 2).float()
    stripes = (torch.sin(x / 2.2 + y / 5) > 0.6).float()
    return (0.1 + 0.5 * disk + 0.3 * stripes).expand(number, 1, height, width)


@pytest.fixture(scope="module")
def blind() -> list[Plan]:
    return plans_of("blind", (512, 512), NUM_PLANS)


@pytest.fixture(scope="module")
def released() -> list[Plan]:
    return plans_of("released", (512, 512), 500)


def assert_share(count: int, number: int, probability: float) -> None:
    """Within 4 standard deviations of the binomial distribution: 1 wrong alarm in 16,000, and the seed is fixed."""
    assert abs(count / number - probability) < 4 * math.sqrt(probability * (1 - probability) / number), count


@pytest.mark.parametrize(
    ("place", "probability"),
    [(FIRST_GAUSSIAN, 0.5), (FIRST_POISSON, 0.5), (SECOND_GAUSSIAN, 0.5), (SECOND_POISSON, 0.5), (FIRST_JPEG, 0.3)],
)
def test_steps_are_drawn_as_often_as_the_paper_says(blind, place, probability):
    assert_share(sum(plan.steps[place] is not None for plan in blind), NUM_PLANS, probability)


def test_the_two_noises_do_not_know_of_one_another(blind):
    both = sum(plan.steps[FIRST_GAUSSIAN] is not None and plan.steps[FIRST_POISSON] is not None for plan in blind)
    assert_share(both, NUM_PLANS, 0.25)


def test_jpeg_and_sinc_come_each_with_their_probability_and_in_either_order(blind):
    ends = Counter(tuple(type(plan.steps[place]) for place in (FORMER, LATTER)) for plan in blind)
    jpeg_first, sinc_first = ends[Jpeg, Filter], ends[Filter, Jpeg]
    assert_share(sum(count for end, count in ends.items() if Jpeg in end), NUM_PLANS, 0.3)
    assert_share(sum(count for end, count in ends.items() if Filter in end), NUM_PLANS, 0.3)
    assert_share(jpeg_first, jpeg_first + sinc_first, 0.5)


def test_blur_is_isotropic_in_seven_of_ten(blind):
    kernels = [plan.steps[place].kernel for plan in blind for place in (FIRST_BLUR, SECOND_BLUR)]
    isotropic = sum(torch.allclose(kernel, kernel.T, atol=1e-7) for kernel in kernels)
    assert_share(isotropic, len(kernels), 0.7)


def test_blurs_have_the_ranges_sigmas_and_any_direction(blind):
    narrow, wide, angles = [], [], []
    for kernel in (plan.steps[FIRST_BLUR].kernel.double() for plan in blind):
        # Of a Gaussian, the logarithms of the taps next to the center are the entries of the inverse covariance.
        xx, yy, diagonal = (
            -2 * float((kernel[10 + y, 10 + x] / kernel[10, 10]).log()) for y, x in ((0, 1), (1, 0), (1, 1))
        )
        xy = (diagonal - xx - yy) / 2
        values, vectors = torch.linalg.eigh(torch.tensor([[xx, xy], [xy, yy]], dtype=torch.float64))
        narrow.append(float(values[1]) ** -0.5)
        wide.append(float(values[0]) ** -0.5)
        if wide[-1] / narrow[-1] > 1.05:
            angles.append(math.atan2(vectors[1, 0], vectors[0, 0]) % math.pi)
    assert (min(narrow), max(wide)) == (pytest.approx(0.2, abs=0.02), pytest.approx(3.0, abs=0.02))
    for start in (math.pi / 8 * odd for odd in (1, 3, 5, 7)):  # about the axes and the diagonals
        assert_share(sum((angle - start) % math.pi < math.pi / 4 for angle in angles), len(angles), 0.25)


def test_sinc_cutoffs_fill_their_range(blind):
    kernels = [
        plan.steps[place].kernel for plan in blind for place in (FORMER, LATTER) if type(plan.steps[place]) is Filter
    ]
    ratios = [float(kernel[10, 11] / kernel[10, 10]) for kernel in kernels]  # 2 J1(c) / c falls as the cutoff c grows
    widest, narrowest = (2 * j1(cutoff) / cutoff for cutoff in (math.pi, math.pi / 3))
    assert (min(ratios), max(ratios)) == (pytest.approx(widest, abs=0.01), pytest.approx(narrowest, abs=0.01))


def test_the_released_blurs_are_plateaus_with_the_ranges_flanks(released):
    betas = []
    for kernel in (plan.steps[0].kernel.double() for plan in released):
        far, near = (
            kernel[10, 10] / kernel[10, 10 + distance] - 1 for distance in (10, 7)
        )  # (distance / sigma)^2 beta
        betas.append(float((far / near).log()) / (2 * math.log(10 / 7)))
    assert (min(betas), max(betas)) == (pytest.approx(0.5, abs=0.05), pytest.approx(8.0, abs=0.05))


def test_kernel_sizes_are_equally_likely():
    plans = plans_of("blind", (512, 512), NUM_PLANS, strength=1000.0)  # so wide that every tap is above zero
    sizes = Counter(int((plan.steps[FIRST_BLUR].kernel[10] > 0).sum()) for plan in plans)
    assert sorted(sizes) == list(KERNEL_SIZES)
    for count in sizes.values():
        assert_share(count, NUM_PLANS, 1 / len(KERNEL_SIZES))


def test_first_resize_shrinks_in_seven_of_ten_and_the_second_ends_at_a_quarter(blind):
    sides = [plan.steps[FIRST_SIZE].size[0] if plan.steps[FIRST_SIZE] else 512 for plan in blind]
    assert_share(sum(side > 512 for side in sides), NUM_PLANS, 0.2)
    assert_share(sum(side < 512 for side in sides), NUM_PLANS, 0.7)
    assert min(sides) >= 128
    assert max(sides) <= round(1.2 * 512)
    assert {plan.steps[SECOND_SIZE].size for plan in blind if plan.steps[SECOND_SIZE]} == {(128, 128)}


def test_resize_operators_have_the_papers_shares(blind):
    modes = Counter(plan.steps[SECOND_SIZE].mode for plan in blind if plan.steps[SECOND_SIZE])
    for mode, probability in (("bicubic", 0.6), ("bilinear", 0.2), ("area", 0.2)):
        assert_share(modes[mode], modes.total(), probability)


def test_levels_fill_their_ranges(blind):
    deviations = [255 * plan.steps[FIRST_GAUSSIAN].sd for plan in blind if plan.steps[FIRST_GAUSSIAN]]
    scales = [plan.steps[SECOND_POISSON].scale for plan in blind if plan.steps[SECOND_POISSON]]
    qualities = [plan.steps[FIRST_JPEG].quality for plan in blind if plan.steps[FIRST_JPEG]]
    assert (min(deviations), max(deviations)) == (pytest.approx(1, abs=0.3), pytest.approx(30, abs=0.3))
    assert (min(scales), max(scales)) == (pytest.approx(0.05, abs=0.03), pytest.approx(2.5, abs=0.03))
    assert (min(qualities), max(qualities)) == (30, 95)


def test_strength_multiplies_noise_and_blur():
    (plain,), (half,) = plans_of("blind", (64, 64), 1, seed=3), plans_of("blind", (64, 64), 1, seed=3, strength=0.5)
    pairs = [(a, b) for a, b in zip(plain.steps, half.steps, strict=True) if a is not None]
    assert all(b.sd == a.sd / 2 for a, b in pairs if isinstance(a, GaussianNoise))
    assert all(b.scale == a.scale / 2 for a, b in pairs if isinstance(a, PoissonNoise))
    centers = [tuple(float(step.kernel.max()) for step in pair) for pair in pairs if isinstance(pair[0], Filter)]
    assert centers[0][1] > centers[0][0]


def test_the_released_reading_has_one_noise_jpeg_and_sinc_always_and_stretches_after_each(released):
    kinds = [[type(step) for step in plan.steps if step is not None] for plan in released]
    for steps in kinds:
        assert steps[1::2] == [Stretch] * (len(steps) // 2)
        assert steps[0::2] in (
            [Filter, Resize, noise, Jpeg, Resize, Jpeg, Filter] for noise in (GaussianNoise, PoissonNoise)
        )
    assert_share(sum(GaussianNoise in steps for steps in kinds), len(kinds), 0.5)
    assert {plan.steps[2].size for plan in released} == {(256, 256)}


def test_plain_bicubic_is_torchs_antialiased_bicubic():
    high = picture(64, 48)
    low = torch.nn.functional.interpolate(high, size=(16, 12), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(degrade(high, plans_of("bicubic", (64, 48), 1)), low)


def test_bicubic_blur_differs_from_bicubic_by_one_filter():
    for plan in plans_of("bicubic_blur", (64, 64), 5):
        assert [type(step) for step in plan.steps if step is not None] == [Filter, Resize]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(4, 4), (8, 12), (64, 64), (40, 100)])
def test_a_result_is_a_quarter_in_range_and_the_same_in_any_batch(kind, size):
    plans = plans_of(kind, size, 3, seed=size[1])
    high = picture(*size, number=3) + torch.tensor([0.0, 0.1, -0.1]).view(3, 1, 1, 1)
    low = degrade(high, plans)
    assert low.shape == (3, 1, size[0] // 4, size[1] // 4)
    assert low.min() >= 0
    assert low.max() <= 1
    assert torch.equal(low, torch.cat([degrade(high[i : i + 1], plans[i : i + 1]) for i in range(3)]))
    assert torch.equal(low, degrade(high, plans))


def test_plans_of_different_kinds_run_in_one_batch():
    plans = [plans_of(kind, (64, 64), 1, seed=5)[0] for kind in KINDS]
    high = picture(64, 64, number=len(KINDS))
    alone = [degrade(high[i : i + 1], [plan]) for i, plan in enumerate(plans)]
    assert torch.equal(degrade(high, plans), torch.cat(alone))


def test_the_same_seed_draws_the_same_and_the_global_generator_does_not_matter():
    high = picture(64, 64, number=8)
    torch.manual_seed(1)
    first = degrade(high, plans_of("blind", (64, 64), 8, seed=4))
    torch.manual_seed(2)
    assert torch.equal(first, degrade(high, plans_of("blind", (64, 64), 8, seed=4)))
    assert not torch.equal(first, degrade(high, plans_of("blind", (64, 64), 8, seed=5)))


def test_a_plan_pickles_and_its_tensors_can_be_mapped():
    plans = plans_of("blind", (64, 64), 4)
    high = picture(64, 64, number=4)
    low = degrade(high, plans)
    assert torch.equal(low, degrade(high, pickle.loads(pickle.dumps(plans))))
    assert torch.equal(low, degrade(high, map_tensors(torch.clone, plans)))


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_blind_degradation_costs_more_than_blur_which_costs_more_than_bicubic(strength):
    high = picture(64, 64, number=30)

    def psnr_db(kind: str) -> float:
        low = degrade(high, plans_of(kind, (64, 64), 30, strength=strength))
        again = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic").clamp(0, 1)
        return float(-10 * (again - high).square().mean((1, 2, 3)).log10().mean())

    blind, blur, bicubic = (psnr_db(kind) for kind in ("blind", "bicubic_blur", "bicubic"))
    assert blind < blur < bicubic


def test_without_strength_only_resizing_and_compression_are_left():
    high = picture(64, 64, number=20)
    none = degrade(high, plans_of("bicubic_blur", (64, 64), 20, strength=0.0))
    assert torch.allclose(none, degrade(high, plans_of("bicubic", (64, 64), 20)), atol=1e-5)


def test_degrading_has_no_gradient_and_keeps_full_precision_under_autocast():
    high = picture(64, 64, number=4).clone().requires_grad_()
    plans = plans_of("blind", (64, 64), 4, seed=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = degrade(high, plans)
    assert not low.requires_grad
    assert degrade(high.half(), plans).dtype == torch.float32
    assert torch.equal(low, degrade(high, plans))


@pytest.mark.parametrize("size", [(62, 64), (64, 65), (0, 64)])
def test_sides_that_are_no_multiples_of_four_are_refused(size):
    with pytest.raises(UserError, match=f"multiples of 4, got {size[0]} x {size[1]} px"):
        draw_plan(DegradationSettings(), size, torch.Generator())


def test_images_that_do_not_fit_their_plans_are_refused():
    plans = plans_of("bicubic", (64, 64), 2)
    with pytest.raises(ValueError, match=r"2 plans need as many images \(B, 1, H, W\), got \(1, 1, 64, 64\)"):
        degrade(torch.zeros(1, 1, 64, 64), plans)
    with pytest.raises(ValueError, match="as many images"):
        degrade(torch.zeros(2, 3, 64, 64), plans)
    with pytest.raises(ValueError, match=r"plan for \(64, 64\) px cannot be carried out on images of \(64, 32\)"):
        degrade(torch.zeros(2, 1, 64, 32), plans)
