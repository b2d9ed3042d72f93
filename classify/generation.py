"""Generators as the page needs them: what it may take of `gan`, in one place."""

from gan.checkpoint import read_description
from gan.interpolation import open_walk
from gan.loaded_generator import LoadedGenerator, load_generator
from gan.sampling import generate
from gan.synthetic_set import synthetic_set

__all__ = [
    "LoadedGenerator",
    "generate",
    "load_generator",
    "open_walk",
    "read_description",
    "synthetic_set",
]
