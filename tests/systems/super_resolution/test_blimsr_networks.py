import pytest
import torch

from medray.systems.super_resolution.blimsr_config import BlimsrConfig
from medray.systems.super_resolution.blimsr_networks import (
    AttentionBlock,
    BicubicHalf,
    MultiHeadAttention,
    ResnetDiscriminator,
)
from medray.systems.super_resolution.networks import make_discriminator, make_generator

SMALL = {"num_blocks": 2, "num_channels": 8, "num_groups": 2, "disc_channels": 4}


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def changed_pixels(module, channels, size=15):
    """Where the result changes with the input's middle pixel, along the row through it."""
    x = torch.randn(1, channels, size, size)
    other = x.clone()
    other[:, :, size // 2, size // 2] -= 9 * x[:, :, size // 2, size // 2]
    with torch.no_grad():
        difference = (module(x) - module(other)).abs().amax(dim=(0, 1))
    return difference[size // 2].nonzero()[:, 0].tolist()


def test_heads_give_back_the_size_and_see_as_far_as_their_kernels():
    heads = MultiHeadAttention(8, 2).heads
    # an unpadded convolution and its transposed one together reach kernel - 1 pixels to each side
    assert [changed_pixels(head, 8) for head in heads] == [[7], list(range(5, 10)), list(range(3, 12))]
    assert all(head(torch.zeros(1, 8, 5, 6)).shape == (1, 8, 5, 6) for head in heads)


def test_attention_is_the_sigmoid_of_the_sum_of_its_heads():
    attention, x = MultiHeadAttention(4, 2), torch.randn(2, 4, 6, 6)
    total = attention.heads[0](x) + attention.heads[1](x) + attention.heads[2](x)
    torch.testing.assert_close(attention(x), 1 / (1 + torch.exp(-total)))


def test_attention_has_as_many_weights_as_counted_by_hand():
    # for each head two layers of 8 * 4 * k^2 weights, with 4 and 8 biases
    assert num_parameters(MultiHeadAttention(8, 2)) == 2 * 32 * (1 + 9 + 25) + 3 * 12
    assert num_parameters(MultiHeadAttention(64, 4)) == 2 * 64 * 16 * 35 + 3 * (16 + 64)


def test_a_block_adds_its_body_times_the_attention_to_its_input():
    block, x = AttentionBlock(4, 2), torch.randn(1, 4, 8, 8)
    features = block.body(x)
    torch.testing.assert_close(block(x), x + features * block.attention(features))
    half = AttentionBlock(4, 2, "none", scale=0.5)
    torch.testing.assert_close(half(x), x + 0.5 * half.body(x))


def test_attention_of_one_by_one_looks_at_a_single_pixel():
    attention = AttentionBlock(4, 2, "1x1").attention
    assert changed_pixels(attention, 4) == [7]
    assert num_parameters(attention) == 4 * 4 + 4


@pytest.mark.parametrize(
    "fields",
    [{}, {"attention": "1x1"}, {"attention": "none"}, {"skeleton": "released", "reduction": 4},
     {"generator": "medsrgan"}, {"generator": "edsr_mhca"}, {"generator": "bicubic"}],
)  # fmt: skip
def test_generators_enlarge_by_four_whatever_the_shape(fields):
    generator = make_generator(BlimsrConfig(**SMALL | fields))
    assert generator(torch.rand(2, 1, 5, 7)).shape == (2, 1, 20, 28)


def test_the_papers_generator_has_as_many_weights_as_counted_by_hand():
    c = 8
    conv = 9 * c * c + c
    block = 2 * conv + 2 * c * (c // 2) * 35 + 3 * (c // 2 + c)
    up = 9 * c * 4 * c + 4 * c
    expected = (9 * c + c) + 2 * block + conv + 2 * up + (9 * c + 1)
    assert num_parameters(make_generator(BlimsrConfig(**SMALL))) == expected


def test_the_released_generator_has_groups_a_concatenation_and_a_sigmoid():
    c = 8
    block = 2 * (9 * c * c + c) + 2 * c * (c // 4) * 35 + 3 * (c // 4 + c)
    ups = (9 * 2 * c * 4 * c + 4 * c) + (9 * c * 4 * c + 4 * c)
    expected = (9 * c + c) + 2 * 2 * block + (c * c + c) + ups + (c + 1)
    generator = make_generator(BlimsrConfig(**SMALL, skeleton="released", reduction=4))
    assert num_parameters(generator) == expected
    result = generator(100 * torch.randn(1, 1, 8, 8))
    assert 0 <= float(result.detach().min()) <= float(result.detach().max()) <= 1


def test_a_trunk_of_zeros_leaves_the_first_features_to_the_long_connection():
    generator, low = make_generator(BlimsrConfig(**SMALL)), torch.rand(1, 1, 6, 6)
    torch.nn.init.zeros_(generator.trunk[-1].weight)
    expected = generator.last(generator.upsampler(generator.first(low)))
    torch.testing.assert_close(generator(low), expected)


@pytest.mark.parametrize("fields", [{}, {"skeleton": "released"}, {"discriminator": "medsrgan"}])
@pytest.mark.parametrize("side", [5, 8, 13])
def test_discriminators_take_any_size_and_judge_each_image_by_itself(fields, side):
    judge = make_discriminator(BlimsrConfig(**SMALL | fields)).eval()
    high, low = torch.rand(3, 1, 4 * side, 4 * side), torch.rand(3, 1, side, side)
    logits = judge(high, low)
    assert logits.shape == (3,)
    torch.testing.assert_close(logits[1:2], judge(high[1:2], low[1:2]), rtol=1e-4, atol=1e-5)


def test_only_the_pair_discriminator_looks_at_the_low_resolution():
    high, low, other = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    alone = make_discriminator(BlimsrConfig(**SMALL)).eval()
    pair = make_discriminator(BlimsrConfig(**SMALL, discriminator="medsrgan")).eval()
    assert torch.equal(alone(high, low), alone(high, other))
    assert not torch.equal(pair(high, low), pair(high, other))


def judge_layers(judge):
    return [m for m in judge.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]


def test_every_layer_of_the_papers_discriminator_has_spectral_norm_one():
    judge = ResnetDiscriminator(4)
    with torch.no_grad():
        for _ in range(200):  # power iterations
            judge(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 4, 4))
    judge.eval()
    layers = judge_layers(judge)
    assert len(layers) == 1 + 2 * 8 + 3 + 1  # stem, two in each of eight blocks, three reshaping shortcuts, the logit
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=0.02, atol=0)


def test_the_released_discriminator_has_seven_blocks_behind_a_plain_convolution():
    layers = judge_layers(ResnetDiscriminator(4, released=True))
    plain = [layer for layer in layers if not torch.nn.utils.parametrize.is_parametrized(layer)]
    assert len(layers) == 1 + 2 * 7 + 1
    assert plain == [layers[0], layers[-1]]


def test_neither_resampling_nor_residuals_in_the_pair_discriminator():
    judge = make_discriminator(BlimsrConfig(**SMALL, discriminator="medsrgan"))
    assert not any(torch.nn.utils.parametrize.is_parametrized(layer) for layer in judge_layers(judge))


def test_bicubic_halving_doubles_the_channels_and_keeps_constants():
    x = torch.stack([torch.full((7, 8), 0.25), torch.full((7, 8), 2.0)])[None]
    half = BicubicHalf()(x)
    assert half.shape == (1, 4, 4, 4)
    torch.testing.assert_close(half[0, :, 0, 0], torch.tensor([0.25, 2.0, 0.25, 2.0]))
