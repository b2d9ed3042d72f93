"""From a frozen dataclass to a command: flags, help, one-line errors and exit statuses.

A command is one frozen dataclass (the single source of its flags, defaults, help and the
``config.json`` it writes) and one function that takes an instance of it. Heavy imports belong
inside that function, so that ``--help`` answers at once.
"""

import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from galaxies.errors import InputError

Config = TypeVar("Config")

EXIT_DONE = 0
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_READER_LEFT = 141

LARGEST_SEED = 2**32 - 1
"""Every library that draws takes seeds up to here."""

_PARSER_RULES = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)


def run_command(
    config_type: type[Config],
    command: Callable[[Config], object],
    arguments: Sequence[str] | None = None,
    *,
    program: str,
) -> int:
    """Parse ``arguments`` into ``config_type``, run ``command`` and return the exit status.

    Parameters
    ----------
    config_type
        Frozen dataclass; field docstrings become the help.
    command
        Called with the parsed instance. An `InputError` that it raises becomes one line.
    arguments
        Command-line words; ``None`` takes those of the process.
    program
        Name shown in help and errors.

    Returns
    -------
    int
        0 done, 2 the input was wrong (one line on stderr), 130 interrupted, 141 the reader of
        stdout left early (as the shell counts the signal of a broken pipe).
    """
    return _guarded(program, lambda: command(_parse(config_type, arguments, program)))


def run_subcommands(
    commands: dict[str, tuple[type, Callable[[Any], object]]],
    arguments: Sequence[str] | None = None,
    *,
    program: str,
    description: str,
) -> int:
    """Like `run_command`, for a program with subcommands: name -> (config type, function)."""
    choice: Any = reduce(
        or_,
        (
            Annotated[config_type, tyro.conf.subcommand(name=name)]
            for name, (config_type, _) in commands.items()
        ),
    )

    def dispatch() -> None:
        config = _parse(choice, arguments, program, description)
        function_of = dict(commands.values())
        function_of[type(config)](config)

    return _guarded(program, dispatch)


def config_as_json(config: Any) -> dict[str, Any]:
    """All fields of a config dataclass as values that JSON can hold (paths become strings)."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=_encode))


def named_on_command_line(words: Sequence[str]) -> list[str]:
    """Fields whose flag stands among the words of a command line."""
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    aliases = {"class": "classes"}
    names = [flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags]
    return [aliases.get(name, name) for name in names]


def print_json(value: object) -> None:
    """Write one JSON object to stdout, on one line; what is NaN or infinite becomes null."""
    plain = json.loads(json.dumps(value, default=_encode))
    print(json.dumps(_with_nulls(plain), allow_nan=False), flush=True)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def warn(message: str) -> None:
    """Tell the user something on stderr without stopping."""
    print(f"warning: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _parse(
    config_type: Any, arguments: Sequence[str] | None, program: str, description: str | None = None
) -> Any:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(
                config_type,
                args=list(sys.argv[1:] if arguments is None else arguments),
                prog=program,
                description=description,
                config=_PARSER_RULES,
            )
    except SystemExit as exit_request:
        if exit_request.code in (0, None):
            raise
        raise InputError(_first_sentence(complaint.getvalue(), program)) from None
    if not 0 <= getattr(config, "seed", 0) <= LARGEST_SEED:
        raise InputError(f"--seed must be from 0 to {LARGEST_SEED}, got {config.seed}")
    return config


def _first_sentence(box: str, program: str) -> str:
    """The text of tyro's framed error, up to its first rule, on one line."""
    lines: list[str] = []
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if text and set(text) <= {"─"} and lines:
            break
        if not line.startswith(("╭", "╰")) and text:
            lines.append(text)
    return f"{' '.join(lines)} (see {program} --help)"


def _guarded(program: str, action: Callable[[], object]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may be any bytes, and a terminal may not know every letter.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            action()
        finally:
            sys.stdout.flush()
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_LEFT
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            # EACCES may come of reading; libraries put their own prose into strerror.
            where = f" {error.filename}" if error.filename else ""
            print(
                f"{program}: cannot use{where}: {os.strerror(error.errno).lower()}", file=sys.stderr
            )
            return EXIT_WRONG_INPUT
        raise
    except SystemExit as exit_request:
        return exit_request.code if isinstance(exit_request.code, int) else EXIT_DONE
    return EXIT_DONE


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return value.tolist()
    raise TypeError(f"{type(value)} has no JSON form")
