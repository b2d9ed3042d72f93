import numpy as np
import pytest
import torch
from PIL import Image

from fid.recipes import RECIPES, channel_rule, recipe_named, to_three_channels
from galaxies.errors import InputError

SIZES = [64, 100, 299, 423]


@pytest.fixture(params=SIZES)
def images(request, generator):
    shape = (2, 3, request.param, request.param)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_pytorch_fid_is_plain_interpolation(images):
    unit = images.float() / 255
    expected = torch.nn.functional.interpolate(
        unit, size=(299, 299), mode="bilinear", align_corners=False
    )
    assert torch.equal(RECIPES["pytorch-fid"](images), 2 * expected - 1)


def test_torch_fidelity_as_that_program_does_it(images):
    module = pytest.importorskip(
        "torch_fidelity.interpolate_compat_tensorflow", reason="needs torch-fidelity"
    )
    resized = module.interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(299, 299), align_corners=False
    )
    found = RECIPES["torch-fidelity"](images)
    torch.testing.assert_close(found, (resized - 128) / 128, rtol=0, atol=2e-5)


def test_tensorflow_grid_by_its_definition():
    """Output pixel i lies at i * source / target, and the last row repeats."""
    ramp = torch.arange(4, dtype=torch.uint8).mul(60).expand(1, 3, 4, 4)
    found = RECIPES["torch-fidelity"](ramp, side=8) * 128 + 128
    expected = torch.tensor([0, 30, 60, 90, 120, 150, 180, 180.0])
    torch.testing.assert_close(found[0, 0, 3], expected, rtol=0, atol=1e-4)


def test_clean_fid_is_pillows_bicubic_in_float(images):
    found = RECIPES["clean-fid"](images)
    for image, tensor in zip(images, found, strict=True):
        for channel, plane in zip(image, tensor, strict=True):
            picture = Image.fromarray(channel.numpy().astype(np.float32), mode="F")
            expected = np.asarray(picture.resize((299, 299), Image.Resampling.BICUBIC))
            expected = (expected.clip(0, 255) - 128) / 128
            np.testing.assert_allclose(plane.numpy(), expected, rtol=0, atol=2e-5)


def test_torchmetrics_antialiases(images):
    resized = torch.nn.functional.interpolate(
        images.float(), size=(299, 299), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(RECIPES["torchmetrics"](images), (resized - 128) / 128)


def test_the_recipes_differ_by_more_than_rounding(generator):
    images = torch.randint(0, 256, (1, 3, 423, 423), dtype=torch.uint8, generator=generator)
    results = [recipe(images) for recipe in RECIPES.values()]
    for index, first in enumerate(results):
        for second in results[index + 1 :]:
            assert (first - second).abs().mean() > 0.01


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(InputError, match="pytorch-fid, torch-fidelity, clean-fid, torchmetrics"):
        recipe_named("tf2")


@pytest.mark.parametrize(
    ("channels", "expected", "rule"),
    [
        (1, [[0, 0, 0]], "repeated three times"),
        (2, [[0, 5, 10]], "mean of both"),
        (3, [[0, 10, 20]], "as they are"),
        (5, [[5, 25, 40]], "0-1, 2-3, 4-4"),
        (10, [[15, 50, 80]], "0-3, 4-6, 7-9"),
    ],
)
def test_any_number_of_channels_becomes_three(channels, expected, rule):
    values = torch.arange(channels, dtype=torch.uint8) * 10
    images = values.view(1, -1, 1, 1).expand(1, channels, 4, 4)
    found = to_three_channels(images)
    assert found.dtype == torch.uint8
    assert found[:, :, 0, 0].tolist() == expected
    assert rule in channel_rule(channels)


def test_bands_are_chosen_or_refused(generator):
    images = torch.randint(0, 256, (2, 5, 4, 4), dtype=torch.uint8, generator=generator)
    assert torch.equal(to_three_channels(images, (4, 2, 0)), images[:, [4, 2, 0]])
    with pytest.raises(InputError, match="channels 0 to 4"):
        to_three_channels(images, (0, 1, 5))
