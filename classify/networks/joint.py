"""Networks that take an image and the table row of the same source."""

import torch
from torch import nn

from classify.networks.network import Network


class JointNetwork(Network):
    """A `Network` whose trunk sees images and scaled features.

    Parameters
    ----------
    trunk
        (n, C, H, W) and (n, F) float32 to (n, d).
    head
        (n, d) to (n, classes) logits.
    table_columns
        F; callers pass features exactly where this is not 0.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, table_columns: int) -> None:
        super().__init__(trunk, head)
        self.table_columns = table_columns

    def features(self, images: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """(n, C, H, W) and (n, F) to (n, d) penultimate features.

        Raises
        ------
        ValueError
            If the table rows are not given: an image alone cannot stand for both.
        """
        if table is None:
            raise ValueError(f"this network needs {self.table_columns} features beside each image")
        return self.trunk(images, table)

    def forward(self, images: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """(n, C, H, W) and (n, F) to (n, classes) logits."""
        return self.head(self.features(images, table))
