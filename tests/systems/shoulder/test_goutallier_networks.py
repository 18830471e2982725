import logging

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from medray.data.phantoms import shoulder_y
from medray.errors import UserError
from medray.learner import Step
from medray.nn.vgg import IMAGENET_MEAN, IMAGENET_STD
from medray.systems.shoulder import goutallier_networks
from medray.systems.shoulder.goutallier_config import GoutallierConfig
from medray.systems.shoulder.goutallier_grader import Graded, GraderLearner
from medray.systems.shoulder.goutallier_networks import Grader, make_grader, probabilities
from medray.systems.shoulder.goutallier_regions import whole_image
from medray.systems.shoulder.goutallier_segmenter import dice_loss

SMALL = {"backbone": "small", "image_size": 32, "channels": (4, 8), "batch_size": 4}


def test_dice_loss_by_hand():
    """p = .5 everywhere on 4 pixels, one of them muscle: 1 - 2 * .5 / (2 + 1)."""
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert_close(dice_loss(torch.zeros(1, 1, 2, 2), mask), torch.tensor([1 - 2 * 0.5 / 3]))
    sure = 50.0 * (2 * mask - 1)
    assert_close(dice_loss(sure, mask), torch.zeros(1), atol=1e-6, rtol=0)


def test_gray_becomes_three_channels_with_imagenets_statistics():
    grader, seen = Grader("small", frozen=False).eval(), []
    grader.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 1, 32, 32)
    grader(image)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        assert_close(seen[0][:, channel], (image[:, 0] - mean) / std)


def test_inception_sees_what_its_published_weights_were_trained_on():
    """torchvision's ``transform_input``, which it sets with these weights: (x - .5) / .5."""
    grader, seen = Grader("inception_v3", frozen=False).eval(), []
    grader.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 1, 75, 75)
    grader(image)
    assert_close(seen[0], (2 * image - 1).expand(1, 3, 75, 75))


def published(kind, path):
    """A file as torchvision's would be: 1000 outputs."""
    torch.manual_seed(1)
    tensors = dict(goutallier_networks._make_backbone(kind).state_dict())
    width = tensors["fc.weight"].shape[1]
    tensors |= {
        "fc.weight": torch.zeros(1000, width),
        "fc.bias": torch.zeros(1000),
        "AuxLogits.fc.bias": torch.zeros(1),
    }
    torch.save(tensors, path)
    return tensors


@pytest.mark.parametrize("kind", ["resnet50", "inception_v3"])
def test_published_weights_are_frozen_but_for_the_head(tmp_path, kind):
    tensors = published(kind, tmp_path / "weights.pth")
    torch.manual_seed(2)
    grader = make_grader(GoutallierConfig(backbone=kind, weights=str(tmp_path / "weights.pth")))
    first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    assert_close(grader.backbone.state_dict()[first], tensors[first])
    assert [name for name, p in grader.backbone.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    grader.train()
    norms = [module for module in grader.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert grader.explained_layer in dict(grader.named_modules())


def test_without_frozen_all_of_it_learns(tmp_path):
    published("resnet50", tmp_path / "weights.pth")
    config = GoutallierConfig(backbone="resnet50", weights=str(tmp_path / "weights.pth"), frozen=False)
    assert all(parameter.requires_grad for parameter in make_grader(config).parameters())


def test_another_networks_file_is_refused(tmp_path):
    published("inception_v3", tmp_path / "weights.pth")
    with pytest.raises(UserError, match="does not hold torchvision's ResNet-50: "):
        make_grader(GoutallierConfig(backbone="resnet50", weights=str(tmp_path / "weights.pth")))


def test_without_weights_the_consequence_is_told_and_nothing_is_frozen(caplog):
    goutallier_networks._warn_without_weights.cache_clear()
    with caplog.at_level(logging.WARNING):
        grader = make_grader(GoutallierConfig(backbone="resnet50"))
    assert "all of resnet50 is trained from random weights" in caplog.text
    assert all(parameter.requires_grad for parameter in grader.parameters())


def test_inception_takes_crops_smaller_than_its_smallest_grid():
    assert Grader("inception_v3", frozen=False).eval()(torch.rand(1, 1, 64, 64)).shape == (1, 1)


def test_probabilities_do_not_depend_on_who_else_is_asked():
    torch.manual_seed(0)
    grader = Grader("small", frozen=False).eval()
    inputs = list(np.random.default_rng(0).random((20, 1, 32, 32), dtype=np.float32))
    np.testing.assert_allclose(probabilities(grader, inputs)[17:18], probabilities(grader, inputs[17:18]), rtol=1e-5)


def samples(risky):
    """Cases of the phantom with any answer."""
    cases = shoulder_y.cases(n=len(risky), size=48)
    return [
        Graded(case, whole_image(np.ones((48, 48), dtype=bool)), answer)
        for case, answer in zip(cases, risky, strict=True)
    ]


def test_copies_fill_up_the_rarer_class_and_only_they_are_changed():
    learner = GraderLearner(GoutallierConfig(**SMALL), samples([True, False, False, True, False, False, False]), [])
    learner.seed = 3
    assert learner.num_samples() == 10
    assert [learner._sample(index).case.id for index in (7, 8, 9)] == [learner.train[i].case.id for i in (0, 3, 0)]
    batch, again, later = (learner.collate([0, 7, 9], epoch) for epoch in (0, 0, 1))
    assert batch.risky.tolist() == [1.0, 1.0, 1.0]
    assert_close(batch.image, again.image)
    assert_close(batch.image[0], later.image[0])  # as it is
    assert not torch.allclose(batch.image[1], later.image[1])  # turned anew
    assert not torch.allclose(batch.image[1], batch.image[2])  # two copies of one image


@pytest.mark.parametrize(("balance", "num", "weight"), [("none", 4, 1.0), ("weighted", 4, 3.0), ("oversample", 6, 1.0)])
def test_balances_by_count_or_by_weight(balance, num, weight):
    learner = GraderLearner(GoutallierConfig(**SMALL, balance=balance), samples([True, False, False, False]), [])
    assert (learner.num_samples(), learner.risky_weight) == (num, weight)


def test_a_weighted_loss_is_that_of_copies():
    """A logit of 0 costs log 2; the risky one of four counts threefold."""
    learner = GraderLearner(GoutallierConfig(**SMALL, balance="weighted"), samples([True, False, False, False]), [])
    head = learner.networks["net"].backbone.classifier[-1]
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    batch = learner.collate([0, 1, 2, 3], 0)
    found = learner.training_step(batch, Step(learner.configure_optimizers()))["loss"]
    assert found.mean == pytest.approx(np.log(2) * 6 / 4, rel=1e-5)


def test_a_sure_loss_ends_training_by_itself():
    schedule = GraderLearner(GoutallierConfig(**SMALL, patience=4), samples([True, False]), []).schedule
    assert (schedule.monitor, schedule.mode, schedule.patience) == ("loss", "min", 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_size": 100}, "image_size is at least 32 for vgg19 and a multiple of 16 for 5 levels, got 100"),
        ({"folds": 0}, "folds, seg_epochs"),
        ({"lr": 0.0}, "learning rates are above 0"),
        ({"margin": 2.0}, "margin is from 0 to 1"),
        ({"crops": "out_of_fold", "roi": "manual"}, "out_of_fold crops are those of several folds"),
        ({"backbone": "small", "weights": "x.pth"}, "there are no published weights of the small network"),
    ],
)
def test_settings_that_cannot_work_name_the_remedy(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        GoutallierConfig(**change)
