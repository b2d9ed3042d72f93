"""The pair of the recipe ``tail``: a small style generator and a residual discriminator.

The generator is a lean StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): a mapping network, a
learned 4x4 start, modulated and demodulated convolutions, noise at every resolution, images
summed over resolutions. Modulation scales the inputs and demodulation the outputs of ordinary
convolutions, so no grouped convolution and no custom operation is needed.

The discriminator has residual blocks and no normalisation. Initialisation follows He et al.
2015; residual branches start at zero, as in R3GAN (Huang et al. 2024, arXiv:2501.05441).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan.networks import MinibatchDeviation, check_size, scaled
from gan.recipes import Parts

BASE_WIDTH = 32
"""Channels at 64x64 for width 1; they double with each halving of the side."""

MOST_CHANNELS = 256
CLASS_EMBEDDING = 64
STYLE = 128
"""Length of the style vector w."""

SKY_CONTRAST = 0.1
"""Factor on the first images' deviation from the sky."""

LEAK = 0.2
GAIN = math.sqrt(2 / (1 + LEAK**2))


def tail_channels(resolution: int, width: float) -> int:
    """Channels at one resolution."""
    return scaled(width, min(MOST_CHANNELS, BASE_WIDTH * 64 // resolution))


class ModulatedConvolution(nn.Module):
    """Convolution whose input channels are scaled by the style, with unit output variance.

    ``y = d * conv(s * x, W)``, ``d = 1 / sqrt(sum (s W)^2)``: equations 1 to 3 of
    arXiv:1912.04958. With ``up`` it is a transposed 4x4 convolution of stride 2. Its sixteen taps
    are either free, so that each of the four phases of the finer grid has its own filter (a short
    training leaves them different, which is seen as a weave), or ``smooth``: those of a 3x3
    convolution behind pixels that were doubled, which costs less than doing so.
    """

    def __init__(
        self, inputs: int, outputs: int, *, up: bool = False, smooth: bool = False
    ) -> None:
        super().__init__()
        self.up, self.smooth = up, smooth
        kernel = 4 if up and not smooth else 3
        shape = (inputs, outputs, kernel, kernel) if up else (outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = nn.Linear(STYLE, inputs)
        self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """(N, C, H, W), (N, STYLE), (N, 1, H', W') noise or None to (N, C', H', W')."""
        scale = self.style(style).float()  # (N, inputs), around 1
        weight = spread(self.weight) if self.smooth else self.weight
        power = weight.square().sum(dim=(2, 3))
        power = power if self.up else power.t()  # (inputs, outputs)
        with torch.autocast(features.device.type, enabled=False):
            demodulation = torch.rsqrt(scale.square() @ power.float() + 1e-8)
        if self.up:
            demodulation = demodulation * 2  # every output sees a quarter of the taps
        features = features * scale[:, :, None, None].to(features.dtype)
        features = (
            F.conv_transpose2d(features, weight, stride=2, padding=1)
            if self.up
            else F.conv2d(features, weight, padding=1)
        )
        features = features * demodulation[:, :, None, None].to(features.dtype)
        shift = self.bias[:, None, None]
        if noise is not None:
            shift = shift + self.noise_strength * noise
        return GAIN * F.leaky_relu(features + shift.to(features.dtype), LEAK)


class StyleGenerator(nn.Module):
    """From z (N, latent), labels and noise to (N, C, S, S) images around [-1, 1].

    There is no tanh: most of a galaxy image is sky at one end of the range, where tanh has no
    gradient. `galaxies.pixels.to_storage` clips.
    """

    def __init__(self, classes: int, channels: int, size: int, width: float, parts: Parts) -> None:
        super().__init__()
        check_size(size)
        self.latent, self.classes, self.size = parts.latent, classes, size
        self.class_from = parts.class_from
        self.embedding = nn.Embedding(classes, CLASS_EMBEDDING) if classes > 1 else None
        self.mapping = nn.ModuleList(
            [
                nn.Linear(parts.latent + (CLASS_EMBEDDING if classes > 1 else 0), STYLE),
                nn.Linear(STYLE, STYLE),
                nn.Linear(STYLE, STYLE),
            ]
        )
        resolutions = [4 * 2**power for power in range((size // 4).bit_length())]
        inputs = tail_channels(4, width)
        self.start = nn.Parameter(torch.empty(1, inputs, 4, 4))
        self.blocks = nn.ModuleList()
        self.to_images = nn.ModuleList()
        self.noise_shapes: list[int] = []
        for resolution in resolutions:
            outputs = tail_channels(resolution, width)
            block = nn.ModuleList()
            if resolution > 4:
                block.append(
                    ModulatedConvolution(inputs, outputs, up=True, smooth=parts.smooth_upsampling)
                )
                self.noise_shapes.append(resolution)
            block.append(ModulatedConvolution(outputs, outputs))
            self.noise_shapes.append(resolution)
            self.blocks.append(block)
            self.to_images.append(nn.Conv2d(outputs, channels, 1))
            inputs = outputs
        self.resolutions = resolutions
        self.noise_length = sum(side * side for side in self.noise_shapes)
        if not parts.pixel_noise:
            self.noise_length = 0

    def styles(self, latent: Tensor, labels: Tensor, conditioning: Tensor) -> Tensor:
        """(N, STYLE) style vectors."""
        unit = latent * torch.rsqrt(latent.square().mean(dim=1, keepdim=True) + 1e-8)
        if self.embedding is not None:
            unit = torch.cat([unit, conditioning * self.embedding(labels)], dim=1)
        for layer in self.mapping:
            unit = GAIN * F.leaky_relu(layer(unit), LEAK)
        return unit

    def forward(
        self, latent: Tensor, labels: Tensor, conditioning: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Images (N, C, S, S).

        Parameters
        ----------
        latent
            (N, latent) standard normal.
        labels
            (N,) int64.
        conditioning
            Scalar from 0 (the class is ignored) to 1.
        noise
            (N, noise_length) standard normal, or ``None`` for none.
        """
        style = self.styles(latent, labels, conditioning)
        shared = style
        if self.embedding is not None and self.class_from > 4:
            shared = self.styles(latent, labels, torch.zeros_like(conditioning))
        return self.synthesise(style, shared, noise)

    def synthesise(self, style: Tensor, shared: Tensor, noise: Tensor | None) -> Tensor:
        """Images from the class's styles and, below ``class_from``, the shared ones."""
        features = self.start.expand(len(style), -1, -1, -1)
        features = features.to(memory_format=torch.channels_last)
        image: Tensor | None = None
        position = layer = 0
        for resolution, block, to_image in zip(
            self.resolutions, self.blocks, self.to_images, strict=True
        ):
            own = shared if resolution < self.class_from else style
            for convolution in block:  # type: ignore[attr-defined]
                side = self.noise_shapes[layer]
                grain = None
                if noise is not None and self.noise_length:
                    grain = noise[:, position : position + side * side].view(-1, 1, side, side)
                features = convolution(features, own, grain)
                position += side * side
                layer += 1
            part = to_image(features).float()
            image = part if image is None else upsample(image) + part
        assert image is not None
        return image

    def class_tables(self) -> list[Tensor]:
        """(classes, D) parameters that belong to one class each."""
        return [] if self.embedding is None else [self.embedding.weight]


def spread(weight: Tensor) -> Tensor:
    """(I, O, 3, 3) taps behind doubled pixels as (I, O, 4, 4) taps of a transposed convolution."""
    return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1, divisor_override=1)


def upsample(images: Tensor) -> Tensor:
    """Double the side by bilinear interpolation."""
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Halve the side: ``pool(skip(x)) + down(act(conv(act(x))))``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.down = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        # A 1x1 convolution and a mean commute, so the cheaper order is taken.
        skipped = self.skip(F.avg_pool2d(features, 2))
        inner = self.first(F.leaky_relu(features, LEAK))
        return skipped + self.down(F.leaky_relu(inner, LEAK))


class ResidualDiscriminator(nn.Module):
    """From images to one logit each: unconditional part plus projection of the class."""

    has_batch_norm = False
    sky: Tensor
    contrast: Tensor

    def __init__(self, classes: int, channels: int, size: int, width: float, parts: Parts) -> None:
        super().__init__()
        check_size(size)
        self.classes = classes
        plane = classes > 1 and not parts.projection
        self.plane = nn.Embedding(classes, size * size) if plane else None
        top = tail_channels(size, width)
        self.register_buffer("sky", torch.zeros(channels, 1, 1))
        self.register_buffer("contrast", torch.ones(()))
        self.from_image = nn.Conv2d(channels + int(plane), top, 3, padding=1)
        self.blocks = nn.ModuleList()
        resolution, inputs = size, top
        while resolution > 4:
            resolution //= 2
            outputs = tail_channels(resolution, width)
            self.blocks.append(ResidualBlock(inputs, outputs))
            inputs = outputs
        self.deviation = MinibatchDeviation() if parts.minibatch_deviation else None
        self.last = nn.Conv2d(inputs + int(parts.minibatch_deviation), inputs, 3, padding=1)
        self.features = nn.Linear(inputs * 16, inputs)
        self.to_logit = nn.Linear(inputs, 1)
        projects = classes > 1 and parts.projection
        self.projection = nn.Embedding(classes, inputs) if projects else None
        self.dimensions = inputs

    def forward(self, images: Tensor, labels: Tensor, conditioning: Tensor) -> Tensor:
        """(N,) float32 logits of (N, C, S, S) images with (N,) labels."""
        images = (images - self.sky) / self.contrast
        if self.plane is not None:
            plane = self.plane(labels).view(-1, 1, *images.shape[-2:])
            images = torch.cat([images, (conditioning * plane).to(images.dtype)], dim=1)
        features = self.from_image(images)
        for block in self.blocks:
            features = block(features)
        if self.deviation is not None:
            features = self.deviation(features)
        features = F.leaky_relu(self.last(features), LEAK)
        code = F.leaky_relu(self.features(features.flatten(1)), LEAK)
        logits = self.to_logit(code).squeeze(1).float()
        if self.projection is not None:
            match = (self.projection(labels) * code.float()).sum(1) / math.sqrt(self.dimensions)
            logits = logits + conditioning * match
        return logits

    def class_tables(self) -> list[Tensor]:
        """(classes, D) parameters that belong to one class each."""
        return [] if self.projection is None else [self.projection.weight]


def initialise_tail(network: nn.Module, generator: torch.Generator) -> None:
    """He initialisation; style scales start at one, the ends of residual branches near zero."""
    for name, module in network.named_modules():
        if isinstance(module, ModulatedConvolution):
            nn.init.normal_(module.weight, 0.0, _he_deviation(module), generator=generator)
            _fill_linear(module.style, 0.5, generator)
            nn.init.ones_(module.style.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 1.0, generator=generator)
        elif isinstance(module, nn.Conv2d):
            inputs = module.weight[0].numel()
            gain = 1.0 if "skip" in name or "to_images" in name else GAIN
            # A branch that starts small lets the first steps see the shallow path.
            gain *= 0.25 if name.endswith("down") else 1.0
            nn.init.normal_(module.weight, 0.0, gain / math.sqrt(inputs), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and not name.endswith(".style"):
            _fill_linear(module, 1.0, generator)
    if isinstance(network, StyleGenerator):
        nn.init.normal_(network.start, generator=generator)


@torch.no_grad()
def start_at_sky(network: nn.Module, sky: Tensor) -> None:
    """Let the first images be sky, (C,) levels in [-1, 1], with little structure upon it."""
    if not isinstance(network, StyleGenerator):
        raise TypeError(f"{type(network).__name__} has no layer that could begin at the sky")
    for layer in network.to_images:
        assert isinstance(layer, nn.Conv2d)
        layer.weight.mul_(SKY_CONTRAST)
    lowest = network.to_images[0].bias
    assert isinstance(lowest, Tensor)
    lowest.copy_(sky)


def standardise(network: nn.Module, sky: Tensor, contrast: Tensor) -> None:
    """Let a discriminator see images above the (C,) sky in units of their contrast, a scalar."""
    if not isinstance(network, ResidualDiscriminator):
        raise TypeError(f"{type(network).__name__} takes its images as they are")
    network.sky.copy_(sky[:, None, None])
    network.contrast.copy_(contrast)


def _he_deviation(module: ModulatedConvolution) -> float:
    inputs = module.weight.shape[0] if module.up else module.weight.shape[1]
    return 1 / math.sqrt(inputs * module.weight[0, 0].numel())


def _fill_linear(module: nn.Linear, gain: float, generator: torch.Generator) -> None:
    deviation = gain / math.sqrt(module.in_features)
    nn.init.normal_(module.weight, 0.0, deviation, generator=generator)
    nn.init.zeros_(module.bias)
