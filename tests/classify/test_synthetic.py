"""A synthetic set made from held-out images is refused, however it was disguised."""

import dataclasses

import numpy as np
import pytest
import torch

from classify.synthetic import align_classes, refuse_leaking
from galaxies.errors import InputError
from galaxies.image_set import ImageSet, PixelsInMemory


def synthetic_from(source: ImageSet, rows: np.ndarray, *, ids: bool = True) -> ImageSet:
    seen = source.select(rows)
    noise = torch.randint(
        0, 255, (10, *source.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return ImageSet(
        store=PixelsInMemory(noise),
        labels=np.zeros(10, np.int64),
        class_names=source.class_names,
        ids=np.array([f"fake-{i}" for i in range(10)]),
        provenance={"generator": {"checkpoint": "x"}},
        training_fingerprints=seen.fingerprints(),
        training_ids=seen.ids if ids else np.zeros(0, "U1"),
    )


def rows_of(image_set: ImageSet, side: int) -> np.ndarray:
    assert image_set.split is not None
    return np.flatnonzero(image_set.split == side)


def test_a_generator_of_training_images_is_welcome(
    tiny_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_leaking(synthetic_from(tiny_set, rows_of(tiny_set, 0)), tiny_set)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("side", "name"), [(1, "validation"), (2, "test")])
@pytest.mark.parametrize("ids", [True, False])
def test_one_held_out_image_is_enough(tiny_set: ImageSet, side: int, name: str, ids: bool) -> None:
    rows = np.append(rows_of(tiny_set, 0), rows_of(tiny_set, side)[0])
    with pytest.raises(InputError, match=f"trained on 1 of the .* {name} images"):
        refuse_leaking(synthetic_from(tiny_set, rows, ids=ids), tiny_set)


def test_ids_catch_what_resizing_hides(tiny_set: ImageSet) -> None:
    synthetic = synthetic_from(tiny_set, rows_of(tiny_set, 2))
    changed = dataclasses.replace(
        synthetic, training_fingerprints=np.array(["0" * 32] * len(synthetic.training_ids))
    )
    with pytest.raises(InputError, match="test images"):
        refuse_leaking(changed, tiny_set)


def test_ordinal_ids_prove_nothing(tiny_set: ImageSet, capsys: pytest.CaptureFixture[str]) -> None:
    ordinals = np.array([f"row-{i:06d}" for i in range(len(tiny_set))])
    numbered = dataclasses.replace(tiny_set, ids=ordinals)
    synthetic = dataclasses.replace(
        synthetic_from(tiny_set, rows_of(tiny_set, 0)),
        training_ids=ordinals[rows_of(tiny_set, 2)],
    )
    refuse_leaking(synthetic, numbered)
    assert capsys.readouterr().err == ""


def test_a_copy_of_a_test_image_is_refused(tiny_set: ImageSet) -> None:
    synthetic = synthetic_from(tiny_set, rows_of(tiny_set, 0))
    pixels = synthetic.pixels.clone()
    pixels[3] = tiny_set.side("test").pixels[0]
    with pytest.raises(InputError, match="pixel for pixel"):
        refuse_leaking(dataclasses.replace(synthetic, store=PixelsInMemory(pixels)), tiny_set)


def test_an_unknown_lineage_is_warned_of(
    tiny_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic = dataclasses.replace(
        synthetic_from(tiny_set, rows_of(tiny_set, 0)),
        training_fingerprints=np.zeros(0, "U32"),
        training_ids=np.zeros(0, "U1"),
    )
    refuse_leaking(synthetic, tiny_set)
    assert "nothing shows that it never saw" in capsys.readouterr().err


def test_a_generator_of_another_set_is_warned_of(
    tiny_set: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic = dataclasses.replace(
        synthetic_from(tiny_set, rows_of(tiny_set, 0)),
        training_fingerprints=np.array(["f" * 32]),
        training_ids=np.array(["elsewhere"]),
    )
    refuse_leaking(synthetic, tiny_set)
    assert "made from another set" in capsys.readouterr().err


def test_classes_are_matched_by_name(tiny_set: ImageSet) -> None:
    synthetic = dataclasses.replace(
        synthetic_from(tiny_set, rows_of(tiny_set, 0)), class_names=("round",)
    )
    aligned = align_classes(synthetic, tiny_set.class_names)
    assert aligned.class_names == tiny_set.class_names
    assert (aligned.labels == tiny_set.class_names.index("round")).all()
    with pytest.raises(InputError, match="synthetic class quasar"):
        align_classes(dataclasses.replace(synthetic, class_names=("quasar",)), ("a", "b"))
