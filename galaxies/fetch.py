"""Published image sets by name: address, hash and class names, checked before they are used."""

import os
from pathlib import Path

from galaxies.download import download

__all__ = ["cache_folder", "download"]


def cache_folder() -> Path:
    """Folder for downloads and the simulated survey; ``GALAXY_AUGMENT_CACHE`` moves it."""
    named = os.environ.get("GALAXY_AUGMENT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "galaxy-augment"
