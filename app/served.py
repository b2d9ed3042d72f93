"""What this process serves: choices made once, networks loaded once for every visitor."""

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli import ClassifyAppConfig
from app.uploads import MEBIBYTE, Limits

if TYPE_CHECKING:
    from classify.service import PredictionService

_choices: list[ClassifyAppConfig] = []
_one_at_a_time = threading.Lock()


def use(config: ClassifyAppConfig) -> None:
    """Serve these choices from now on; forgets what was loaded for others."""
    _choices[:] = [config]
    classifier.cache_clear()


def choices() -> ClassifyAppConfig:
    """The choices that this process serves."""
    if not _choices:
        raise RuntimeError("served.use() comes first")
    return _choices[0]


def limits() -> Limits:
    """Bounds of one request, the same at the page and at the endpoint."""
    config = choices()
    return Limits(upload_bytes=config.upload_limit_mb * MEBIBYTE, files=config.max_images)
