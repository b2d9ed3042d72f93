import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from classify.experiment.quality import features_of, rank_correlation, related_to_gains
from classify.experiment.screening import (
    SAME_TRAINING,
    earlier_points,
    in_words,
    predict,
    recipe_of,
)


def test_rank_correlation_is_spearmans_with_an_exact_p() -> None:
    quality, gain = [0.1, 0.4, 0.2, 0.9, 0.5, 0.7], [3.0, 2.0, 2.5, -1.0, 1.0, 1.5]
    found = rank_correlation(quality, gain)
    assert found["correlation"] == pytest.approx(stats.spearmanr(quality, gain).statistic)
    exact = stats.permutation_test(
        (quality,), lambda x: stats.spearmanr(x, gain).statistic,
        permutation_type="pairings", n_resamples=np.inf,
    )  # fmt: skip
    assert found["p"] == pytest.approx(exact.pvalue, abs=1e-9)
    low, high = found["interval"]
    assert -1 < low < found["correlation"] < high < 1


def test_a_perfect_order_of_four_is_not_certain() -> None:
    found = rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    assert found["correlation"] == pytest.approx(1)
    assert found["p"] == pytest.approx(2 / 24)
    assert found["interval"][0] < 0


def test_the_interval_covers_at_about_its_level(rng: np.random.Generator) -> None:
    covered = 0
    for _ in range(300):
        x = rng.normal(size=20)
        interval = rank_correlation(list(x), list(rng.normal(size=20)))["interval"]
        covered += interval[0] <= 0 <= interval[1]
    assert 0.90 <= covered / 300 <= 0.99


def test_few_or_unknown_pairs_have_no_correlation() -> None:
    assert rank_correlation([1, 2, 3], [1, 2, 3])["correlation"] is None
    assert rank_correlation([1, None, 3, 4], [1, 2, None, 4])["count"] == 2
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])["correlation"] is None


def test_a_prediction_follows_the_line_and_says_how_far_it_may_be_off(
    rng: np.random.Generator,
) -> None:
    points = [
        {"measures": {"kernel_distance": k, "coverage": rng.random()}, "gain": 0.08 - 0.1 * k}
        for k in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    for point in points:
        point["gain"] += rng.normal(0, 0.002)
    found = predict(points, {"kernel_distance": 0.6, "coverage": 0.5})
    assert found["best"] == "kernel_distance"
    best = found["by_measure"]["kernel_distance"]
    assert best["prediction"] == pytest.approx(0.02, abs=0.005)
    assert best["interval"][0] < 0.02 < best["interval"][1]
    assert best["interval"][1] - best["interval"][0] < 0.04
    assert "kernel distance (KID) predicts +" in in_words("new", found)


def test_no_prediction_from_too_few_or_from_other_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = predict([{"measures": {"coverage": 0.1}, "gain": 0.0}], {"coverage": 0.2})
    assert found["best"] is None
    assert "no prediction; it needs 4 other generators" in in_words("new", found)
    assert in_words("new", found).endswith("and 1 are known")
    now = {"features": "classifier", "weights_sha256": "w"}
    quality = now | {"points": [{"measures": {}, "gain": 0.1}]}
    settings = {
        "data_sha256": "x", "measure": "recall", "model": "small", "steps": 400, "batch_size": 64,
        "learning_rate": 0.002, "best_by": "loss", "keep": 0, "false_positive_rate": 0.02,
    }  # fmt: skip
    results = {"class": "merger", "settings": settings, "quality": quality}
    (tmp_path / "results.json").write_text(json.dumps(results))
    twice = [tmp_path, tmp_path]  # one generator in two experiments
    assert len(earlier_points(twice, "merger", settings, now)) == 1
    assert earlier_points([tmp_path], "spiral", settings, now) == []
    assert earlier_points([tmp_path], "merger", settings, now | {"weights_sha256": "v"}) == []
    assert earlier_points([tmp_path / "none"], "merger", settings, now) == []
    for other in ({"data_sha256": "y"}, {"measure": "average_precision"}, {"steps": 800}):
        assert earlier_points([tmp_path], "merger", settings | other, now) == []
    assert "cannot be compared, it has other steps; left out" in capsys.readouterr().err
    # The rate matters where recalls are matched at it, and nowhere else.
    assert (
        len(earlier_points([tmp_path], "merger", settings | {"false_positive_rate": 0.1}, now)) == 1
    )


def test_the_hardest_generator_is_not_left_out_of_the_error() -> None:
    """All but one of one quality: without the other one there is no line, and it is far off."""
    points = [
        {"measures": {"coverage": x}, "gain": y}
        for x, y in ((0.0, 0.01), (0.0, 0.012), (0.0, 0.011), (0.0, 0.01), (5.0, -0.3))
    ]
    error = predict(points, {"coverage": 5.0})["by_measure"]["coverage"]["left_out_error"]
    assert error == pytest.approx(0.31 / 5**0.5, rel=0.02)


def _points(count: int, **changes: object) -> list[dict[str, Any]]:
    return [
        {
            "name": f"g{n}", "sha256": f"s{n}", "training": f"run-{n}", "interval": [0.0, 0.1],
            "measures": {"kernel_distance": 1.0 - 0.1 * n, "coverage": 0.5 + (n % 3)},
            "gain": 0.01 * n, **changes,
        }
        for n in range(count)
    ]  # fmt: skip


def test_a_generator_that_was_given_twice_counts_once(tmp_path: Path) -> None:
    points = _points(6)
    once = related_to_gains(points, tmp_path, None)
    twice = related_to_gains([*points, {**points[-1], "name": "again"}], tmp_path, None)
    assert twice["relations"] == once["relations"]
    assert len(twice["points"]) == 7
    assert "Over 6 generators" in twice["sentence"]
    assert once["relations"][0]["p_holm"] == pytest.approx(2 * once["relations"][0]["p"])


def test_snapshots_of_one_training_are_not_called_independent(tmp_path: Path) -> None:
    apart = related_to_gains(_points(6), tmp_path, None)["sentence"]
    assert "independent" not in apart
    together = related_to_gains(_points(6, training="run"), tmp_path, None)["sentence"]
    assert "come from 1 training only: snapshots of one training are not independent" in together
    older = [{k: v for k, v in p.items() if k not in ("training", "sha256")} for p in _points(6)]
    assert related_to_gains(older, tmp_path, None)["sentence"] == apart


def test_the_number_of_generators_is_that_of_known_gains(tmp_path: Path) -> None:
    points = [*_points(3), *_points(3, gain=None, sha256="x")]
    assert related_to_gains(points, tmp_path, None)["sentence"].startswith("3 generators with a")
    equal = related_to_gains(_points(5, gain=0.0), tmp_path, None)["sentence"]
    assert equal.startswith("5 generators with equal gains")


def test_a_prediction_is_about_one_kind_of_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gain of half a dose, or of plain training, is not that of one image per real one."""
    names = ("gan:a", "balanced+gan:a@1", "gan:a@0.5", "plain+gan", "gan@1+filtered")
    assert [recipe_of(name) for name in names] == [
        "gan@1", "gan@1", "gan@0.5", "plain+gan@1", "gan@1+filtered",
    ]  # fmt: skip
    now = {"features": "classifier", "weights_sha256": "w"}
    settings = dict.fromkeys(SAME_TRAINING, 1) | {"measure": "recall"}
    for name, dose, count in (("one", 1, 4), ("half", 0.5, 2)):
        points = [{**p, "arm": f"gan:{p['name']}@{dose}"} for p in _points(count)]
        results = {"class": "merger", "settings": settings, "quality": {**now, "points": points}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    folders = [tmp_path / "half", tmp_path / "one"]
    found = earlier_points(folders, "merger", settings, now)
    assert [point["arm"] for point in found] == [f"gan:g{n}@1" for n in range(4)]
    error = capsys.readouterr().err
    assert "what gan@0.5 gained with 2 generators is left out: the prediction is about gan@1" in (
        error
    )
    predicted = predict(found, {"kernel_distance": 0.5})
    assert "points of average precision for gan@1 (95 %" in in_words(
        "new", predicted, "average_precision"
    )


def test_features_are_taken_of_few_images_at_a_time(tiny_set):
    """A network that enlarges images to 224 pixels would take many gigabytes for all at once."""
    seen = []

    def extractor(images):
        seen.append(len(images))
        return images.float().mean((2, 3))

    found = features_of(extractor, tiny_set)
    assert sum(seen) == len(found) == len(tiny_set)
    assert max(seen) <= 50
    np.testing.assert_allclose(found, tiny_set.pixels.double().mean((2, 3)).numpy(), rtol=1e-6)
