"""``gan-train``: also ``python -m gan.train`` and ``torchrun --nproc-per-node=N -m gan.train``."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from galaxies.command_line import (
    config_as_json,
    named_on_command_line,
    print_json,
    run_command,
    warn,
)
from galaxies.errors import InputError
from gan.training_config import TrainConfig, default_size, default_width

SMALLER = (
    "lower --batch-size, --width or --size, leave out classes with --scope class, or choose "
    "another --device; gan-train --dry-run tells what a run needs"
)


def run(config: TrainConfig, words: Sequence[str] = ()) -> None:
    """Train, resume or describe a run."""
    from gan.memory import short_memory_in_words

    with short_memory_in_words(SMALLER):
        _run(config, words)


def _run(config: TrainConfig, words: Sequence[str]) -> None:
    from gan.processes import join_processes

    is_named = config.out is not None
    if config.resume:
        config = _with_stored_settings(config, words)
    with join_processes(config.device, config.batch_size) as processes:
        from galaxies.sources import open_image_set
        from galaxies.split import with_split
        from gan.preparation import prepare
        from gan.run_folder import default_folder, refuse_existing_run
        from gan.trainer import train
        from gan.trial import describe_dry_run

        if config.out is not None and not (config.resume or config.dry_run):
            refuse_existing_run(config.out, overwrite=config.overwrite)
        if config.resume and not is_named and processes.leads:
            print(f"resuming {config.out}", file=sys.stderr)
        if config.width is None:
            width = default_width(config.recipe, processes.device.type)
            config = dataclasses.replace(config, width=width)
        images = with_split(open_image_set(config.data))
        size = config.size or default_size(images.size)
        config = dataclasses.replace(config, size=size)
        preparation = prepare(config, images)
        if images.size != size and processes.leads:
            print(
                f"resizing images from {images.size} to {size} pixels with antialiasing",
                file=sys.stderr,
            )
            _warn_of_enlargement(config.data, images.size, size)
        folder = config.out or default_folder(config.recipe, preparation.data)
        if config.dry_run:
            report = describe_dry_run(preparation, config, processes.device)
            if processes.leads:
                _print_dry_run(config, report, folder)
            return
        if not config.resume and processes.leads:
            _make_room(folder, overwrite=config.overwrite)
        try:
            outcome = train(config, images, folder, processes=processes, preparation=preparation)
        except KeyboardInterrupt:
            if processes.leads:
                _say_how_to_go_on(folder)
            raise
        if processes.leads:
            _print_outcome(config, outcome)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(TrainConfig, lambda config: run(config, words), words, program="gan-train")


def _with_stored_settings(config: TrainConfig, words: Sequence[str]) -> TrainConfig:
    from gan.resume import stored_config
    from gan.run_folder import find_run

    if config.overwrite:
        raise InputError("--resume and --overwrite contradict each other")
    named = named_on_command_line(words)
    folder = config.out
    if folder is None:
        folder = find_run(config, named)
        config = dataclasses.replace(config, out=folder)
    return stored_config(config, named, folder)


def _warn_of_enlargement(data: str, size_before: int, size: int) -> None:
    from galaxies.sources import SIMULATED

    if size_before >= size:
        return
    enough = default_size(size_before)
    advice = f"--size {enough} costs less and shows as much"
    if enough == size:
        advice = "no smaller size can be made"
    elif data == SIMULATED:
        advice = f"galaxy-set simulate survey.h5 --size {size} makes images that have it"
    warn(
        f"images of {size_before} pixels are enlarged to {size}, which adds no detail: the "
        f"generator will learn blurred images; {advice}"
    )


def _say_how_to_go_on(folder: Path) -> None:
    from gan.checkpoint import STATE

    if (folder / STATE).is_file():
        print(f"saved; go on with: gan-train --resume --out {folder}", file=sys.stderr)
    else:
        print(
            "stopped before the first step, so there is nothing to resume; begin anew with "
            f"--overwrite --out {folder}",
            file=sys.stderr,
        )


def _make_room(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that exists, or empty one that holds a run."""
    import shutil

    from galaxies.atomic import folder_lock
    from gan.checkpoint import JUDGE, is_run
    from gan.run_folder import refuse_existing_run

    refuse_existing_run(folder, overwrite=overwrite)
    if not folder.exists():
        return
    left_by_a_killed_run = {".lock", JUDGE}
    if not {p.name for p in folder.iterdir()} <= left_by_a_killed_run and not is_run(folder):
        raise InputError(f"{folder} is not a run of gan-train; it is not overwritten")
    with folder_lock(folder):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()


def _print_dry_run(config: TrainConfig, report: dict[str, object], folder: Path) -> None:
    from gan.recipes import resolve_parts

    parts = dataclasses.asdict(resolve_parts(config.recipe, config))
    if config.json:
        print_json({**report, "recipe_parts": parts, "command": config_as_json(config)})
        return
    settings = {name: value for name, value in config_as_json(config).items() if name not in parts}
    for title, values in (("command", settings), ("recipe", parts), ("run", report)):
        print(f"{title}:")
        for name, value in values.items():
            print(f"  {name}: {value}")
    print(f"would write: {folder}")


def _print_outcome(config: TrainConfig, outcome: object) -> None:
    report = dataclasses.asdict(outcome)  # type: ignore[call-overload]
    if config.json:
        print_json(report)
        return
    kid = "".join(f", KID {name} {value:.4f}" for name, value in report["kid"].items())
    speed = f" at {report['images_per_second']:.0f} images/s"
    if not report["images_per_second"]:
        speed = ", all done before"
    print(
        f"{report['folder']}: {report['step']} steps{speed}, kept step {report['chosen_step']}{kid}"
    )


if __name__ == "__main__":
    sys.exit(main())
