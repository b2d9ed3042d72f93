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
        assert report["kid"]["permutation_p"] < 0.01, fault
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


def test_every_fault_of_simple_galaxies(pixel_features, tiny_set, tmp_path, capsys):
    round_ones = tiny_set.of_classes(["round"])
    order = np.random.default_rng(0).permutation(len(round_ones))
    real, fresh = round_ones.select(order[:30]), round_ones.select(order[30:])
    wrong = tiny_set.of_classes(["elongated"])
    found = reports(
        real, faults(real, fresh, wrong), tmp_path, capsys, ["--features", "pixels", "--k", "3"]
    )
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
