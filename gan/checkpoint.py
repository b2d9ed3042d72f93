"""A run's folder: what it holds and how it is written so that a kill leaves it usable.

``config.json`` the command, the recipe's parts and the data; ``weights.safetensors`` the chosen
generator and discriminator; ``state.pt`` everything that exact resume needs (tensors and plain
values alone, loaded with ``weights_only=True``); ``log.jsonl`` one line per look;
``training_images.json`` fingerprints and ids of the training images; ``samples/``, ``card.md``;
with ``--snapshots`` the weights of every evaluation in ``snapshots/``.
Every file is written whole and renamed. The weights are written before the state, so a run
killed between the two repeats, bit by bit, what led to those weights.
"""

import dataclasses
import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from galaxies.atomic import whole_file, write_text
from galaxies.errors import InputError
from galaxies.pixels import Stretch
from gan.build import NetworkShape
from gan.recipes import Parts

CONFIG, WEIGHTS, STATE, LOG = "config.json", "weights.safetensors", "state.pt", "log.jsonl"
TRAINING_IMAGES, SAMPLES, CARD = "training_images.json", "samples", "card.md"
SNAPSHOTS, JUDGE, CURVE = "snapshots", "judge", "curve.png"
FILES = (CONFIG, WEIGHTS, STATE, LOG, TRAINING_IMAGES, CARD, CURVE)
FORMAT = 1

LATER_PARTS: dict[str, Any] = {"augment_watch": "sign"}
"""Parts that came after the first checkpoints, with what was done before."""


@dataclass(frozen=True)
class DataDescription:
    """What a checkpoint remembers of the set that it was trained on.

    Attributes
    ----------
    source : str
        The ``--data`` of the run.
    class_names : tuple of str
        All classes of the set, in its order.
    made : tuple of int
        Indices of the classes that the generator makes, in the order of its own labels.
    chosen : tuple of int
        Indices of the classes that the run was asked for.
    counts : tuple of int
        Training images of each class of ``made``.
    mirror_pairs : tuple of (str, str)
        Classes that mirror into each other.
    size_before : int
        Side of the images before they were resized to the network's.
    stretch : dict or None
        Black, white and softening of float32 flux.
    digest : str
        Hash over the fingerprints of the training images.
    labels_digest : str
        Hash over their labels; empty in the checkpoints of earlier versions.
    judging_digest : str
        Hash over the fingerprints and labels of the images that are not trained on but steer the
        run: held-out ones, and what else its judge learns from; empty in earlier versions.
    """

    source: str
    class_names: tuple[str, ...]
    made: tuple[int, ...]
    chosen: tuple[int, ...]
    counts: tuple[int, ...]
    mirror_pairs: tuple[tuple[str, str], ...]
    size_before: int
    stretch: dict[str, float] | None
    digest: str
    labels_digest: str = ""
    judging_digest: str = ""

    @property
    def flux_stretch(self) -> Stretch | None:
        """The stretch as the set had it."""
        return Stretch(**self.stretch) if self.stretch else None


@dataclass(frozen=True)
class RunDescription:
    """All that ``config.json`` holds."""

    command: dict[str, Any]
    parts: Parts
    shape: NetworkShape
    data: DataDescription
    precision: str

    def as_json(self) -> dict[str, Any]:
        """JSON-able form; `read_description` is its inverse."""
        return {
            "format": FORMAT,
            "command": self.command,
            "recipe_parts": dataclasses.asdict(self.parts),
            "network": self.shape.as_json(),
            "data": dataclasses.asdict(self.data),
            "precision": self.precision,
            "torch": torch.__version__,
        }


def write_description(folder: Path, description: RunDescription) -> None:
    """Write ``config.json``."""
    text = json.dumps(description.as_json(), indent=2, ensure_ascii=False)
    write_text(folder / CONFIG, text + "\n")


def read_description(folder: Path) -> RunDescription:
    """Read ``config.json``.

    Raises
    ------
    InputError
        If the folder is not a checkpoint of ``gan-train``.
    """
    path = folder / CONFIG
    if not path.is_file():
        what = "holds no config.json" if folder.is_dir() else "is not a folder"
        what = what if folder.exists() else "does not exist"
        raise InputError(f"{folder} is not a checkpoint of gan-train: it {what}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        parts = dict(stored["recipe_parts"])
        parts["augment"] = tuple(parts["augment"])
        for name, value in LATER_PARTS.items():
            parts.setdefault(name, value)
        missing = [field.name for field in dataclasses.fields(Parts) if field.name not in parts]
        if missing:
            raise InputError(
                f"{path} records no {', '.join(missing)}: another version began this run, and "
                "this one cannot tell how"
            )
        data = dict(stored["data"])
        for name in ("class_names", "made", "chosen", "counts"):
            data[name] = tuple(data[name])
        data["mirror_pairs"] = tuple((left, right) for left, right in data["mirror_pairs"])
        return RunDescription(
            command=stored["command"],
            parts=Parts(**parts),
            shape=NetworkShape(**stored["network"]),
            data=DataDescription(**data),
            precision=stored["precision"],
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not the config of a gan-train checkpoint ({type(error).__name__}: {error})"
        ) from None


def is_run(folder: Path) -> bool:
    """Whether a folder is a checkpoint of ``gan-train``, of this or another version."""
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and "recipe_parts" in stored


def write_weights(path: Path, weights: dict[str, Tensor], step: int) -> None:
    """Write ``generator.*`` and ``discriminator.*`` tensors to a file of `weights_path`."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    _write_bytes(path, save(tensors, metadata={"step": str(step)}))


def weights_path(folder: Path, step: int | None = None) -> Path:
    """The chosen weights, or the snapshot of an evaluation."""
    return folder / WEIGHTS if step is None else folder / SNAPSHOTS / f"{step:07d}.safetensors"


@dataclass(frozen=True)
class StoredWeights:
    """Tensors of a weights' file, and the digest of the bytes that they were read from.

    A run that goes on replaces its file while its images are made, so the digest is taken of what
    was read and not of what lies there later.
    """

    tensors: dict[str, Tensor]
    sha256: str


def read_weights(folder: Path, step: int | None = None) -> dict[str, Tensor]:
    """The tensors of `read_stored_weights`."""
    return read_stored_weights(folder, step).tensors


def read_stored_weights(folder: Path, step: int | None = None) -> StoredWeights:
    """Read ``weights.safetensors``, or the snapshot of ``step``; nothing in it can run.

    Raises
    ------
    InputError
        If the file is absent or damaged.
    """
    path = weights_path(folder, step)
    if step is not None and not path.is_file():
        kept = ", ".join(map(str, snapshot_steps(folder)))
        raise InputError(
            f"{folder} holds no snapshot of step {step}; "
            + (f"it holds: {kept}" if kept else "gan-train keeps them with --snapshots")
        )
    if not path.is_file():
        raise InputError(
            f"{folder} holds no {WEIGHTS} yet: the run has not come to its first evaluation"
        )
    try:
        content = path.read_bytes()
        return StoredWeights(load(content), hashlib.sha256(content).hexdigest())
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); train or copy it anew") from None


def remove_cut_short(folder: Path) -> None:
    """Remove what a killed process was writing; only for who holds the lock of ``folder``."""
    patterns = [f".{name}.*.partial" for name in FILES]
    patterns += [f"{name}/.*.partial" for name in (SAMPLES, SNAPSHOTS)]
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Remove what a run left in ``folder``, and nothing else."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (SAMPLES, SNAPSHOTS, JUDGE):
        shutil.rmtree(folder / name, ignore_errors=True)


def run_and_step(path: Path, step: int | None = None) -> tuple[Path, int | None]:
    """Folder and step of what names a generator: a run, or a file in its ``snapshots/``.

    Parameters
    ----------
    path
        A run's folder, or one of its snapshots, which has its step in its name.
    step
        Of a snapshot of that folder; ``None`` for the weights that the run chose.

    Raises
    ------
    InputError
        If ``path`` is a snapshot and ``step`` that of another one.
    """
    if not (path.parent.name == SNAPSHOTS and path.suffix == ".safetensors" and path.is_file()):
        return path, step
    if not path.stem.isdecimal():
        raise InputError(f"{path} is no snapshot of gan-train: those are named by their step")
    own = int(path.stem)
    if step not in (None, own):
        raise InputError(f"{path} is the snapshot of step {own}, not of --step {step}")
    return path.parent.parent, own


def snapshot_steps(folder: Path) -> list[int]:
    """Steps of which ``--snapshots`` kept the weights."""
    names = (path.stem for path in (folder / SNAPSHOTS).glob("*.safetensors"))
    return sorted(int(name) for name in names if name.isdecimal())


def weights_sha256(folder: Path, step: int | None = None) -> str:
    """Digest of the weights' file, the identity of the generator."""
    return hashlib.sha256(weights_path(folder, step).read_bytes()).hexdigest()


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state.pt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _write_bytes(folder / STATE, buffer.getbuffer())


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole or absent.

    The writers of torch and safetensors make errors of their own of a full disk, which nothing
    tells from others.
    """
    with whole_file(path, overwrite=True) as temporary:
        temporary.write_bytes(content)


def read_state(folder: Path) -> dict[str, Any]:
    """Read ``state.pt`` without running code from it.

    Raises
    ------
    InputError
        If there is nothing to resume, or the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise InputError(f"{folder} holds no {STATE}: there is nothing to resume; train anew")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the pickle, zip and tensor layers each raise their own
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); train anew with --overwrite"
        ) from None
    return state


def write_training_images(folder: Path, fingerprints: list[str], ids: list[str]) -> None:
    """Remember which images the generator saw, so that an evaluation can refuse a leak."""
    write_text(
        folder / TRAINING_IMAGES, json.dumps({"fingerprints": fingerprints, "ids": ids}) + "\n"
    )


def read_training_images(folder: Path) -> tuple[list[str], list[str]]:
    """Fingerprints and ids of the training images.

    Raises
    ------
    InputError
        If the file is absent: a generator of unknown training images cannot be trusted.
    """
    path = folder / TRAINING_IMAGES
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return list(stored["fingerprints"]), list(stored["ids"])
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}): without it nobody can tell whether "
            "the generator saw test images"
        ) from None


class RunLog:
    """``log.jsonl``: appended line by line, cut back to the resumed step."""

    def __init__(self, folder: Path, keep_to_step: int | None = None) -> None:
        self.path = folder / LOG
        if keep_to_step is None:
            write_text(self.path, "")
        else:
            kept = [row for row in read_log(folder) if row["step"] <= keep_to_step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(self, row: dict[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Rows of ``log.jsonl``; a last line cut short by a kill is left out."""
    path = folder / LOG
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
