"""The DCGAN pair against the published layout, and every size and channel number it allows."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from galaxies.errors import InputError
from gan.build import NetworkShape, build_discriminator, build_generator, parameter_count
from gan.networks import MinibatchDeviation, check_size, dcgan_channels
from gan.recipes import DCGAN, RECIPES, TAIL
from gan.spectral_norm import add_spectral_norm
from gan.tail_networks import STYLE, ModulatedConvolution, initialise_tail, spread

FULL = torch.tensor(1.0)


def published_generator() -> nn.Sequential:
    """The layout of the PyTorch DCGAN example, ngf 64, nz 100."""
    return nn.Sequential(
        nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False),
        nn.BatchNorm2d(512),
        nn.ReLU(),
        nn.ConvTranspose2d(512, 256, 4, 2, 1, bias=False),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def published_discriminator() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Conv2d(128, 256, 4, 2, 1, bias=False),
        nn.BatchNorm2d(256),
        nn.LeakyReLU(0.2),
        nn.Conv2d(256, 512, 4, 2, 1, bias=False),
        nn.BatchNorm2d(512),
        nn.LeakyReLU(0.2),
        nn.Conv2d(512, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )


def copy_weights(ours: nn.Module, published: nn.Module) -> None:
    """Give both the same weights, matched in order of use by shape."""
    sources = [p for m in ours.modules() for p in m._parameters.values() if p is not None]
    convolutions = [p for p in sources if p.ndim == 4]
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in published:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data.copy_(convolutions.pop(0))
        elif isinstance(module, nn.BatchNorm2d):
            module.load_state_dict(norms.pop(0).state_dict())
    assert not convolutions
    assert not norms


def build(recipe_parts, classes=1, channels=3, size=64, width=1.0):
    random = torch.Generator().manual_seed(0)
    shape = NetworkShape(classes, channels, size, width)
    return build_generator(shape, recipe_parts, random), build_discriminator(
        shape, recipe_parts, random
    )


def test_one_class_has_the_published_parameter_counts():
    generator, discriminator = build(DCGAN)
    assert parameter_count(generator) == 3_576_704
    assert parameter_count(discriminator) == 2_765_568


def test_forward_equals_the_published_layout(generator):
    ours, ours_discriminator = build(DCGAN)
    published, published_judge = published_generator(), published_discriminator()
    copy_weights(ours, published)
    copy_weights(ours_discriminator, published_judge)
    latent = torch.randn(4, 100, generator=generator)
    labels = torch.zeros(4, dtype=torch.int64)
    published = published.to(memory_format=torch.channels_last)
    published_judge = published_judge.to(memory_format=torch.channels_last)
    images = ours(latent, labels, FULL)
    torch.testing.assert_close(images, published(latent[:, :, None, None]), rtol=0, atol=1e-6)
    logits = ours_discriminator(images, labels, FULL)
    expected = published_judge(images).flatten()
    torch.testing.assert_close(torch.sigmoid(logits), expected, rtol=0, atol=1e-6)


def test_published_initialisation():
    ours, _ = build(DCGAN)
    weights = ours.convolutions[1].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert ours.norms[0].weight.mean().item() == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("recipe", ["dcgan", "tail"])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_every_size_fits(recipe, size):
    ours, judge = build(RECIPES[recipe], classes=3, channels=2, size=size, width=0.1)
    latent = torch.zeros(4, RECIPES[recipe].latent)
    labels = torch.tensor([0, 1, 2, 0])
    images = ours(latent, labels, FULL, torch.zeros(4, ours.noise_length))
    assert images.shape == (4, 2, size, size)
    assert judge(images, labels, FULL).shape == (4,)


@pytest.mark.parametrize("recipe", ["dcgan", "tail"])
@pytest.mark.parametrize("channels", [1, 4, 10])
def test_every_channel_number_fits(recipe, channels):
    ours, judge = build(RECIPES[recipe], channels=channels, size=32, width=0.1)
    labels = torch.zeros(4, dtype=torch.int64)
    images = ours(torch.zeros(4, ours.latent), labels, FULL, torch.zeros(4, ours.noise_length))
    assert images.shape == (4, channels, 32, 32)
    assert judge(images, labels, FULL).shape == (4,)


@pytest.mark.parametrize("size", [16, 48, 69, 512])
def test_other_sizes_are_refused_and_the_possible_ones_named(size):
    with pytest.raises(InputError, match="32, 64, 128, 256"):
        check_size(size)


def test_channels_double_downwards_and_stop_at_512():
    assert dcgan_channels(64, 1.0) == [512, 256, 128, 64]
    assert dcgan_channels(256, 1.0) == [512, 512, 512, 256, 128, 64]
    assert dcgan_channels(32, 1.0) == [256, 128, 64]


@pytest.mark.parametrize("recipe", ["dcgan", "tail"])
def test_the_class_changes_the_image_only_as_far_as_it_matters(recipe, generator):
    ours, judge = build(RECIPES[recipe], classes=2, size=32, width=0.25)
    latent = torch.randn(4, ours.latent, generator=generator)
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    none = torch.tensor(0.0)
    torch.testing.assert_close(ours(latent, zeros, none), ours(latent, ones, none))
    assert (ours(latent, zeros, FULL) - ours(latent, ones, FULL)).abs().max() > 1e-5
    images = torch.randn(4, 3, 32, 32, generator=generator)
    torch.testing.assert_close(judge(images, zeros, none), judge(images, ones, none))
    assert (judge(images, zeros, FULL) - judge(images, ones, FULL)).abs().max() > 1e-6


@pytest.mark.parametrize("generator_name", ["convolutional", "style"])
def test_class_enters_late_where_asked(generator_name):
    """Below ``class_from`` the classes share everything: their coarse structure is the same."""
    parts = dataclasses.replace(
        TAIL, generator=generator_name, class_from=32, pixel_noise=False, start_at_sky=False,
        smooth_upsampling=False,
    )  # fmt: skip
    ours, _ = build(parts, classes=2, size=32, width=0.25)
    if generator_name == "style":
        styles = ours.styles(torch.ones(1, ours.latent), torch.tensor([1]), FULL)
        shared = ours.styles(torch.ones(1, ours.latent), torch.tensor([1]), torch.tensor(0.0))
        assert (styles - shared).abs().max() > 1e-4
        seen = []
        for to_image in ours.to_images:
            to_image.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        ours(torch.ones(2, ours.latent), torch.tensor([0, 1]), FULL)
        differ = {features.shape[-1]: not torch.equal(*features) for features in seen}
        assert differ == {4: False, 8: False, 16: False, 32: True}
    assert len(ours.class_tables()) == (1 if generator_name == "style" else 0)
    early, _ = build(dataclasses.replace(parts, class_from=8), classes=2, size=32, width=0.25)
    assert len(early.class_tables()) == (1 if generator_name == "style" else 4)


def test_smooth_upsampling_is_a_convolution_behind_doubled_pixels():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, 3, 3, generator=generator)
    features = torch.randn(2, 5, 6, 6, generator=generator)
    ours = F.conv_transpose2d(features, spread(weight), stride=2, padding=1)
    doubled = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    reference = F.conv2d(doubled, weight.flip(2, 3).transpose(0, 1), padding=1)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smooth", [True, False])
def test_only_smooth_upsampling_treats_the_four_phases_alike(smooth):
    """What is flat stays flat; free taps print their own 2x2 pattern on it."""
    layer = ModulatedConvolution(8, 8, up=True, smooth=smooth)
    initialise_tail(nn.ModuleList([layer]), torch.Generator().manual_seed(0))
    flat = torch.ones(1, 8, 8, 8)
    inner = layer(flat, torch.zeros(1, STYLE), None)[..., 2:-2, 2:-2]
    pattern = (inner - inner.mean(dim=(2, 3), keepdim=True)).abs().max() / inner.std()
    assert pattern < 1e-5 if smooth else pattern > 0.1


def test_minibatch_deviation_is_the_deviation_within_groups_of_four():
    features = torch.zeros(8, 2, 1, 1)
    features[:4, :, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    plane = MinibatchDeviation()(features)[:, 2, 0, 0]
    torch.testing.assert_close(plane, torch.tensor([1.0] * 4 + [1e-4] * 4))


def test_spectral_norm_bounds_every_layer_and_keeps_the_global_random_state():
    parts = dataclasses.replace(
        TAIL, discriminator="convolutional", spectral_norm=True, standardise=False
    )
    state = torch.get_rng_state()
    _, judge = build(parts, classes=2, size=32, width=0.25)
    assert torch.equal(state, torch.get_rng_state())
    images = torch.zeros(4, 3, 32, 32)
    for _ in range(30):  # power iterations
        judge(images, torch.zeros(4, dtype=torch.int64), FULL)
    weight = judge.convolutions[1].weight
    norm = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    assert norm.item() == pytest.approx(1.0, abs=0.05)


def test_spectral_norm_is_that_of_pytorch_and_keeps_its_digits_in_bfloat16(monkeypatch):
    torch.manual_seed(0)
    ours, theirs = torch.nn.Conv2d(8, 16, 4), torch.nn.Conv2d(8, 16, 4)
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(1)
    torch.nn.utils.parametrizations.spectral_norm(theirs)
    torch.manual_seed(1)
    add_spectral_norm(ours)
    images = torch.rand(2, 8, 4, 4)
    for _ in range(3):
        assert torch.equal(ours(images), theirs(images))
    assert all(
        torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items()
    )
    enabled = []
    original = torch.mv

    def multiply(matrix, vector):
        enabled.append(torch.is_autocast_enabled("cpu"))
        return original(matrix, vector)

    monkeypatch.setattr(torch, "mv", multiply)
    with torch.autocast("cpu", torch.bfloat16):  # on CUDA it would reach these products
        ours(images)
    assert enabled == [False] * 3
