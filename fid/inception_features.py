"""Features of the FID Inception network: where its weights are, and which recipe feeds it."""

from collections.abc import Mapping
from pathlib import Path

import torch

from fid.inception import (
    FEATURES,
    WEIGHTS_NAME,
    WEIGHTS_SHA256,
    WEIGHTS_URL,
    FoldedInception,
    PublishedInception,
)
from fid.recipes import RECIPES, recipe_named, to_three_channels
from fid.weights import read_weights
from galaxies.errors import InputError

DEFAULT_RECIPE = "pytorch-fid"


class InceptionFeatures:
    """The 2048 features after the last pool.

    Parameters
    ----------
    weights
        State dict in the published layout.
    weights_sha256
        Of the file that held it.
    recipe
        A name of `fid.recipes.RECIPES`.
    device
        Where the network runs.
    bands
        Three channels to use as red, green and blue; ``None`` follows `channel_rule`.
    as_published
        Compute in the order of the original, to reproduce other programs bit for bit.
    approximate
        bfloat16 arithmetic: faster where the processor has it, other numbers.
    """

    name = "inception"
    dimensions = FEATURES

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        weights_sha256: str,
        recipe: str = DEFAULT_RECIPE,
        device: torch.device | str = "cpu",
        *,
        bands: tuple[int, int, int] | None = None,
        as_published: bool = False,
        approximate: bool = False,
    ) -> None:
        self.weights_sha256 = weights_sha256
        self.device = torch.device(device)
        self.bands = bands
        self.approximate = approximate
        self._recipe = recipe_named(recipe)
        network = (PublishedInception if as_published else FoldedInception)(weights)
        self._network = network.to(self.device).eval()

    @property
    def recipe(self) -> str:
        """Recipe, marked where the arithmetic is approximate or the bands are chosen."""
        marks = [self._recipe.name]
        if self.bands is not None:
            marks.append(f"bands {' '.join(map(str, self.bands))}")
        if self.approximate:
            marks.append("bfloat16, approximate")
        return ", ".join(marks)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) uint8 to (n, 2048) float32."""
        colour = to_three_channels(images.to(self.device, non_blocking=True), self.bands)
        pixels = self._recipe(colour)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.approximate):
            return self._network(pixels).to(torch.float32)


def load(argument: str, weights: Path | None, device: torch.device) -> InceptionFeatures:
    """Loader of ``inception`` and ``inception:RECIPE``."""
    recipe = argument or DEFAULT_RECIPE
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    path = weights if weights is not None else published_weights()
    state, digest = read_weights(path)
    if path.name == WEIGHTS_NAME and digest != WEIGHTS_SHA256:
        raise InputError(
            f"{path} is damaged: its sha256 is {digest}, {WEIGHTS_SHA256} is expected; "
            "remove it to fetch it anew, or rename it if it is meant to differ"
        )
    return InceptionFeatures(state, digest, recipe, device)


def published_weights() -> Path:
    """The published weights in torch's cache, downloaded where a network is there.

    Raises
    ------
    InputError
        If they are absent and cannot be downloaded: names the file, its hash and its place.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    if path.is_file():
        return path
    from galaxies.fetch import download

    try:
        download(WEIGHTS_URL, path, sha256=WEIGHTS_SHA256)
    except (InputError, OSError) as error:
        raise InputError(
            f"FID needs the weights {WEIGHTS_NAME} (sha256 {WEIGHTS_SHA256}) from {WEIGHTS_URL}: "
            f"put the file at {path}, or pass --weights FILE, or other features with --features "
            f"({error})"
        ) from None
    return path
