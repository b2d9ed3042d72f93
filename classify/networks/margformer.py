"""MargFormer: a vision transformer whose class token is the photometry of the source.

After the public description of the system (arXiv:2408.13634, and its layer list): patches of 4
pixels, width 64, 12 layers of 8 heads, Linformer projection of the tokens to 128 (Wang et al.
2020, arXiv:2006.04768), the class token made from 24 features by 1024-512-256-64, and attention
whose query is that token alone. 1,505,315 parameters for five bands of 32x32 pixels and three
classes, 1,505,250 for two.

Inferred: the count leaves no room for a class token of its own, so the photometry takes its
place; each layer is pre-norm (attention, then a network of width 256 with GELU) with one
projection for keys and one for values, shared by the heads; what the class token gathers is
added to every token, as the residual sum of their shapes does. The projection to 128 is larger
than the 65 tokens and so saves nothing; it is kept because it is published.
"""

import math

import torch
from torch import nn

from classify.networks.joint import JointNetwork
from galaxies.errors import InputError

PATCH = 4


class PhotometryCrossAttention(nn.Module):
    """Attention of the class token over all tokens, projected to fewer (or more) places."""

    def __init__(self, width: int, tokens: int, places: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_value = nn.Linear(width, width, bias=False)
        bound = 1 / math.sqrt(places)
        self.project_key = nn.Parameter(torch.empty(tokens, places).uniform_(-bound, bound))
        self.project_value = nn.Parameter(torch.empty(tokens, places).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, T, width) to (n, 1, width): what the first token gathers."""
        count, _, width = tokens.shape
        query = self._by_head(self.to_query(tokens[:, :1]))  # (n, h, 1, d)
        key = self._by_head(torch.einsum("ntd,tk->nkd", self.to_key(tokens), self.project_key))
        value = self._by_head(
            torch.einsum("ntd,tk->nkd", self.to_value(tokens), self.project_value)
        )
        attention = (query @ key.transpose(2, 3)) / math.sqrt(width // self.heads)
        gathered = self.dropout(attention.softmax(dim=-1)) @ value
        return self.out(gathered.transpose(1, 2).reshape(count, 1, width))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        return x.reshape(count, length, self.heads, width // self.heads).transpose(1, 2)


class Layer(nn.Module):
    """Cross-attention and a network per token, each after a normalisation, with residual sums."""

    def __init__(self, width: int, tokens: int, places: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = PhotometryCrossAttention(width, tokens, places, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Keep the shape (n, T, width)."""
        tokens = tokens + self.attention(self.norm1(tokens))  # added to every token
        return tokens + self.network(self.norm2(tokens))


class PhotometryTransformer(nn.Module):
    """Images and features to the class token after the last layer, normalised: (n, width)."""

    def __init__(
        self,
        channels: int,
        size: int,
        table_columns: int,
        *,
        width: int,
        depth: int,
        heads: int,
        places: int,
        units: tuple[int, ...],
        dropout: float = 0.1,
        table_dropout: float = 0.25,
    ) -> None:
        super().__init__()
        patch_numbers = channels * PATCH**2
        tokens = (size // PATCH) ** 2 + 1
        self.patches = nn.Unfold(PATCH, stride=PATCH)  # (n, C 16, T - 1)
        self.embed = nn.Sequential(
            nn.LayerNorm(patch_numbers), nn.Linear(patch_numbers, width), nn.LayerNorm(width)
        )
        layers: list[nn.Module] = []
        inputs = table_columns
        for unit in units:
            layers += [nn.Linear(inputs, unit), nn.ReLU(), nn.Dropout(table_dropout)]
            inputs = unit
        self.class_token = nn.Sequential(*layers, nn.Linear(inputs, width))
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            Layer(width, tokens, places, heads, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, images: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) and (n, F) to (n, width)."""
        patches = self.embed(self.patches(images.contiguous()).transpose(1, 2))
        token = self.class_token(table).unsqueeze(1)
        tokens = torch.cat([token, patches], dim=1) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, 0])


def margformer(channels: int, classes: int, size: int, table_columns: int) -> JointNetwork:
    """The published network; 1,505,315 parameters at 5 channels, 32 pixels, 24 features."""
    trunk = _trunk("margformer", channels, size, table_columns, width=64, depth=12, heads=8,
                   places=128, units=(1024, 512, 256))  # fmt: skip
    return JointNetwork(trunk, nn.Linear(64, classes), table_columns)


def margformer_small(channels: int, classes: int, size: int, table_columns: int) -> JointNetwork:
    """Four layers of width 48 and a class token from 128-64, for sets of thousands."""
    trunk = _trunk("margformer-small", channels, size, table_columns, width=48, depth=4, heads=4,
                   places=32, units=(128, 64))  # fmt: skip
    return JointNetwork(trunk, nn.Linear(48, classes), table_columns)


def _trunk(
    name: str, channels: int, size: int, table_columns: int, *, width: int, depth: int, heads: int,
    places: int, units: tuple[int, ...],
) -> PhotometryTransformer:  # fmt: skip
    if size % PATCH:
        raise InputError(f"{name} takes sides that are a multiple of {PATCH} pixels, got {size}")
    if table_columns < 1:
        raise InputError(
            f"{name} needs features beside the images; join a table with: "
            "galaxy-set pack SOURCE OUT.h5 --table TABLE --table-id COLUMN"
        )
    return PhotometryTransformer(
        channels, size, table_columns, width=width, depth=depth, heads=heads, places=places,
        units=units,
    )  # fmt: skip
