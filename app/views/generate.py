"""The page Generate: new galaxies of one class, and the real ones that they are nearest to."""

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import streamlit as st

from app import served
from app.answers import nearest_real
from app.pieces import notice, png_bytes, shown_pixels, tiles
from app.wording import readable

MOST_IMAGES = 64
FRAMES = 8


def show() -> None:
    """Draw the page."""
    st.title("New galaxies")
    st.markdown(
        "None of these galaxies exists. A generator drew them after it had seen real ones of the "
        "same class; they help to train a classifier where real examples are rare."
    )
    checkpoints = served.choices().gan
    checkpoint = checkpoints[0]
    if len(checkpoints) > 1:
        checkpoint = st.selectbox("Generator", checkpoints, format_func=lambda path: path.name)
    generator = served.generator(checkpoint)
    left, right = st.columns(2)
    with left:
        names = list(generator.made_classes)
        preferred = [names.index(name) for name in generator.training_classes if name in names]
        name = st.selectbox(
            "Class", names, index=(preferred or [0])[0], format_func=readable, key="class"
        )
        count = st.slider("How many", 4, MOST_IMAGES, 12, step=4, key="count")
    with right:
        truncation = st.slider(
            "Variety",
            0.3,
            1.0,
            1.0,
            step=0.05,
            key="truncation",
            help="Truncation. Lower draws are prettier and more alike; use 1 to train with them.",
        )
        seed = st.number_input(
            "Seed", 0, 999_999, 0, key="seed", help="The same number draws the same galaxies again."
        )
    images = _generate(str(checkpoint), name, int(count), int(seed), float(truncation))
    pictures = [shown_pixels(image, generator.description.data.flux_stretch) for image in images]
    beside = st.toggle("Show the nearest real galaxy beside each", value=True, key="nearest")
    neighbours = nearest_real(images) if beside else None
    if beside and neighbours is not None:
        _show_pairs(pictures, neighbours)
    else:
        if beside:
            st.caption("This classifier keeps no training images of this size to compare with.")
        st.html(tiles([(pixels, f"{number + 1}") for number, pixels in enumerate(pictures)]))
    _downloads(checkpoint, name, int(count), int(seed), float(truncation), pictures)
    st.subheader("From one to another")
    st.markdown(
        "Eight steps from the first galaxy of this seed to the second. A generator that knows its "
        "class passes through galaxies all the way."
    )
    walk = _walk(str(checkpoint), name, int(seed), float(truncation))
    stretch = generator.description.data.flux_stretch
    st.html(
        tiles(
            [(shown_pixels(frame, stretch), f"{i + 1} of {FRAMES}") for i, frame in enumerate(walk)]
        )
    )


def _show_pairs(
    pictures: list[np.ndarray], neighbours: list[tuple[np.ndarray, str, float]]
) -> None:
    st.html(
        notice(
            "If a generated galaxy looks the same as its nearest real one, the generator has "
            "learnt it by heart instead of inventing."
        )
    )
    shown = []
    for number, (made, (real, label, distance)) in enumerate(
        zip(pictures, neighbours, strict=True)
    ):
        shown.append((made, f"{number + 1}: generated"))
        shown.append((real, f"nearest real: {readable(label)} (distance {distance:.2f})"))
    st.html(tiles(shown))


def _downloads(
    checkpoint: Path,
    name: str,
    count: int,
    seed: int,
    truncation: float,
    pictures: list[np.ndarray],
) -> None:
    stem = f"generated-{name}-seed-{seed}".replace(" ", "-").replace("/", "-")
    with st.container(horizontal=True):
        st.download_button(
            "Download PNG (zip)",
            lambda: _zip_of(pictures, stem),
            f"{stem}.zip",
            "application/zip",
            on_click="ignore",
        )
        st.download_button(
            "Download HDF5",
            lambda: _hdf5_of(checkpoint, name, count, seed, truncation),
            f"{stem}.h5",
            "application/x-hdf5",
            on_click="ignore",
        )


@st.cache_data(max_entries=32, show_spinner="Drawing galaxies …")
def _generate(checkpoint: str, name: str, count: int, seed: int, truncation: float) -> np.ndarray:
    from classify.generation import generate

    generator = served.generator(Path(checkpoint))
    with served.computing:
        index = generator.class_index(name)
        return generate(generator, index, count, seed, truncation).numpy()


@st.cache_data(max_entries=32, show_spinner="Drawing the way …")
def _walk(checkpoint: str, name: str, seed: int, truncation: float) -> np.ndarray:
    from classify.generation import open_walk

    generator = served.generator(Path(checkpoint))
    with served.computing:
        index = generator.class_index(name)
        walk = open_walk(generator, index, seed=seed, frames=FRAMES, truncation=truncation)
        return walk.numpy()


def _zip_of(pictures: list[np.ndarray], stem: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, pixels in enumerate(pictures):
            archive.writestr(f"{stem}/{number:03d}.png", png_bytes(pixels))
    return file.getvalue()


def _hdf5_of(checkpoint: Path, name: str, count: int, seed: int, truncation: float) -> bytes:
    """The same images as an image set, with the history that an evaluation asks for."""
    import torch

    from classify.generation import synthetic_set
    from galaxies.hdf5 import write_hdf5

    generator = served.generator(checkpoint)
    images = torch.from_numpy(_generate(str(checkpoint), name, count, seed, truncation))
    index = generator.class_index(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.h5"
        write_hdf5(synthetic_set(generator, [index], [images], seed, truncation), path)
        return path.read_bytes()
