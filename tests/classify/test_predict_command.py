"""``classify-predict`` and the service: the same file gives the same numbers everywhere."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classify.checkpoint import load_classifier
from classify.predict import run
from classify.service import ClassifierService, Questions, load_service
from galaxies.errors import InputError
from galaxies.image_files import encode_png
from galaxies.image_set import ImageSet


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> ClassifierService:
    return load_service(checkpoint)


@pytest.fixture(scope="module")
def folder(little_set: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test side as PNG files in one sub-folder per class."""
    root = tmp_path_factory.mktemp("files")
    test = little_set.side("test")
    for name, label, pixels in zip(test.ids, test.labels, test.pixels, strict=True):
        path = root / test.class_names[label] / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(pixels.permute(1, 2, 0).numpy()))
    return root


def test_a_file_gives_the_probability_of_the_training_report(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, bytes and array give what the training wrote of the same image."""
    with (checkpoint / "test_predictions.csv").open() as file:
        reported = {row["id"]: row for row in csv.DictReader(file)}
    assert run([str(checkpoint), str(folder), "--recursive", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed) == len(reported) == 30
    for answer in printed:
        row = reported[Path(answer["file"]).stem]
        assert answer["class"] == row["predicted"]
        for name, value in answer["probabilities"].items():
            assert value == pytest.approx(float(row[f"p_{name}"]), rel=1e-4, abs=1e-6)


def test_file_bytes_and_array_agree(service: ClassifierService, folder: Path) -> None:
    path = sorted(folder.rglob("*.png"))[0]
    array = np.asarray(Image.open(path))
    answers = service.predict([("a.png", path), ("b.png", path.read_bytes()), ("c", array)])
    one, two, three = ([*answer.probabilities.values()] for answer in answers)
    assert one == pytest.approx(two, abs=1e-9)
    assert one == pytest.approx(three, abs=1e-9)


def test_a_larger_file_is_resized_as_it_was_packed(service: ClassifierService) -> None:
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
    small = np.asarray(large.resize((16, 16), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    answers = service.predict([("large.png", buffer.getvalue()), ("small", small)])
    one, two = ([*answer.probabilities.values()] for answer in answers)
    assert one == pytest.approx(two, abs=1e-9)


def test_an_answer_tells_what_is_known_of_its_class(
    service: ClassifierService, folder: Path
) -> None:
    path = sorted(folder.rglob("*.png"))[0]
    questions = Questions(neighbours=3, grad_cam=True)
    (answer,) = service.predict([("one.png", path)], questions)
    assert answer.label is not None
    assert answer.class_record is not None
    assert answer.class_record["name"] == answer.label
    assert answer.prediction_set is not None
    assert answer.set_in_words
    assert len(answer.neighbours) == 3
    distances = [neighbour.distance for neighbour in answer.neighbours]
    assert distances == sorted(distances)
    assert answer.evidence is not None
    assert answer.evidence.shape == (16, 16)
    assert answer.evidence.min() >= 0
    assert answer.evidence.max() <= 1
    assert service.card.startswith("---")
    assert service.metrics["images"] == 30


def test_a_training_image_is_its_own_nearest(
    service: ClassifierService, little_set: ImageSet
) -> None:
    train = little_set.side("train")
    answers = service.predict_pixels(
        train.ids[:4].tolist(), train.pixels[:4], Questions(neighbours=1)
    )
    assert [answer.neighbours[0].id for answer in answers] == train.ids[:4].tolist()
    examples = service.reference.examples
    assert examples is not None
    assert torch.equal(examples.read(np.array([answers[0].neighbours[0].row]))[0], train.pixels[0])


def test_an_image_unlike_the_training_data_is_flagged(
    service: ClassifierService, little_set: ImageSet
) -> None:
    pattern = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    pattern[:, 0, ::2] = 255
    pattern[:, 2, :, ::3] = 255
    (strange,) = service.predict_pixels(["pattern"], pattern)
    assert strange.unlike_training
    test = little_set.side("test")
    known = service.predict_pixels(test.ids.tolist(), test.pixels)
    assert sum(bool(answer.unlike_training) for answer in known) <= 4


def test_a_bad_file_is_answered_beside_the_good_ones(
    service: ClassifierService, folder: Path
) -> None:
    path = sorted(folder.rglob("*.png"))[0]
    cut = path.read_bytes()[:60]
    answers = service.predict([("cut.png", cut), ("good.png", path), ("text.png", b"hello")])
    assert [answer.error is None for answer in answers] == [False, True, False]
    assert "cut.png" in str(answers[0].error)
    assert set(answers[0].as_json()) == {"file", "error"}


def test_every_bad_file_is_named_and_nothing_is_written(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted(folder.rglob("*.png"))[0]
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"not an image")
    table = tmp_path / "table.csv"
    arguments = [str(checkpoint), str(good), str(tmp_path / "one.png"), str(tmp_path / "two.png")]
    assert run([*arguments, "--csv", str(table)]) == 2
    error = capsys.readouterr().err
    assert "2 of 3 images" in error
    assert "one.png" in error
    assert "two.png" in error
    assert not table.exists()
    assert run([*arguments, "--csv", str(table), "--skip-bad"]) == 0
    assert "left out 2 of 3" in capsys.readouterr().err
    assert len(table.read_text().splitlines()) == 2


def test_a_set_a_pattern_and_shards(
    checkpoint: Path, little_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = str(little_path.parent / "*.h5")
    assert run([str(checkpoint), pattern, "--side", "test", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert len(whole) == 30
    parts = []
    for shard in ("1/2", "2/2"):
        arguments = [str(checkpoint), str(little_path), "--side", "test", "--shard", shard]
        assert run([*arguments, "--json", "--batch-size", "7"]) == 0
        parts.append(json.loads(capsys.readouterr().out))
    together = [answer for pair in zip(*parts, strict=True) for answer in pair]
    assert [a["file"] for a in together] == [a["file"] for a in whole]
    for one, two in zip(together, whole, strict=True):
        assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    ("ending", "refusal"),
    [("h5", "no dataset 'ans' with the labels"), ("npz", "needs arrays 'images' and 'labels'")],
)
def test_a_set_without_labels_is_predicted_and_not_evaluated(
    ending: str,
    refusal: str,
    checkpoint: Path,
    little_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import h5py

    bare = tmp_path / f"bare.{ending}"
    with h5py.File(little_path) as labelled:
        images = labelled["images"][:5]
    if ending == "npz":
        np.savez(bare, images=images)
    else:
        with h5py.File(bare, "w") as file:
            file["images"] = images
    assert run([str(checkpoint), str(bare), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == 5
    assert run([str(checkpoint), str(little_path), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert [a["class"] for a in answers] == [a["class"] for a in whole[:5]]
    assert run([str(checkpoint), str(bare), "--evaluate"]) == 2
    assert refusal in capsys.readouterr().err


def test_evaluate_reports_classes_and_coverage_of_labelled_images(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(checkpoint), str(folder), "--recursive", "--evaluate"]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((checkpoint / "metrics.json").read_text())
    assert f"accuracy {stored['accuracy']:.3f}" in printed
    assert "sets hold the truth" in printed


def test_the_table_has_id_class_probabilities_set_and_flags(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    assert run([str(checkpoint), str(folder), "--recursive", "--csv", str(table)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= {"id", "class", "p_double", "p_round", "set", "unlike_training"}
    assert sum(float(rows[0][f"p_{n}"]) for n in ("double", "round", "elongated")) == pytest.approx(
        1
    )


def test_parquet_holds_the_same_table(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "table.parquet"
    assert run([str(checkpoint), str(folder), "--recursive", "--csv", str(table)]) == 0
    assert parquet.read_table(table).num_rows == 30


def test_evidence_pictures_are_written(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    arguments = [str(checkpoint), str(folder / "double"), "--grad-cam", str(out)]
    assert run(arguments) == 0
    pictures = sorted(out.iterdir())
    assert len(pictures) == 6
    with Image.open(pictures[0]) as image:
        assert image.width == 2 * image.height >= 512


def test_pictures_of_another_hand_survive_overwrite(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder / "double", own)
    arguments = [str(checkpoint), str(own), "--grad-cam", str(own), "--overwrite"]
    assert run(arguments) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert len(list(own.iterdir())) == 6
    again = [str(checkpoint), str(own), "--grad-cam", str(tmp_path / "evidence")]
    assert run(again) == 0
    assert run([*again, "--overwrite"]) == 0


@pytest.mark.parametrize("flag", [["--average-symmetries"], ["--dropout-samples", "4"]])
def test_repeated_views_answer_every_image(
    flag: list[str], checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(checkpoint), str(folder / "round"), *flag, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert all(sum(a["probabilities"].values()) == pytest.approx(1) for a in answers)
    if "--dropout-samples" in flag:
        assert all(answer["disagreement"] >= 0 for answer in answers)
    assert all(answer["set"] is None for answer in answers)  # calibrated for single views


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent.png"], "absent.png does not exist"),
        (["nothing-*.png"], "no file matches"),
        ([], "give at least one image"),
        (["x", "--level", "1.5"], "--level lies between 0 and 1"),
        (["x", "--shard", "3/2"], "--shard must be I/N"),
        (["x", "--average-symmetries", "--dropout-samples", "2"], "contradict each other"),
        (["x", "--csv", "table.xlsx"], "must end in .csv or .parquet"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(checkpoint), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_labels_of_other_classes_are_refused_before_anything_is_written(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quasar").mkdir()
    shutil.copy(sorted(folder.rglob("*.png"))[0], tmp_path / "quasar" / "a.png")
    table = tmp_path / "table.csv"
    arguments = [str(checkpoint), str(tmp_path / "quasar"), "--evaluate", "--csv", str(table)]
    assert run(arguments) == 2
    told = capsys.readouterr()
    assert "not classes of the checkpoint: quasar" in told.err
    assert told.out == ""
    assert not table.exists()


def test_an_evaluation_of_training_images_says_so(
    checkpoint: Path, little_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(checkpoint), str(little_path), "--evaluate"]) == 0
    assert "at least 60 of the 120 images are training images" in capsys.readouterr().err
    assert run([str(checkpoint), str(little_path), "--evaluate", "--side", "test"]) == 0
    assert "training images" not in capsys.readouterr().err


def test_a_shard_without_an_image_still_writes_its_table(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An array job with more parts than images is no failure."""
    image, table = sorted(folder.rglob("*.png"))[0], tmp_path / "none.csv"
    arguments = [str(checkpoint), str(image), "--json", "--csv", str(table)]
    assert run([*arguments, "--shard", "2/2"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == []
    assert "shard 2/2 holds no image" in told.err
    header = table.read_text().strip()
    assert run([*arguments, "--overwrite"]) == 0
    assert table.read_text().splitlines()[0] == header


def test_advice_names_no_flag_of_another_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(deep)
    assert run([str(checkpoint), str(deep)]) == 2
    told = capsys.readouterr().err
    assert "convert it to 8 bits" in told
    assert "--scale-16-bit" not in told


def test_a_row_of_flux_that_is_no_number_is_left_out_alone() -> None:
    from classify.inputs import Item, read_batches
    from classify.reading import ImageReader
    from galaxies.image_set import PixelsInMemory
    from galaxies.pixels import Stretch

    flux = torch.rand(4, 1, 16, 16)
    flux[2, 0, 3, 3] = float("nan")
    ids = np.array(["a", "b", "c", "d"])
    held = ImageSet(
        store=PixelsInMemory(flux), labels=np.zeros(4, np.int64), class_names=("x",), ids=ids,
        stretch=Stretch(0.0, 1.0, 0.1),
    )  # fmt: skip
    items = [Item(str(name), None, image_set=held, row=row) for row, name in enumerate(ids)]
    (batch,) = read_batches(items, ImageReader(16, 1, takes_flux=True), 8)
    assert [item.name for item in batch.items] == ["a", "b", "d"]
    assert torch.equal(batch.pixels, flux[[0, 1, 3]])
    assert "c" in batch.bad[0][1]


def test_without_held_out_images_nothing_is_called_like_the_training(
    service: ClassifierService, little_set: ImageSet
) -> None:
    known = service.reference.neighbours
    assert known is not None
    unknown = dataclasses.replace(known, threshold=float("inf"))
    reference = dataclasses.replace(service.reference, neighbours=unknown)
    blind = ClassifierService(service.classifier, reference, service.folder)
    (answer,) = blind.predict_pixels(["a"], little_set.pixels[:1])
    assert answer.unlike_training is None
    assert answer.distance is not None


def test_a_set_of_other_bands_is_not_sent_to_be_resized(
    checkpoint: Path, little_set: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "grey.npz", images=little_set.pixels[:3, 0].numpy())
    assert run([str(checkpoint), str(tmp_path / "grey.npz")]) == 2
    told = capsys.readouterr().err
    assert "takes 16x16 with 3; its bands are not those" in told


def test_a_set_of_another_size_is_refused(
    checkpoint: Path, tiny_set_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(checkpoint), str(tiny_set_path)]) == 2
    assert "takes 16x16 with 3" in capsys.readouterr().err


def test_a_folder_that_is_no_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(tmp_path), "x.png"]) == 2
    assert "is not a checkpoint" in capsys.readouterr().err


def test_a_tensor_of_another_size_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="16x16 with 3 channels, got 32x32 with 1"):
        load_classifier(checkpoint).logits(torch.zeros(1, 1, 32, 32, dtype=torch.uint8))


def test_a_dask_cluster_gives_the_same_table(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the dask extra")
    words = [str(checkpoint), str(folder), "--recursive", "--batch-size", "7", "--csv"]
    assert run([*words, str(tmp_path / "here.csv")]) == 0
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        there = [*words, str(tmp_path / "there.csv"), "--dask", cluster.scheduler_address]
        assert run(there) == 0
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    monkeypatch.setattr("classify.dask_client.PATIENCE", "1s")
    assert run([*words, str(tmp_path / "none.csv"), "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("reference.safetensors", 0.5),
        ("weights.safetensors", 0.5),
        ("log.jsonl", 0.97),
        ("examples.h5", 0.5),
        ("config.json", 0.5),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    name: str, cut: float, checkpoint: Path, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    own = tmp_path / "own"
    shutil.copytree(checkpoint, own)
    content = (own / name).read_bytes()
    (own / name).write_bytes(content[: int(cut * len(content))])
    assert run([str(own), str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(own) in error


def test_a_key_that_is_absent_is_one_line(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(checkpoint, own)
    description = json.loads((own / "config.json").read_text())
    del description["class_names"]
    (own / "config.json").write_text(json.dumps(description))
    assert run([str(own), str(folder)]) == 2
    assert "damaged classifier checkpoint ('class_names')" in capsys.readouterr().err
