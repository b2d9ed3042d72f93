"""``classify-app``: from a checkpoint to a page on this machine, with nothing else to set up."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from galaxies.command_line import run_command
from galaxies.errors import InputError


@dataclass(frozen=True)
class ClassifyAppConfig:
    """Show a trained classifier as a web page, and answer programs at POST /predict."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder written by classify-train."""
    gan: tuple[Path, ...] = ()
    """Folders written by gan-train; the page Generate shows what they make."""
    results: tuple[Path, ...] = ()
    """Folders written by augment-and-eval; the page Experiment shows their verdicts."""
    samples: Path | None = None
    """Folder of images to try without a file of one's own; default: the held-out images that
    classify-train left in the checkpoint."""
    title: str = "What galaxy is this?"
    """Heading of the page."""
    confidence: float = 0.9
    """Chance that a prediction set holds the true class, when the page opens."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only. There is no log-in:
    put a proxy with one in front before you listen anywhere else."""
    port: int = 8501
    """Port to listen on; 0 takes a free one."""
    upload_limit_mb: int = 20
    """Most megabytes of one request, all files together."""
    max_images: int = 200
    """Most images of one request, after archives are unpacked."""
    device: str = "cpu"
    """Where the networks run: auto, cpu, cuda or cuda:N."""
    api_only: bool = False
    """Serve POST /predict alone, without the page (needs no Streamlit)."""
    open_browser: bool = False
    """Open the page in this machine's browser once it is ready."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence <= 0.999:
            raise InputError(f"--confidence must lie between 0.5 and 0.999, got {self.confidence}")
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port must lie between 0 and 65535, got {self.port}")
        for name, value in (
            ("upload-limit-mb", self.upload_limit_mb),
            ("max-images", self.max_images),
        ):
            if value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}")


def serve(config: ClassifyAppConfig) -> None:
    """Check everything that was named, load the network, and serve until interrupted."""
    try:
        from app import serving
    except ModuleNotFoundError as error:
        raise InputError(
            f"classify-app needs {error.name}; install it with: pip install 'galaxy-augment[app]'"
        ) from None
    serving.serve(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``classify-app``."""
    return run_command(ClassifyAppConfig, serve, arguments, program="classify-app")


if __name__ == "__main__":
    sys.exit(main())
