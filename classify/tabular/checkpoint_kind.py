"""Which kind of classifier a checkpoint folder holds, without loading anything heavy."""

import json
from pathlib import Path
from typing import Any

TABLE_KIND = "table-classifier"


def is_table_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a table classifier."""
    return _description(folder).get("kind") == TABLE_KIND


def is_joint_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a network that sees a table row beside each image."""
    return bool(_description(folder).get("joint_features"))


def _description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}
