"""A measure must notice: each is fed generators with one known fault, and a perfect one."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from fid.cli import main
from galaxies.hdf5 import write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory


def with_pixels(image_set: ImageSet, pixels: torch.Tensor) -> ImageSet:
    return dataclasses.replace(image_set, store=PixelsInMemory(pixels))


def faults(real: ImageSet, fresh: ImageSet, wrong: ImageSet) -> dict[str, ImageSet]:
    """Generators: a fresh real set, and one for each fault."""
    random = torch.Generator().manual_seed(0)
    pixels = fresh.pixels
    noise = torch.randn(pixels.shape, generator=random) * 25
    few = torch.from_numpy(np.arange(len(fresh)) % 3)
    shifted = pixels.float() * torch.tensor([1.25, 1.0, 0.7]).view(1, 3, 1, 1)
    copies = real.pixels[: len(fresh)].rot90(1, (2, 3))
    return {
        "fresh": fresh,
        "collapsed": with_pixels(fresh, pixels[few].roll(1, 3)),
        "memorised": with_pixels(real.select(np.arange(len(copies))), copies),
        "noisy": with_pixels(fresh, (pixels.float() + noise).clamp(0, 255).to(torch.uint8)),
        "wrong class": wrong,
        "shifted colour": with_pixels(fresh, shifted.clamp(0, 255).to(torch.uint8)),
    }


def reports(real: ImageSet, generators: dict[str, ImageSet], folder, capsys, words) -> dict:
    write_hdf5(real, folder / "real.h5")
    results = {}
    for number, (name, images) in enumerate(generators.items()):
        path = folder / f"{number}.h5"
        write_hdf5(images, path)
        command = [str(folder / "real.h5"), str(path), "--all", "--json", "--permutations", "60"]
        assert main([*command, *words]) == 0
        results[name] = json.loads(capsys.readouterr().out)
    return results


def check_order_and_size(found: dict) -> None:
    """What every measure must say of every fault, whatever the features."""
    fresh = found["fresh"]
    assert fresh["null"]["permutation_p"] > 0.02
    assert fresh["null"]["observed"] < fresh["null"]["high"] * 1.05
    assert fresh["kid"]["permutation_p"] > 0.02
    assert abs(fresh["kid"]["value"]) < 3 * fresh["kid"]["standard_error"]
    assert fresh["memorisation"]["copies"] < 0.1
    assert fresh["memorisation"]["z"] > -3
    assert fresh["mind"]["at_half"] < 1.6 * fresh["mind"]["real_against_real"]
    for fault in ("collapsed", "noisy", "wrong class", "shifted colour"):
        report = found[fault]
        assert report["value"] > 1.15 * fresh["value"], fault
        assert report["null"]["observed"] > report["null"]["high"], fault
        assert report["null"]["permutation_p"] < 0.05, fault
        assert report["kid"]["value"] > 3 * abs(fresh["kid"]["value"]), fault
        assert report["kid"]["permutation_p"] < 0.05, fault
        assert report["mind"]["at_half"] > fresh["mind"]["at_half"], fault

    collapsed = found["collapsed"]["manifold"]
    floor = collapsed["real_against_real"]
    assert collapsed["at_half"]["coverage"] < 0.5 * floor["coverage"]
    assert collapsed["at_half"]["recall"] < 0.5 * floor["recall"]

    # The distance cannot see copying: it must be low there, and only the search for copies high.
    memorised = found["memorised"]
    assert memorised["value"] < fresh["value"] * 1.1
    assert memorised["memorisation"]["copies"] == 1
    assert memorised["memorisation"]["z"] < -6
    assert memorised["memorisation"]["closest"][0]["distance"] == 0

    colours = found["shifted colour"]["physics"]["measurements"]
    assert colours["colour_0_1"]["differs"]
    assert colours["colour_0_1"]["distance"] > 3 * colours["ellipticity"]["distance"]
    same = fresh["physics"]["measurements"]
    assert sum(item["differs"] for item in same.values()) <= 3


def simple_galaxies(count: int, ratio: float, seed: int) -> ImageSet:
    """Ellipses of one axis ratio; sizes, angles, brightnesses and colours vary."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, 48)] * 2, indexing="ij")
    images = np.empty((count, 3, 48, 48))
    for index in range(count):
        angle, width = rng.uniform(0, np.pi), rng.uniform(0.12, 0.25)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        light = np.exp(-(u**2 + (v / (ratio * rng.uniform(0.8, 1.25))) ** 2) / (2 * width**2))
        colour = rng.uniform(0.5, 0.75) * rng.uniform(0.85, 1.15, (3, 1, 1))
        images[index] = 200 * colour * light + rng.normal(25, 4, (3, 48, 48))
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(images.clip(0, 255).astype(np.uint8))),
        labels=np.zeros(count, np.int64),
        class_names=("galaxy",),
        ids=np.array([f"{seed}-{index}" for index in range(count)]),
    )


def test_every_fault_of_simple_galaxies(pixel_features, tmp_path, capsys):
    real, fresh = simple_galaxies(120, 0.7, 0), simple_galaxies(60, 0.7, 1)
    wrong = simple_galaxies(60, 0.3, 2)
    words = ["--features", "pixels"]
    found = reports(real, faults(real, fresh, wrong), tmp_path, capsys, words)
    check_order_and_size(found)
    # A power spectrum is what noise changes.
    assert found["noisy"]["physics"]["measurements"]["power spectrum"]["differs"]
    assert found["wrong class"]["physics"]["measurements"]["ellipticity"]["differs"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(900)
def test_every_fault_of_real_galaxies(real_data, tmp_path, capsys, monkeypatch):
    """Galaxy Zoo edge-on galaxies through MobileNetV2; ellipticals are the wrong class."""
    pytest.importorskip("timm", reason="needs timm")
    from galaxies.image_files import Decoding
    from galaxies.sources import open_image_set

    monkeypatch.setenv("GALAXY_AUGMENT_CACHE", str(tmp_path / "cache"))
    weights = real_data("weights/mobilenetv2_100_same_imagenet1001.safetensors")
    whole = open_image_set(real_data("data/gz1"), decoding=Decoding(crop=212, size=64))
    edge_on = whole.of_classes(["edge_on"])
    order = np.random.default_rng(0).permutation(len(edge_on))
    real = edge_on.select(order[:160]).in_memory()
    fresh = edge_on.select(order[160:240]).in_memory()
    wrong = whole.of_classes(["elliptical"]).select(np.arange(80)).in_memory()
    words = ["--features", "timm:mobilenetv2_100,side=128", "--weights", str(weights)]
    check_order_and_size(reports(real, faults(real, fresh, wrong), tmp_path, capsys, words))
