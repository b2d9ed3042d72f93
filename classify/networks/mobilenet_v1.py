"""`mobilenet`: MobileNet v1, Howard et al. 2017 (arXiv:1704.04861), table 1.

Neither torchvision nor timm keeps the first version under that name with its 4,231,976
parameters (width 1, 1,000 classes), so it stands here.
"""

from torch import nn

from classify.networks.network import Network
from galaxies.errors import InputError

STAGES = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""(filters, stride) of each depthwise separable convolution."""


def mobilenet(channels: int, classes: int, size: int, dropout: float = 0.2) -> Network:
    """Build MobileNet v1; its five halvings need 32 pixels to leave one."""
    if size < 32:
        raise InputError(f"network 'mobilenet' needs at least 32 pixels, got {size}")
    layers: list[nn.Module] = [_normalised(nn.Conv2d(channels, 32, 3, 2, 1, bias=False))]
    inside = 32
    for filters, stride in STAGES:
        depthwise = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False)
        layers.append(
            nn.Sequential(
                _normalised(depthwise), _normalised(nn.Conv2d(inside, filters, 1, bias=False))
            )
        )
        inside = filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
    return Network(nn.Sequential(*layers), nn.Linear(inside, classes))


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6())
