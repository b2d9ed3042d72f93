"""Copies are found however they were made, and look-alikes are not taken for copies."""

import dataclasses
import io
import json
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from galaxies.duplicates import duplicate_groups, leaks, near_duplicates
from galaxies.hdf5 import read_hdf5, write_hdf5
from galaxies.image_set import ImageSet, PixelsInMemory
from galaxies.likeness import SAME_PIXELS, same_pixels, signatures
from galaxies.rendering import render_batch
from galaxies.split import split_set
from galaxies.symmetry import apply_symmetry, is_mirrored


def survey_of(names: list[str], seed: int = 0) -> ImageSet:
    streams = np.random.SeedSequence(seed).spawn(len(names))
    pixels, _ = render_batch(names, streams, 64)
    classes = tuple(sorted(set(names)))
    return ImageSet(
        store=PixelsInMemory(torch.from_numpy(pixels)),
        labels=np.array([classes.index(name) for name in names]),
        class_names=classes,
        ids=np.array([f"g{index}" for index in range(len(names))]),
    )


@pytest.fixture(scope="module")
def galaxies() -> ImageSet:
    """60 galaxies, half of them the ellipticals that look alike."""
    return survey_of(
        ["elliptical"] * 30 + ["spiral_clockwise", "spiral_anticlockwise", "edge_on"] * 10
    )


def jpeg(pixels: torch.Tensor, quality: int = 90) -> torch.Tensor:
    out = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


def shifted(pixels: torch.Tensor, down: int, right: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(pixels.float(), (4, 4, 4, 4), mode="reflect").to(torch.uint8)
    side = pixels.shape[-1]
    return padded[:, :, 4 + down : 4 + down + side, 4 + right : 4 + right + side]


def joined(first: ImageSet, copies: torch.Tensor) -> ImageSet:
    return dataclasses.replace(
        first,
        store=PixelsInMemory(torch.cat([first.pixels, copies])),
        labels=np.concatenate([first.labels, first.labels]),
        ids=np.concatenate([first.ids, np.char.add(first.ids, "-copy")]),
        features=np.zeros((0, 0), np.float32),
    )


def test_different_galaxies_are_no_duplicates(galaxies):
    report = leaks(galaxies, progress=False)
    assert report.pairs == ()
    assert report.problems == ()
    assert not report.crosses_split


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda p: jpeg(p, 90), 0.95),
        (lambda p: shifted(p, 2, -1), 0.97),
        (lambda p: shifted(p, -3, 3), 0.97),
        (lambda p: (p.float() * 1.1 + 3).clamp(0, 255).to(torch.uint8), 0.97),
        (lambda p: jpeg(shifted(p, 1, 1), 95), 0.9),
    ],
    ids=["jpeg", "shift", "larger shift", "brightness", "jpeg and shift"],
)
def test_changed_copies_under_any_symmetry_are_found(galaxies, change, least):
    elements = torch.arange(len(galaxies)) % 8
    copies = apply_symmetry(change(galaxies.pixels), elements)
    report = leaks(joined(galaxies, copies), progress=False)
    count = len(galaxies)
    right = [pair for pair in report.near if pair.second - pair.first == count]
    assert len(right) >= least * count
    assert len(report.near) == len(right), "a look-alike was taken for a copy"
    turned = is_mirrored(elements).tolist()
    assert all(pair.mirrored == turned[pair.first] for pair in right)


def test_exact_copies_are_exact_and_only_that(galaxies):
    report = leaks(joined(galaxies, galaxies.pixels), progress=False)
    assert len(report.exact) == len(galaxies)
    assert report.near == ()


def test_a_mirror_twin_is_no_conflict_but_another_class_is(galaxies):
    flipped = apply_symmetry(galaxies.pixels, torch.ones(len(galaxies), dtype=torch.int64))
    both = joined(galaxies, flipped)
    twin = galaxies.mirror_permutation().numpy()
    labels = np.concatenate([galaxies.labels, twin[galaxies.labels]])
    assert leaks(dataclasses.replace(both, labels=labels), progress=False).conflicting_pairs == ()
    labels = labels.copy()
    labels[len(galaxies)] = (labels[0] + 1) % len(galaxies.class_names)
    report = leaks(dataclasses.replace(both, labels=labels), progress=False)
    assert [(pair.first, pair.second) for pair in report.conflicting_pairs] == [(0, len(galaxies))]
    assert "1 duplicate carries two classes, such as g0 and g0-copy" in report.problems[0]


def test_what_crosses_the_split_is_said_and_a_split_can_keep_it_together(
    galaxies, tmp_path, galaxy_set
):
    copies = apply_symmetry(galaxies.pixels, torch.full((len(galaxies),), 5))
    both = split_set(joined(galaxies, copies), seed=1)
    report = leaks(both, progress=False)
    assert report.crosses_split
    assert len(report.crossing_pairs) > 10
    assert "near duplicates stand on two sides of the split" in report.problems[0]
    path = tmp_path / "set.h5"
    write_hdf5(both, path)
    status, text, _ = galaxy_set("info", path, "--json")
    assert status == 0
    found = json.loads(text)
    assert len(found["near_duplicates"]) == len(report.near)
    assert any("near duplicates stand on two sides" in problem for problem in found["problems"])
    status, _, error = galaxy_set("split", path, "--overwrite", "--duplicates-together")
    assert status == 0, error
    again = read_hdf5(path)
    assert not leaks(again, progress=False).crosses_split
    assert again.group is None


def test_groups_that_cross_are_named(tiny_set):
    report = leaks(dataclasses.replace(tiny_set, group=np.repeat(["a", "b"], 60)), progress=False)
    assert report.crossing_groups == ("a", "b")
    assert report.crosses_split
    assert "2 groups stand on two sides of the split, such as a" in " ".join(report.problems)


def test_duplicates_join_groups(tiny_set):
    pixels = tiny_set.pixels.clone()
    pixels[7] = pixels[100]
    group = np.array([f"field{index // 10}" for index in range(120)])
    joined_set = dataclasses.replace(tiny_set, store=PixelsInMemory(pixels), group=group)
    pairs = leaks(joined_set, near=False).pairs
    assert [(pair.first, pair.second) for pair in pairs] == [(7, 100)]
    together = duplicate_groups(joined_set, pairs)
    assert len(set(together[:10]) | set(together[100:110])) == 1
    assert len(set(together)) == 11


def test_blank_images_do_not_explode(tiny_set):
    blank = dataclasses.replace(
        tiny_set, store=PixelsInMemory(torch.zeros_like(tiny_set.pixels)), split=None
    )
    assert len(leaks(blank, progress=False).exact) == 119


def test_flux_and_other_sizes_are_compared(rng):
    flux = torch.from_numpy(rng.normal(0, 1, (6, 5, 128, 128)).astype(np.float32))
    copies = apply_symmetry(flux * 3 + 1, torch.full((6,), 3))
    first, second = signatures(flux), signatures(copies)
    likeness, element = same_pixels(first.residuals, second.residuals)
    assert (likeness > 0.9).all()
    assert (element == 3).all()
    other, _ = same_pixels(first.residuals, second.residuals[[1, 2, 3, 4, 5, 0]])
    assert (other < SAME_PIXELS).all()


@pytest.mark.real_data
@pytest.mark.slow
def test_real_galaxies_have_no_false_duplicates(real_data, tmp_path):
    from galaxies.pack import pack

    source = real_data("data/gz1")
    rows = (source / "labels.csv").read_text().splitlines()
    chosen = tmp_path / "labels.csv"
    chosen.write_text("\n".join([rows[0], *rows[1:1201]]))
    packed = pack(
        source, tmp_path / "gz1.h5", size=64, crop=212, labels=chosen, progress=False
    ).image_set
    assert leaks(packed, progress=False).pairs == ()
    some = packed.select(np.arange(0, len(packed), 4)).in_memory()
    copies = apply_symmetry(jpeg(some.pixels, 90), torch.arange(len(some)) % 8)
    report = leaks(joined(some, copies), progress=False)
    assert len(report.near) >= 0.95 * len(some)
    assert all(pair.second - pair.first == len(some) for pair in report.near)


def test_small_edge_on_galaxies_of_one_slant_are_no_copies():
    """At 32 pixels the outline of a galaxy once counted as its noise: a correlation of 0.33."""
    large = survey_of(["edge_on"] * 80, seed=3)
    pixels = torch.nn.functional.avg_pool2d(large.pixels.float(), 2).round().to(torch.uint8)
    small = dataclasses.replace(large, store=PixelsInMemory(pixels))
    assert leaks(small, progress=False).pairs == ()
    copies = leaks(joined(small, jpeg(pixels)), progress=False).pairs
    assert len(copies) >= 0.95 * len(small)
    assert all(pair.second - pair.first == len(small) for pair in copies)


def test_copies_are_found_in_flux_of_any_unit():
    survey = survey_of(["elliptical", "edge_on", "merger"] * 2)
    pixels = torch.cat([survey.pixels, survey.pixels[:2].flip(3)]).float()
    for unit in (1.0, 2.0**-80):
        flux = dataclasses.replace(
            survey.select(np.arange(8) % 6), store=PixelsInMemory(pixels * unit)
        )
        found = near_duplicates(flux, progress=False)
        assert [(pair.first, pair.second) for pair in found] == [(0, 6), (1, 7)]


def test_a_large_set_is_compared_in_smaller_blocks(galaxies, monkeypatch):
    """Few rows at a time where there are many images: the same pairs, in less memory."""
    few = galaxies.select(np.arange(20))
    both = joined(few, shifted(few.pixels, 1, 2))
    found = near_duplicates(both, progress=False)
    assert found
    monkeypatch.setattr("galaxies.duplicates._BLOCK_PAIRS", 3 * len(both))
    assert near_duplicates(both, progress=False) == found


def test_what_images_are_compared_by_is_held_once(rng, monkeypatch):
    count = 400
    noise = torch.from_numpy(rng.integers(0, 256, (count, 1, 64, 64), dtype=np.uint8))
    image_set = ImageSet(
        store=PixelsInMemory(noise),
        labels=np.zeros(count, np.int64),
        class_names=("noise",),
        ids=np.arange(count).astype(str),
    )
    monkeypatch.setattr("galaxies.duplicates._BLOCK", 20)
    tracemalloc.start()
    assert near_duplicates(image_set, progress=False) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    residuals = count * 64 * 64 * 4
    assert peak < 1.8 * residuals
