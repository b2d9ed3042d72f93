"""The DCGAN pair (Radford et al. 2016, arXiv:1511.06434), conditional, 32 to 256 pixels.

With one class, 64 pixels and 3 channels these are exactly the networks of the published PyTorch
example: 3,576,704 parameters in the generator, 2,765,568 in the discriminator. More classes add
an embedding to the latent vector (or class-conditional batch norm) and an embedded plane (or a
projection) to the image.
"""

import torch
from torch import Tensor, nn

from galaxies.errors import InputError
from gan.recipes import Parts
from gan.synchronised_norm import SynchronisedBatchNorm

SIZES = (32, 64, 128, 256)
"""Image sides that the networks can make, in pixels: 4 doubled three to six times."""

BASE_WIDTH = 64
"""Channels before the image in the published DCGAN."""

CLASS_EMBEDDING = 32
"""Length of the class embedding that joins the latent vector."""


def check_size(size: int) -> None:
    """Raise `InputError` for a size that doubling cannot reach; names those that work."""
    if size not in SIZES:
        raise InputError(
            f"the networks cannot make {size}x{size} images; choose --size "
            + ", ".join(map(str, SIZES))
        )


def scaled(width: float, channels: int) -> int:
    """``channels`` times the width factor, at least 8 and a multiple of 8 (vector registers)."""
    return max(8, round(channels * width / 8) * 8)


def dcgan_channels(size: int, width: float) -> list[int]:
    """Channels at 4x4, 8x8, … up to half the image size; 512 at 4x4 for 64 pixels, never more."""
    doublings = (size // 4).bit_length() - 1
    return [scaled(width, BASE_WIDTH * min(8, 2**power)) for power in reversed(range(doublings))]


class ClassConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are rows of class tables (Dumoulin et al. 2017).

    Each row is the table of the classes, scaled by how much the class matters now, added to a
    shared gain and bias.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = SynchronisedBatchNorm(channels)
        self.gain = nn.Parameter(torch.zeros(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, features: Tensor, labels: Tensor, conditioning: Tensor) -> Tensor:
        """(N, C, H, W) features and (N,) labels to (N, C, H, W)."""
        gain = 1 + conditioning * self.gain[labels]
        bias = conditioning * self.bias[labels]
        return torch.addcmul(
            bias[:, :, None, None], self.norm(features), gain[:, :, None, None].to(features.dtype)
        )


class DcganGenerator(nn.Module):
    """Transposed convolutions with batch norm and ReLU from z (N, latent) to (N, C, S, S).

    Parameters
    ----------
    classes, channels, size, width
        One class adds no parameter to the published network.
    parts
        Uses ``latent`` and ``class_from``: 4 concatenates an embedding to z, more makes the
        batch norms from that resolution up class-conditional.
    """

    noise_length = 0

    def __init__(self, classes: int, channels: int, size: int, width: float, parts: Parts) -> None:
        super().__init__()
        check_size(size)
        self.latent, self.classes, self.size = parts.latent, classes, size
        embeds = classes > 1 and parts.class_from == 4
        self.embedding = nn.Embedding(classes, CLASS_EMBEDDING) if embeds else None
        widths = dcgan_channels(size, width)
        inputs = parts.latent + (CLASS_EMBEDDING if embeds else 0)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for index, outputs in enumerate(widths):
            stride, padding = (1, 0) if index == 0 else (2, 1)
            self.convolutions.append(
                nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
            )
            resolution = 4 * 2**index
            late = classes > 1 and not embeds and resolution >= parts.class_from
            self.norms.append(
                ClassConditionalNorm(outputs, classes) if late else SynchronisedBatchNorm(outputs)
            )
            inputs = outputs
        self.to_image = nn.ConvTranspose2d(inputs, channels, 4, 2, 1, bias=False)

    def forward(
        self,
        latent: Tensor,
        labels: Tensor,
        conditioning: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Images (N, C, S, S) in [-1, 1].

        Parameters
        ----------
        latent
            (N, latent) standard normal.
        labels
            (N,) int64.
        conditioning
            Scalar from 0 (the class is ignored) to 1.
        noise
            Not used by this network.
        """
        if self.embedding is not None:
            latent = torch.cat([latent, conditioning * self.embedding(labels)], dim=1)
        features = latent[:, :, None, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = convolution(features)
            if isinstance(norm, ClassConditionalNorm):
                features = norm(features, labels, conditioning)
            else:
                features = norm(features)
            features = torch.relu(features)
        return torch.tanh(self.to_image(features))

    def class_tables(self) -> list[Tensor]:
        """(classes, D) parameters that belong to one class each."""
        tables = [] if self.embedding is None else [self.embedding.weight]
        for norm in self.norms:
            if isinstance(norm, ClassConditionalNorm):
                tables += [norm.gain, norm.bias]
        return tables


class DcganDiscriminator(nn.Module):
    """Strided convolutions with batch norm and LeakyReLU from images to one logit each.

    ``parts.spectral_norm`` replaces the batch norms; ``parts.projection`` adds the class as a
    projection of the last features instead of an embedded plane beside the image.
    """

    def __init__(self, classes: int, channels: int, size: int, width: float, parts: Parts) -> None:
        super().__init__()
        check_size(size)
        self.classes = classes
        self.has_batch_norm = not parts.spectral_norm
        plane = classes > 1 and not parts.projection
        self.plane = nn.Embedding(classes, size * size) if plane else None
        self.deviation = MinibatchDeviation() if parts.minibatch_deviation else None
        inputs = channels + int(plane)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        biased = parts.spectral_norm  # batch norm would cancel a bias
        for index, outputs in enumerate(reversed(dcgan_channels(size, width))):
            self.convolutions.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=biased))
            normed = index > 0 and self.has_batch_norm
            self.norms.append(SynchronisedBatchNorm(outputs) if normed else nn.Identity())
            inputs = outputs
        projects = classes > 1 and parts.projection
        self.projection = nn.Embedding(classes, inputs) if projects else None
        judged = inputs + int(parts.minibatch_deviation)
        self.to_logit = nn.Conv2d(judged, 1, 4, 1, 0, bias=biased)

    def forward(self, images: Tensor, labels: Tensor, conditioning: Tensor) -> Tensor:
        """(N,) float32 logits of (N, C, S, S) images with (N,) labels."""
        if self.plane is not None:
            plane = self.plane(labels).view(-1, 1, *images.shape[-2:])
            images = torch.cat([images, (conditioning * plane).to(images.dtype)], dim=1)
        features = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = nn.functional.leaky_relu(norm(convolution(features)), 0.2)
        judged = features if self.deviation is None else self.deviation(features)
        logits = self.to_logit(judged).flatten().float()
        if self.projection is not None:
            pooled = features.float().mean(dim=(2, 3))
            logits = logits + conditioning * (self.projection(labels) * pooled).sum(1)
        return logits

    def class_tables(self) -> list[Tensor]:
        """(classes, D) parameters that belong to one class each."""
        return [] if self.projection is None else [self.projection.weight]


class MinibatchDeviation(nn.Module):
    """Append one plane: the mean deviation of the features within groups of four images.

    A generator that repeats itself gives itself away (Karras et al. 2018, section 3). Groups
    are neighbours in the batch, so a batch cut into contiguous parts has the same groups. A batch
    that four does not divide is one group.
    """

    GROUP = 4

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + 1, H, W)."""
        count, channels, height, width = features.shape
        group = self.GROUP if count % self.GROUP == 0 else count
        grouped = features.float().reshape(-1, group, channels, height, width)
        deviation = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        plane = deviation.view(-1, 1).expand(-1, group).reshape(-1, 1, 1, 1)
        return torch.cat([features, plane.expand(-1, 1, height, width).to(features.dtype)], dim=1)


def initialise_dcgan(network: nn.Module, generator: torch.Generator) -> None:
    """Weights N(0, 0.02), batch norm gains N(1, 0.02): the published initialisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
        elif isinstance(module, SynchronisedBatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
            nn.init.zeros_(module.bias)
