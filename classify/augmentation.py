"""Changes that a telescope could have made: small rotation, shift, zoom, flux, noise, blur.

RandAugment (Cubuk et al. 2020, arXiv:1909.13719) restricted to physics: colour operations would
destroy the photometry and posterising never happens to a galaxy. Each image gets
`OPERATIONS_PER_IMAGE` of the six operations, each at a random strength up to the given one.
"""

import math

import torch
import torch.nn.functional as F

OPERATIONS = ("rotation", "shift", "zoom", "flux", "noise", "blur")
OPERATIONS_PER_IMAGE = 2

LARGEST_ROTATION = math.radians(30)
LARGEST_SHIFT = 0.15  # of the side
LARGEST_ZOOM = 1.4  # and its inverse
LARGEST_FLUX = 1.5  # and its inverse
LARGEST_NOISE = 0.06  # standard deviation, of the range 0 to 1
LARGEST_BLUR = 1.2  # standard deviation of the Gaussian PSF, pixels
_BLUR_REACH = 3


def physical(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Change each image by two random operations.

    Parameters
    ----------
    images
        (n, C, H, W) float32 in [-1, 1].
    strength
        0 changes nothing, 1 allows each operation its largest amount.
    generator
        On the device of ``images``.
    """
    count, device = len(images), images.device
    order = torch.rand(count, len(OPERATIONS), generator=generator, device=device).argsort(dim=1)
    chosen = order.argsort(dim=1) < OPERATIONS_PER_IMAGE
    # Signed and one-sided amounts of each operation, 0 where it is not chosen.
    signed = torch.rand(count, len(OPERATIONS), generator=generator, device=device) * 2 - 1
    amount = torch.where(chosen, signed * strength, torch.zeros_like(signed))
    rotation, shift, zoom, flux, noise, blur = amount.unbind(dim=1)
    direction = torch.rand(count, generator=generator, device=device) * (2 * math.pi)
    images = move(
        images,
        angle=rotation * LARGEST_ROTATION,
        shift_x=shift * LARGEST_SHIFT * direction.cos(),
        shift_y=shift * LARGEST_SHIFT * direction.sin(),
        zoom=torch.pow(LARGEST_ZOOM, zoom),
    )
    images = blur_by(images, blur.abs() * LARGEST_BLUR)
    unit = (images + 1) / 2 * torch.pow(LARGEST_FLUX, flux).view(-1, 1, 1, 1)
    grain = torch.randn(images.shape, generator=generator, device=device)
    unit = unit + grain * (noise.abs() * LARGEST_NOISE).view(-1, 1, 1, 1)
    return unit.clamp(0, 1) * 2 - 1


def move(
    images: torch.Tensor,
    *,
    angle: torch.Tensor,
    shift_x: torch.Tensor,
    shift_y: torch.Tensor,
    zoom: torch.Tensor,
) -> torch.Tensor:
    """Rotate (radians), shift (shares of the side) and zoom each image; all arguments (n,).

    Bilinear; beyond the border the image is reflected, so no false edge of black appears.
    """
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack(
        [
            torch.stack([cosine, -sine, -2 * shift_x], dim=1),
            torch.stack([sine, cosine, -2 * shift_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def blur_by(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Convolve each image with a Gaussian of its own ``sigma`` (n,), pixels; 0 leaves it."""
    offsets = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    for dimension in (-1, -2):
        padding = (_BLUR_REACH, _BLUR_REACH, 0, 0) if dimension == -1 else (0, 0, 3, 3)
        padded = F.pad(images, padding, mode="reflect")
        length = images.shape[dimension]
        images = sum(  # type: ignore[assignment]
            padded.narrow(dimension, shift, length) * kernel[:, shift].view(-1, 1, 1, 1)
            for shift in range(2 * _BLUR_REACH + 1)
        )
    return images


def five_crops(images: torch.Tensor, side: int, generator: torch.Generator | None) -> torch.Tensor:
    """Cut one of the four corners or the centre from each image, at random.

    Without a generator the centre is cut. (n, C, H, H) to (n, C, side, side).
    """
    margin = images.shape[-1] - side
    centre = margin // 2
    places = torch.tensor(
        [[0, 0], [0, margin], [margin, 0], [margin, margin], [centre, centre]],
        device=images.device,
    )
    if generator is None:
        return images[..., centre : centre + side, centre : centre + side]
    choice = torch.randint(5, (len(images),), generator=generator, device=images.device)
    start = places[choice]
    span = torch.arange(side, device=images.device)
    rows = (start[:, 0, None] + span)[:, None, :, None]
    columns = (start[:, 1, None] + span)[:, None, None, :]
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[batch, channel, rows, columns]
