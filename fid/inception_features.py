"""Features of the FID Inception network: where its weights are, and which recipe feeds it."""

import contextlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch

from fid.full_precision import full_precision
from fid.inception import (
    FEATURES,
    WEIGHTS_NAME,
    WEIGHTS_SHA256,
    WEIGHTS_URL,
    FoldedInception,
    Inception,
    PublishedInception,
    check_layout,
)
from fid.recipes import recipe_named, to_three_channels
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
        self._weights = check_layout(weights)
        self.as_published = as_published

    @cached_property
    def _network(self) -> Inception:
        """Built when the first image arrives: a remembered side needs none."""
        kind = PublishedInception if self.as_published else FoldedInception
        return kind(self._weights).to(self.device).eval()

    @property
    def recipe(self) -> str:
        """Recipe, marked where the arithmetic or the choice of bands changes the number."""
        marks = [self._recipe.name]
        if self.as_published:
            marks.append("in the published order")
        if self.bands is not None:
            marks.append(f"bands {' '.join(map(str, self.bands))}")
        if self.approximate:
            marks.append("bfloat16, approximate")
        return ", ".join(marks)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) uint8 to (n, 2048) float32."""
        colour = to_three_channels(images.to(self.device, non_blocking=True), self.bands)
        with contextlib.nullcontext() if self.approximate else full_precision():
            pixels = self._recipe(colour)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.approximate):
                return self._network(pixels).to(torch.float32)


def load(
    argument: str,
    weights: Path | None,
    device: torch.device,
    *,
    bands: tuple[int, int, int] | None = None,
    as_published: bool = False,
    approximate: bool = False,
) -> InceptionFeatures:
    """Loader of ``inception`` and ``inception:RECIPE``; the options are those of the class."""
    recipe = recipe_named(argument or DEFAULT_RECIPE).name
    path = weights if weights is not None else published_weights()
    state, digest = read_weights(path)
    if path.name == WEIGHTS_NAME and digest != WEIGHTS_SHA256:
        raise InputError(
            f"{path} is damaged: its sha256 is {digest}, {WEIGHTS_SHA256} is expected; "
            "remove it to fetch it anew, or rename it if it is meant to differ"
        )
    try:
        return InceptionFeatures(
            state,
            digest,
            recipe,
            device,
            bands=bands,
            as_published=as_published,
            approximate=approximate,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


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
        reason = "it cannot be downloaded" if "cannot reach" in str(error) else str(error)
        raise InputError(
            f"FID needs the Inception weights, and {reason}: get {WEIGHTS_URL} "
            f"(sha256 {WEIGHTS_SHA256}) and put it at {path}, or pass --weights FILE, "
            "or choose other --features"
        ) from None
    return path
