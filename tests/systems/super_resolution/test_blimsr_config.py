from dataclasses import replace
from pathlib import Path

import pytest

from medray.systems.super_resolution.blimsr_config import VARIANTS, BlimsrConfig


def test_the_first_variant_is_the_papers_and_changes_nothing():
    first = next(iter(VARIANTS))
    assert first == "blimsr"
    assert not VARIANTS[first].config


def test_every_variant_is_accepted_and_differs_from_the_paper():
    for name, variant in list(VARIANTS.items())[1:]:
        assert replace(BlimsrConfig(), **variant.config) != BlimsrConfig(), name


def test_bicubic_learns_nothing_and_methods_without_adversarial_loss_have_no_judge():
    assert not BlimsrConfig(generator="bicubic").learns
    assert not BlimsrConfig(generator="bicubic").is_adversarial
    assert not BlimsrConfig(**VARIANTS["edsr_mhca"].config).is_adversarial
    assert BlimsrConfig().is_adversarial


def test_weights_of_vgg19_are_named_by_their_full_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert BlimsrConfig(vgg19_weights="vgg.pth").vgg19_weights == str(Path.cwd() / "vgg.pth")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"crop_px": 34}, "multiple of 4 from 20 on, got 34"),
        ({"crop_px": 16}, "multiple of 4 from 20 on, got 16"),
        ({"num_blocks": 0}, "num_blocks must be at least 1"),
        ({"num_channels": 10, "reduction": 4}, "multiple of reduction, got 10 and 4"),
        ({"lambda_grad": -1.0}, "lambda_grad must be 0 or more"),
        ({f"lambda_{name}": 0.0 for name in ("perc", "adv", "cont", "grad", "dssim")}, "give lambda_cont a value"),
        (
            {"detached_structure_losses": True, "lambda_perc": 0.0, "lambda_adv": 0.0, "lambda_cont": 0.0},
            "give lambda_cont a value",
        ),
        ({"perceptual": "none"}, "set lambda_perc to 0"),
        ({"perceptual": "phantom", "vgg19_weights": "vgg.pth"}, "leave one of them out"),
        ({"hu_window": (100.0, 100.0)}, "runs from low to high"),
        ({"degradation_strength": -1.0}, "degradation_strength must be finite and 0 or more"),
        ({"num_epochs": 5, "warmup_epochs": 6}, "from 0 to num_epochs, got 6 of 5"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"betas": (0.9, 1.0)}, r"betas in \[0, 1\)"),
        ({"test_fraction": 1.0}, "test_fraction must be at least 0 and below 1"),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        BlimsrConfig(**fields)
