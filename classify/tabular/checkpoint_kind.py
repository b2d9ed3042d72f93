"""Which kind of classifier a checkpoint folder holds, without loading anything heavy."""

import json
from pathlib import Path

TABLE_KIND = "table-classifier"


def is_table_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a table classifier."""
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("kind") == TABLE_KIND
