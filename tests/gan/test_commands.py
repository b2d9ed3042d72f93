"""The commands as a user types them: files, exit statuses, one line for wrong input."""

import json
import shutil

import pytest
import torch
from PIL import Image

from galaxies.hdf5 import write_hdf5
from galaxies.sources import open_image_set
from gan import trial
from gan.generate import main as generate_main
from gan.preparation import prepare
from gan.train import main as train_main
from gan.training_config import CPU_WIDTH
from gan.training_data import resize_set

QUICK = ["--size", "32", "--width", "0.05", "--batch-size", "8", "--steps", "4"]
QUICK += ["--log-every", "2", "--evaluate-every", "4"]
QUICK += ["--precision", "float32", "--device", "cpu", "--judge", "none"]


@pytest.fixture(scope="module")
def run_folder(tiny_set_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("command") / "run"
    words = ["--data", str(tiny_set_path), "--class", "0", "--out", str(out), *QUICK]
    assert train_main(words) == 0
    return out


def test_help_loads_nothing_heavy_and_names_every_part(run_without_loading):
    code = "from gan.train import main; main(['--help'])"
    told = run_without_loading(code, "torch", "h5py", "matplotlib")
    for flag in ("--class", "--recipe", "--r1", "--augment-probability", "--resume", "--dry-run"):
        assert flag in told


def test_dry_run_prints_the_published_counts(tiny_set_path, tmp_path, capsys):
    words = ["--data", str(tiny_set_path), "--class", "0", "--recipe", "dcgan"]
    words += ["--scope", "class", "--dry-run", "--json", "--precision", "float32"]
    assert train_main([*words, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["generator_parameters"] == 3_576_704
    assert report["discriminator_parameters"] == 2_765_568
    assert report["memory_bytes"]["activations"] > 0
    assert report["seconds_estimated"] > 0
    assert report["seconds_left_out"] == "20 evaluations and the training of their judge"
    assert report["recipe_parts"]["beta1"] == 0.5
    assert not (tmp_path / "run").exists()


def test_a_dry_run_weighs_plain_and_penalised_steps(tiny_config, tiny_set, monkeypatch):
    monkeypatch.setattr(trial, "_seconds_of", lambda stepper, number, device: (9.0, 1.0)[number])
    cpu = torch.device("cpu")
    for every, seconds in ((8, 2.0), (1, 9.0)):
        config = tiny_config(penalty_every=every, batch_size=2 * trial.TRIAL_BATCH)
        found = trial.seconds_per_step(prepare(config, tiny_set), config, cpu, torch.float32)
        assert found == pytest.approx(2 * seconds)


def test_what_is_said_where_no_smaller_size_can_be_made(tiny_set, tmp_path, capsys, monkeypatch):
    """It once advised --size 32 instead of --size 32."""
    monkeypatch.setattr(trial, "describe_dry_run", lambda *arguments: {})
    write_hdf5(resize_set(tiny_set, 20), tmp_path / "20.h5")
    words = ["--data", str(tmp_path / "20.h5"), "--class", "0", "--dry-run", "--device", "cpu"]
    assert train_main(words) == 0
    told = capsys.readouterr().err
    assert "20 pixels are enlarged to 32" in told
    assert "no smaller size can be made" in told
    assert "--size" not in told


@pytest.mark.parametrize(
    ("size", "said"), [("128", "64 pixels are enlarged to 128, which adds no detail"), ("32", "")]
)
def test_an_enlargement_is_warned_of(size, said, tiny_set_path, capsys, monkeypatch):
    monkeypatch.setattr(trial, "describe_dry_run", lambda *arguments: {})
    words = ["--data", str(tiny_set_path), "--class", "0", "--size", size, "--dry-run"]
    assert train_main([*words, "--device", "cpu"]) == 0
    told = capsys.readouterr().err
    assert "resizing images from 64" in told
    assert said in told
    assert ("enlarged" in told) == bool(said)


def test_small_images_are_not_enlarged_unless_asked(tiny_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trial, "describe_dry_run", lambda preparation, *_: preparation.shape.size)
    monkeypatch.setattr("gan.train._print_dry_run", lambda config, size, folder: print(size))
    for side, made in ((64, 64), (32, 32)):
        path = tmp_path / f"{side}.h5"
        write_hdf5(resize_set(tiny_set, side), path)
        words = ["--data", str(path), "--class", "0", "--dry-run", "--device", "cpu"]
        assert train_main(words) == 0
        told = capsys.readouterr()
        assert told.out.strip() == str(made)
        assert "enlarged" not in told.err


def test_resuming_needs_no_flag_but_the_folder(run_folder, capsys):
    assert train_main(["--resume", "--out", str(run_folder), "--steps", "6"]) == 0
    assert "6 steps" in capsys.readouterr().out
    assert train_main(["--resume", "--out", str(run_folder), "--seed", "3"]) == 2
    assert "--seed was 0, now 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "nine"], "there is no class 'nine'"),
        ([], "name the class to make"),
        (["--class", "0", "--size", "69"], "cannot make 69x69 images; choose --size 32, 64"),
        (["--class", "0", "--steps", "0"], "--steps must be at least 1"),
        (["--class", "0", "--evaluation-images", "3"], "--evaluation-images must be at least 4"),
        (["--class", "0", "--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--class", "0", "--device", "gpu"], "--device gpu: unknown"),
        (["--class", "0", "--r1", "-1"], "--r1 must be 0 or more"),
        (["--class", "0", "--pixel-noise", "True", "--recipe", "dcgan"], "--generator style"),
        (["--class", "0", "--data", "/none.h5"], "/none.h5 does not exist"),
        (["--class", "0", "--resume"], "holds no run of class 0; pass --out with the run's folder"),
        (["--class", "0", "--resume", "--overwrite"], "contradict each other"),
    ],
)
def test_wrong_flags_are_one_line(words, message, tiny_set_path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in words else ["--data", str(tiny_set_path)]
    assert train_main([*data, *words]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_and_replaced_when_asked(
    run_folder, tiny_set_path, tmp_path, capsys
):
    words = ["--data", str(tiny_set_path), "--class", "0", *QUICK]
    assert train_main([*words, "--out", str(run_folder)]) == 2
    said = capsys.readouterr().err
    assert "exists; choose another name" in said
    assert f"gan-train --resume --out {run_folder} goes on with the run in it" in said
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("mine")
    assert train_main([*words, "--out", str(tmp_path / "letters"), "--overwrite"]) == 2
    assert "is not a run of gan-train" in capsys.readouterr().err
    assert (tmp_path / "letters" / "a.txt").read_text() == "mine"


def test_generate_a_folder_that_opens_as_a_set_again(run_folder, tmp_path, capsys):
    out = tmp_path / "fake"
    assert generate_main([str(run_folder), "--class", "0", "--count", "5", "--out", str(out)]) == 0
    assert "5 images" in capsys.readouterr().out
    images = open_image_set(out)
    assert len(images) == 5
    record = json.loads((out / "provenance.json").read_text())
    assert record["generator"]["seed"] == 0
    assert len(record["training_fingerprints"]) > 0


def test_generate_a_set_with_the_same_pixels(run_folder, tmp_path):
    words = [str(run_folder), "--class", "0", "--count", "5"]
    assert generate_main([*words, "--out", str(tmp_path / "fake")]) == 0
    assert generate_main([*words, "--out", str(tmp_path / "fake.h5")]) == 0
    folder, packed = open_image_set(tmp_path / "fake"), open_image_set(tmp_path / "fake.h5")
    assert (folder.pixels == packed.pixels).all()
    assert packed.is_synthetic
    assert len(packed.training_fingerprints) > 0


def test_generate_twice_gives_the_same_bytes(run_folder, tmp_path):
    for name in ("a", "b"):
        words = [str(run_folder), "--count", "3", "--seed", "7", "--out", str(tmp_path / name)]
        assert generate_main(words) == 0
    for path in (tmp_path / "a").rglob("*.png"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_the_best_half_by_the_discriminator(run_folder, tmp_path, capsys, monkeypatch):
    """The checkpoint alone does: nothing else is opened, trained or written."""

    def refuse(*arguments, **options):
        raise AssertionError("not needed")

    monkeypatch.setattr("gan.scores.trained_extractor", refuse)
    monkeypatch.setattr("gan.scores.training_images", refuse)
    out = tmp_path / "best.h5"
    words = [str(run_folder), "--count", "6", "--keep", "0.5", "--by", "discriminator"]
    before = sorted(run_folder.rglob("*"))
    assert generate_main([*words, "--out", str(out)]) == 0
    assert "the best 6 of 12 by discriminator, 6 removed" in capsys.readouterr().out
    images = open_image_set(out)
    assert images.feature_names == ("discriminator",)
    (how,) = images.provenance["generator"]["filter"].values()
    assert (how["generated"], how["kept"]) == (12, 6)
    assert images.features[:, 0].min() == pytest.approx(how["least_score_kept"], rel=1e-5)
    assert sorted(run_folder.rglob("*")) == before


def test_all_scores_beside_a_choice_by_distance(run_folder, tmp_path, monkeypatch):
    words = [str(run_folder), "--count", "4", "--keep", "0.5", "--by", "distance"]
    assert generate_main([*words, "--out", str(tmp_path / "one.h5")]) == 0  # trains nothing
    monkeypatch.setattr(
        "gan.scores.trained_extractor", lambda *a, **k: lambda pixels: pixels.float().mean((2, 3))
    )
    assert generate_main([*words, "--scores", "--out", str(tmp_path / "all.h5")]) == 0
    one, every = (open_image_set(tmp_path / name) for name in ("one.h5", "all.h5"))
    assert one.feature_names == ("distance",)
    assert every.feature_names == ("discriminator", "classifier", "distance")
    assert one.features[:, 0].tolist() == every.features[:, 2].tolist()
    assert one.ids.tolist() == every.ids.tolist()


def test_a_set_that_has_moved_is_named_with_data(run_folder, tiny_set, tmp_path, capsys):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    record = (folder / "config.json").read_text()
    source = json.loads(record)["data"]["source"]
    (folder / "config.json").write_text(record.replace(source, "/gone/set.h5"))
    words = [str(folder), "--count", "2", "--keep", "0.5", "--by", "distance"]
    words += ["--out", str(tmp_path / "best.h5")]
    assert generate_main(words) == 2
    assert "/gone/set.h5 does not exist; if it has moved, pass --data" in capsys.readouterr().err
    assert generate_main([*words, "--data", source]) == 0


@pytest.mark.parametrize("name", ["star/galaxy", ".hidden", "銀河" * 60])
def test_a_class_that_names_no_folder_is_refused_before_anything_is_made(
    name, run_folder, tmp_path, capsys, monkeypatch
):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    record = json.loads((folder / "config.json").read_text())
    record["data"]["class_names"][0] = name
    (folder / "config.json").write_text(json.dumps(record))
    monkeypatch.setattr("gan.output.generate", None)  # never called
    assert generate_main([str(folder), "--out", str(tmp_path / "fake")]) == 2
    assert "cannot name a folder; write a set: --out NAME.h5" in capsys.readouterr().err
    assert not (tmp_path / "fake").exists()


def test_interpolation_writes_a_strip_and_a_film(run_folder, tmp_path):
    out = tmp_path / "walk"
    assert generate_main([str(run_folder), "--interpolation", "--out", str(out)]) == 0
    assert Image.open(out / "strip.png").size == (8 * 33 - 1, 32)
    assert Image.open(out / "film.gif").n_frames > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "7", "--out", "x"], "cannot make class '7'"),
        ([], "name the output with --out"),
        (["--out", "x", "--count", "0"], "--count must be at least 1"),
        (["--out", "x", "--keep", "0.5"], "--keep below 1 and --by belong together"),
        (["--out", "x", "--step", "2"], "holds no snapshot of step 2; gan-train keeps them with"),
        (["--out", "x.npz"], "x.npz is named like a file that is not written here; end it in .h5"),
        (["--out", "x", "--truncation", "0"], "--truncation must be above 0"),
    ],
)
def test_wrong_generate_flags(words, message, run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert generate_main([str(run_folder), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_checkpoint(tmp_path, capsys):
    assert generate_main([str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "is not a checkpoint of gan-train" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "width"), [("tail", CPU_WIDTH), ("dcgan", 1.0)])
def test_without_a_width_a_cpu_gets_a_narrow_tail_and_the_published_dcgan(
    recipe, width, tiny_set_path, capsys
):
    words = ["--data", str(tiny_set_path), "--class", "0", "--recipe", recipe, "--size", "32"]
    words += ["--device", "cpu", "--precision", "float32", "--dry-run", "--json"]
    assert train_main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["network"]["width"] == told["command"]["width"] == width


def test_a_folder_of_another_hand_survives_overwrite(run_folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years")
    for extra in (["--interpolation"], ["--class", "0", "--count", "2"]):
        words = [str(run_folder), *extra, "--out", str(tmp_path), "--overwrite"]
        assert generate_main(words) == 2
        assert "not overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert generate_main([str(run_folder), "--interpolation", "--out", "film.h5"]) == 2
    assert "writes a folder of pictures" in capsys.readouterr().err


def test_interrupted_before_the_first_step_it_can_begin_anew(
    tiny_set_path, tmp_path, monkeypatch, capsys
):
    """Ctrl-C while the judge trains."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    words = ["--data", str(tiny_set_path), "--class", "0", "--out", str(tmp_path / "run"), *QUICK]
    words[-1] = "classifier"
    with monkeypatch.context() as patch:
        patch.setattr("gan.evaluation.trained_extractor", interrupted)
        assert train_main(words) == 130
    assert "nothing to resume; begin anew with --overwrite" in capsys.readouterr().err

    def features(pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 8).flatten(1)

    monkeypatch.setattr("gan.evaluation.trained_extractor", lambda *a, **k: features)
    assert train_main([*words, "--overwrite"]) == 0


def test_a_checkpoint_of_another_command_is_not_overwritten(tiny_set_path, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"kind": "classifier"}')
    words = ["--data", str(tiny_set_path), "--class", "0", "--out", str(tmp_path), *QUICK]
    assert train_main([*words, "--overwrite"]) == 2
    assert "not a run of gan-train" in capsys.readouterr().err
    assert (tmp_path / "config.json").is_file()


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "the graphics card",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "this machine"),
        (MemoryError(), "this machine"),
        (RuntimeError("another bug"), None),
    ],
)
def test_memory_that_does_not_suffice_is_one_line(
    error, whose, tiny_set_path, tmp_path, monkeypatch, capsys
):
    def full(*arguments, **options):
        raise error

    monkeypatch.setattr("gan.preparation.prepare", full)
    words = ["--data", str(tiny_set_path), "--class", "0", "--out", str(tmp_path / "run"), *QUICK]
    if whose is None:
        with pytest.raises(RuntimeError, match="another bug"):
            train_main(words)
        return
    assert train_main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert f"the memory of {whose} does not suffice; lower --batch-size" in said[-1]
