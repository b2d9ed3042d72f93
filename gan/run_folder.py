"""The folder of a run that ``--out`` does not name: of a new one, and of one that is resumed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from galaxies.class_names import class_index
from galaxies.errors import InputError
from gan.checkpoint import STATE, DataDescription, RunDescription, is_run, read_description
from gan.training_config import TrainConfig

CHECKPOINTS = Path("checkpoints")

MOST_BYTES = 200
"""Of a folder's name; file systems end at 255."""


def default_folder(recipe: str, data: DataDescription) -> Path:
    """``checkpoints/RECIPE-CLASS``; a name too long for a file system ends in its digest."""
    names = "-".join(data.class_names[index] for index in data.chosen)
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in names)
    if len(safe.encode()) > MOST_BYTES:
        begin = safe.encode()[: MOST_BYTES - 20].decode(errors="ignore")
        safe = f"{begin}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    return CHECKPOINTS / f"{recipe}-{safe}"


def find_run(config: TrainConfig, named: Sequence[str]) -> Path:
    """The default folder of the run that the flags mean, to resume it.

    The classes and the set of a run are read from its own record, so that nothing but the class
    has to be named. Where several fit, the recipe and the set decide as they would for a new run.

    Parameters
    ----------
    config
        The parsed flags.
    named
        Fields that stood on the command line.

    Raises
    ------
    InputError
        If there is no such run, or several; names those that there are.
    """
    runs = _default_runs()
    fitting = {
        folder: run
        for folder, run in runs.items()
        if _has_classes(run.data, config.classes)
        and ("recipe" not in named or run.command.get("recipe") == config.recipe)
    }
    for field in ("recipe", "data"):
        same = {
            folder: run
            for folder, run in fitting.items()
            if run.command.get(field) == str(getattr(config, field))
        }
        if len(fitting) > 1 and same:
            fitting = same
    if len(fitting) == 1:
        return next(iter(fitting))
    listed = ", ".join(map(str, fitting or runs))
    if fitting:
        raise InputError(f"--resume may mean {listed}: pass --out with one of them")
    of_class = f" of class {' '.join(config.classes)}" if config.classes else ""
    by_recipe = f" by the recipe {config.recipe}" if "recipe" in named else ""
    there_are = f"; there are {listed}" if runs else ""
    raise InputError(
        f"--resume: {CHECKPOINTS.absolute()} holds no run{of_class}{by_recipe}{there_are}; pass "
        "--out with the run's folder, or leave out --resume to begin one"
    )


def refuse_existing_run(folder: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where a run cannot begin in ``folder``, before any work is done."""
    above = next((path for path in folder.parents if path.exists()), None)
    if above is not None and not above.is_dir():
        raise InputError(f"{above} is a file, so {folder} cannot be made; choose another --out")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another --out")
    # A run that failed before it had anything to show leaves its lock.
    if overwrite or not folder.exists() or {path.name for path in folder.iterdir()} <= {".lock"}:
        return
    going_on = ""
    if (folder / STATE).is_file():
        going_on = f"; gan-train --resume --out {folder} goes on with the run in it"
    raise InputError(f"{folder} exists; choose another name or pass --overwrite{going_on}")


def _default_runs() -> dict[Path, RunDescription]:
    """Runs in `CHECKPOINTS` that have the name they would have without ``--out``."""
    runs: dict[Path, RunDescription] = {}
    for folder in sorted(CHECKPOINTS.glob("*")):
        if not is_run(folder):
            continue
        try:
            run = read_description(folder)
        except InputError:  # of another version
            continue
        if folder == default_folder(str(run.command.get("recipe")), run.data):
            runs[folder] = run
    return runs


def _has_classes(data: DataDescription, classes: Sequence[str]) -> bool:
    try:
        return not classes or data.chosen == tuple(
            class_index(name, data.class_names) for name in classes
        )
    except InputError:
        return False
