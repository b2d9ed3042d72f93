"""Curves for TensorBoard, where it is installed."""

from pathlib import Path
from typing import Any

from galaxies.errors import InputError


def require_tensorboard() -> None:
    """Refuse before a long training what could not be written after it.

    Raises
    ------
    InputError
        If the package tensorboard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise InputError("--tensorboard needs: pip install 'galaxy-augment[tensorboard]'") from None


def write_events(history: list[dict[str, Any]], folder: Path) -> None:
    """Write every number of the history as a scalar."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for entry in history:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    writer.add_scalar(name, value, entry["step"])
