"""Curves for TensorBoard, where it is installed."""

from pathlib import Path
from typing import Any

from galaxies.errors import InputError


def write_events(history: list[dict[str, Any]], folder: Path) -> None:
    """Write every number of the history as a scalar.

    Raises
    ------
    InputError
        If the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs a package: pip install tensorboard") from None
    with SummaryWriter(str(folder)) as writer:
        for entry in history:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    writer.add_scalar(name, value, entry["step"])
