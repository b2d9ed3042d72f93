import resource
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from fid.extraction import extract, features_of_array
from fid.image_sources import Batch, SetImages
from fid.inputs import ReadingRules, open_side
from fid.statistics import statistics_of_features


class ManyImages:
    """A source of any length that holds nothing."""

    name = "many"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batches(self, size):
        for start in range(0, self.count, size):
            rows = np.arange(start, min(start + size, self.count))
            values = torch.from_numpy((rows * 37 % 251).astype(np.uint8))
            yield Batch([rows], [values.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)])

    def digest(self) -> str:
        return str(self.count)

    def notes(self) -> list[str]:
        return []


class WideFeatures:
    name = "wide"
    dimensions = 256
    weights_sha256 = ""
    recipe = "scaled"

    def __call__(self, images):
        mean = images.float().mean(dim=(1, 2, 3), keepdim=False)[:, None]
        return torch.sin(mean * torch.arange(1, 257) * 0.37)


def peak_of(count: int) -> int:
    tracemalloc.start()
    extract(ManyImages(count), WideFeatures(), batch_size=500, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_memory_is_flat_from_a_thousand_images_to_a_hundred_thousand(monkeypatch):
    monkeypatch.setattr("fid.extraction.KEPT_FEATURES", 1000)
    small, large = peak_of(1000), peak_of(100_000)
    # 100,000 x 256 features would be 102 MB; the random rows to keep are drawn from 0.8 MB.
    assert large < small + 12 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_statistics_are_of_all_images_and_features_of_some(monkeypatch):
    monkeypatch.setattr("fid.extraction.KEPT_FEATURES", 100)
    measured = extract(ManyImages(700), WideFeatures(), batch_size=64, progress=False)
    assert measured.statistics.count == 700
    assert len(measured.features) == 100
    assert len(set(measured.rows)) == 100
    source, extractor = ManyImages(700), WideFeatures()
    everything = torch.cat([extractor(batch.images[0]) for batch in source.batches(700)])
    whole = statistics_of_features(everything.numpy())
    np.testing.assert_allclose(measured.statistics.mean, whole.mean, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(measured.features, everything.numpy()[measured.rows])


def test_the_cache_keeps_what_was_measured(tmp_path, tiny_set):
    class Colours(WideFeatures):
        calls = 0

        def __call__(self, images):
            type(self).calls += 1
            return super().__call__(images)

    source = SetImages("tiny", tiny_set)
    first = extract(source, Colours(), cache=tmp_path, progress=False)
    calls = Colours.calls
    second = extract(source, Colours(), cache=tmp_path, progress=False)
    assert Colours.calls == calls
    assert second.cached
    assert second.statistics.equals(first.statistics)
    other = Colours()
    other.recipe = "another"
    assert not extract(source, other, cache=tmp_path, progress=False).cached
    assert Colours.calls > calls


def test_the_cache_keeps_samples_of_which_only_some_features_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("fid.extraction.KEPT_FEATURES", 100)
    fresh, cached = (
        extract(ManyImages(200), WideFeatures(), cache=tmp_path, progress=False) for _ in range(2)
    )
    assert cached.cached
    assert cached.statistics.equals(fresh.statistics)
    np.testing.assert_array_equal(cached.features, fresh.features)


def test_remembered_images_are_spoken_of_as_they_are_now(tmp_path, write_images):
    folder = write_images(tmp_path / "before", 6)
    Image.fromarray(np.full((20, 20), 9, np.uint8)).save(folder / "0007.png")
    (folder / "0008.png").write_bytes(b"nonsense")
    rules = ReadingRules(skip_bad=True)

    def measured(path):
        source = open_side(str(path), rules)
        found = extract(source, WideFeatures(), cache=tmp_path / "cache", progress=False)
        return source, found

    _, fresh = measured(folder)
    folder.rename(tmp_path / "after")
    source, cached = measured(tmp_path / "after")
    assert cached.cached
    assert cached.notes == [note.replace("before", "after") for note in fresh.notes]
    assert "after/0008.png is corrupt" in cached.notes[0]
    assert source.shapes == {(3, 32, 32): 6, (1, 20, 20): 1}
    assert source.looked
    assert source.bad_rows().tolist() == [7]


def test_an_array_is_kept_whole_where_it_is_small(rng):
    features = rng.normal(size=(50, 4))
    measured = features_of_array(features)
    np.testing.assert_array_equal(measured.features, features)
    assert measured.statistics.count == 50


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, tiny_set, capsys):
    (tmp_path / "cache").write_text("a file where a folder should be")
    found = extract(
        SetImages("tiny", tiny_set), WideFeatures(), cache=tmp_path / "cache", progress=False
    )
    assert found.statistics.count == len(tiny_set)
    assert "are not kept for the next run" in capsys.readouterr().err
