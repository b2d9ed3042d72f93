"""One road from files to answers: the same numbers everywhere, and an answer for every file."""

import csv
import dataclasses
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from strange_files import strange_files

from app import served, serving
from app.answers import answer_files, answer_samples, as_csv, explain, nearest_real
from app.cli import ClassifyAppConfig
from app.uploads import Limits
from galaxies.image_set import ImageSet

LEVEL = 0.9


def test_the_numbers_are_those_of_classify_predict(
    serve: Callable[..., None],
    galaxy_files: list[tuple[str, bytes]],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from classify.predict import run

    serve()
    answers = answer_files(galaxy_files, LEVEL)
    for name, content in galaxy_files:
        (tmp_path / name).write_bytes(content)
    capsys.readouterr()
    assert run([str(checkpoint), str(tmp_path), "--json", "--level", str(LEVEL)]) == 0
    by_name = {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert len(by_name) == len(answers) == 6
    for answer in answers:
        told = by_name[answer.name]
        assert answer.prediction.label == told["class"]
        assert answer.prediction.prediction_set == told["set"]
        assert answer.prediction.probabilities == pytest.approx(told["probabilities"], abs=1e-6)


def test_every_strange_file_gets_an_answer(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    good = galaxy_files[0][1]
    expected = answer_files([("good.png", good)], LEVEL)[0].prediction.probabilities
    refused, answered = set(), set()
    for name, content in strange_files(good):
        for answer in answer_files([(name, content), ("good.png", good)], LEVEL):
            (refused if answer.error else answered).add(answer.name)
            if answer.error:
                assert "Traceback" not in answer.error
                assert "--" not in answer.error
            elif answer.name == "good.png":
                assert answer.prediction.probabilities == pytest.approx(expected, abs=1e-6)
    assert {"text.png", "truncated.png", "animated.gif", "large.png", "all-nan.fits"} <= refused
    assert {"cmyk.jpg", "palette.png", "grey.png", "some-nan.fits"} <= answered
    assert {"nested.zip/fine.png", "tricks.zip/fine.png", "=cmd|' /C calc'!A0.png"} <= answered
    assert {"nested.zip/inner.zip", "tricks.zip/../../a.png", "bomb.zip/9.bmp"} <= refused


@pytest.mark.filterwarnings("ignore")  # the readers complain of the damage, as they should
def test_damaged_files_are_answered(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    """Bytes changed at random in every kind of file that can be decoded."""
    serve()
    chance = random.Random(0)
    whole = [content for _, content in strange_files(galaxy_files[0][1]) if len(content) < 100_000]
    whole = [content for content in whole if content]
    for number in range(300):
        content = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 12)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        assert answer_files([(f"{number}.fits", bytes(content))], LEVEL)
        assert answer_files([(f"{number}.png", bytes(content))], LEVEL)


def test_samples_know_their_catalogue_class(serve: Callable[..., None]) -> None:
    serve()
    answers = answer_samples(LEVEL)
    assert sorted({answer.truth for answer in answers if answer.truth}) == [
        "double",
        "elongated",
        "round",
    ]
    assert all(answer.prediction.label for answer in answers)


def test_samples_of_a_folder(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    for name, content in galaxy_files:
        (tmp_path / name).write_bytes(content)
    serve(samples=tmp_path)
    assert [a.name for a in answer_samples(LEVEL)] == sorted(name for name, _ in galaxy_files)


def test_an_explanation_shows_evidence_and_training_images(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]], tiny_set: ImageSet
) -> None:
    serve()
    (answer,) = answer_files(galaxy_files[:1], LEVEL)
    explanation = explain(answer, LEVEL)
    assert explanation.evidence is not None
    assert explanation.evidence.shape == (64, 64, 3)
    train = {image.tobytes() for image in tiny_set.side("train").pixels.permute(0, 2, 3, 1).numpy()}
    assert all(pixels.tobytes() in train for pixels, _, _ in explanation.similar)
    distances = [distance for _, _, distance in explanation.similar]
    assert distances == sorted(distances)


def test_the_nearest_real_image_of_a_copy_is_its_original(
    serve: Callable[..., None], tiny_set: ImageSet
) -> None:
    serve()
    copies = tiny_set.side("train").read(np.arange(3)).numpy()
    found = nearest_real(copies)
    assert found is not None
    for copy, (pixels, _, distance) in zip(copies, found, strict=True):
        assert np.array_equal(pixels, copy.transpose(1, 2, 0))
        assert distance < 1e-3
    assert nearest_real(copies[:, :, :32, :32]) is None


def test_the_table_holds_every_file_and_no_formula(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    good = galaxy_files[0][1]
    answers = answer_files([("=1+1.png", good), ("bad.png", b"text"), ("a,b.png", good)], LEVEL)
    rows = list(csv.DictReader(io.StringIO(as_csv(answers).decode())))
    assert [row["id"] for row in rows] == ["'=1+1.png", "bad.png", "a,b.png"]
    assert rows[1]["class"] == ""
    assert "not an image" in rows[1]["error"]
    total = sum(float(rows[0][f"p_{name}"]) for name in ("double", "round", "elongated"))
    assert total == pytest.approx(1, abs=1e-9)


def test_limits_bound_one_request(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    answers = answer_files(galaxy_files, LEVEL, Limits(files=2))
    assert [bool(answer.error) for answer in answers] == [False, False, True]


def test_a_checkpoint_removed_while_it_is_served_answers_on(
    checkpoint: Path, galaxy_files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """What was loaded at the start is all that a visit needs, so nothing mixes old with new."""
    own = tmp_path / "own"
    shutil.copytree(checkpoint, own)
    config = ClassifyAppConfig(checkpoint=own)
    with mock.patch("app.serving._AnnouncedServer"):  # everything but listening to visitors
        serving.serve(dataclasses.replace(config, port=0))
    shutil.rmtree(own)
    (answer,) = answer_files(galaxy_files[:1], LEVEL)
    assert explain(answer, LEVEL).similar
    assert answer_samples(LEVEL)
    assert served.card().startswith("---")
