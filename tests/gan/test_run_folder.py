"""Where a run goes without --out, and which run --resume then means."""

import dataclasses
from pathlib import Path

import pytest

from galaxies.command_line import config_as_json, named_on_command_line
from galaxies.errors import InputError
from galaxies.hdf5 import write_hdf5
from gan.build import NetworkShape
from gan.checkpoint import DataDescription, RunDescription, read_state, write_description
from gan.recipes import RECIPES
from gan.run_folder import default_folder, find_run, refuse_existing_run
from gan.train import main
from gan.training_config import TrainConfig

SMALL = ["--generator", "convolutional", "--discriminator", "convolutional", "--size", "32"]
SMALL += ["--width", "0.05", "--batch-size", "8", "--steps", "2", "--device", "cpu"]
SMALL += ["--precision", "float32", "--judge", "none"]


def described(names=("merger", "round"), chosen=(0,), data="simulated", recipe="tail"):
    command = config_as_json(TrainConfig(classes=("0",), data=data, recipe=recipe))
    known = DataDescription(data, tuple(names), (0, 1), chosen, (9, 9), (), 64, None, "")
    return RunDescription(command, RECIPES[recipe], NetworkShape(2, 3, 64, 1.0), known, "float32")


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """Write the record of a run in its default folder under the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(folder: Path | None = None, **changes) -> Path:
        description = described(**changes)
        recipe = str(description.command["recipe"])
        folder = folder or default_folder(recipe, description.data)
        folder.mkdir(parents=True)
        write_description(folder, description)
        return folder

    return write


def meant(*words: str, **flags) -> Path:
    return find_run(TrainConfig(resume=True, **flags), named_on_command_line(words))


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (("merger", "round"), "tail-merger"),
        (("in between/round", "b"), "tail-in_between_round"),
        (("Balkenspirale Größe", "b"), "tail-Balkenspirale_Größe"),
        (("棒渦巻銀河", "b"), "tail-棒渦巻銀河"),
        (("..", "b"), "tail-.."),
    ],
)
def test_a_default_folder_is_named_by_recipe_and_class(names, folder):
    assert default_folder("tail", described(names).data) == Path("checkpoints") / folder


def test_a_name_too_long_for_a_file_system_is_cut_and_stays_its_own():
    """Ten long names once ended in a traceback."""
    names = tuple(f"{'銀河' * 30} {index}" for index in range(10))
    first, second = (
        default_folder("tail", described(names, chosen).data)
        for chosen in (tuple(range(9)), (*range(8), 9))
    )
    assert first != second
    assert len(first.name.encode()) < 250


def test_resume_finds_the_run_of_the_class_by_name_or_index(write_run):
    merger, both = write_run(), write_run(chosen=(0, 1))
    assert meant("--class", "0", classes=("0",)) == merger
    assert meant("--class", "merger", classes=("merger",)) == merger
    assert meant(classes=("0", "round")) == both
    with pytest.raises(InputError, match=r"holds no run of class 1; there are .*tail-merger"):
        meant("--class", "1", classes=("1",))
    with pytest.raises(InputError, match="of class 0 by the recipe dcgan"):
        meant("--class", "0", "--recipe", "dcgan", classes=("0",), recipe="dcgan")
    with pytest.raises(InputError, match=r"--resume may mean .*tail-merger, .*: pass --out"):
        meant()


def test_of_several_runs_the_recipe_and_the_set_decide_as_for_a_new_one(write_run):
    simulated, other = write_run(), write_run(names=("bar", "b"), data="bars.h5")
    plain = write_run(recipe="dcgan")
    assert meant("--class", "0", classes=("0",)) == simulated
    assert meant("--class", "0", "--data", "bars.h5", classes=("0",), data="bars.h5") == other
    assert meant("--recipe", "dcgan", classes=("0",), recipe="dcgan") == plain


def test_runs_of_other_names_and_versions_are_left_alone(write_run):
    """Who gave a run a name of its own means it by that name."""
    write_run(Path("checkpoints/mine"))
    (Path("checkpoints") / "broken").mkdir()
    (Path("checkpoints") / "broken" / "config.json").write_text('{"recipe_parts": {}}')
    with pytest.raises(InputError, match="holds no run of class 0; pass --out"):
        meant("--class", "0", classes=("0",))


def test_a_folder_that_only_a_lock_is_left_in_may_be_begun_in(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    refuse_existing_run(tmp_path / "run", overwrite=False)
    (tmp_path / "run" / "notes").touch()
    with pytest.raises(InputError, match=r"exists; choose another name or pass --overwrite$"):
        refuse_existing_run(tmp_path / "run", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_on_the_way_is_named(overwrite, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is a file"):
        refuse_existing_run(tmp_path / "notes.txt" / "a" / "run", overwrite=overwrite)
    with pytest.raises(InputError, match=r"notes\.txt is a file"):
        refuse_existing_run(tmp_path / "notes.txt", overwrite=overwrite)


def test_the_command_goes_on_without_out(tiny_set, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ("zwei/Kerne", "round", "elongated")
    write_hdf5(dataclasses.replace(tiny_set, class_names=names), Path("set.h5"))
    folder = Path("checkpoints/tail-zwei_Kerne")
    assert main(["--class", "0", "--data", "set.h5", *SMALL]) == 0
    assert main(["--class", "0", "--resume", "--seed", "5"]) == 2
    assert "--seed was 0, now 5" in capsys.readouterr().err
    assert main(["--class", "0", "--resume", "--steps", "3"]) == 0
    assert "resuming checkpoints/tail-zwei_Kerne" in capsys.readouterr().err
    assert read_state(folder)["number"] == 3
    capsys.readouterr()
    assert main(["--class", "0", "--resume"]) == 0
    assert "3 steps, all done before, kept step 3" in capsys.readouterr().out
