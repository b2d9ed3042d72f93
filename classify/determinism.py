"""Randomness as a function of what it is for, and a fence around libraries that use global state.

Every random draw of a training run is keyed by (seed, purpose, step), so two runs that differ in
one choice still share all the others (common random numbers), and a resumed run draws what the
uninterrupted one would have drawn, without any state to save.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def derived_seed(seed: int, purpose: str, step: int = 0) -> int:
    """A 63-bit seed that depends on all three."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(
    seed: int, purpose: str, step: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Torch generator on ``device`` for one purpose at one step."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, step))


def numpy_generator_for(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """NumPy generator for one purpose at one step."""
    return np.random.default_rng(derived_seed(seed, purpose, step))


@contextlib.contextmanager
def isolated_randomness(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after it.

    Layers such as dropout, and the initial weights of torchvision and timm, draw from the global
    generators and take no other.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
