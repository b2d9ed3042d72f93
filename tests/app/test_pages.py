"""Every page, run without a browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra app")

from app import served  # noqa: E402
from app.answers import answer_files  # noqa: E402

PAGE = Path(served.__file__).parent / "page.py"


def opened(view: str = "classify") -> Any:
    """One page, run once, outside the navigation (AppTest cannot follow it)."""
    script = f"from app.views import {view}\n{view}.show()\n"
    page = testing.AppTest.from_string(script, default_timeout=60).run()
    assert not page.exception
    return page


def words_on(page: Any) -> str:
    html = " ".join(element.proto.body for element in page.get("html"))
    return html + " ".join(element.value for element in page.markdown)


def test_the_page_opens_at_classify(serve: Callable[..., None]) -> None:
    serve(title="Merger or not?")
    page = testing.AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    assert page.title[0].value == "Merger or not?"


def test_samples_are_classified_at_a_click(serve: Callable[..., None]) -> None:
    serve()
    page = opened()
    assert not page.dataframe
    page.button(key="samples").click().run()
    assert not page.exception
    assert len(page.dataframe[0].value) == 6
    assert "Its catalogue says" in words_on(page)


def test_uploads_show_the_numbers_of_the_endpoint(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    page = opened()
    files = [(name, content, "image/png") for name, content in galaxy_files]
    bad = ("<script>alert(1)</script>.png", b"text", "image/png")
    page.file_uploader(key="files").set_value([*files, bad]).run()
    assert not page.exception
    table = page.dataframe[0].value
    for row, answer in zip(table.to_dict("records"), answer_files(galaxy_files, 0.9), strict=False):
        assert row["File"] == answer.name
        assert row["Most like"] == answer.prediction.label
        probability = answer.prediction.probabilities[answer.prediction.label or ""]
        assert row["Probability"] == pytest.approx(100 * probability, abs=0.051)
    assert list(table["Problem"])[-1] == (
        "it is not an image that can be read here "
        "(JPEG, PNG, TIFF, WebP, BMP or FITS, or a zip of them)"
    )
    words = words_on(page)
    assert "1 file could not be read" in words
    assert "<script>" not in words
    assert words.count('class="verdict"') == 6
    lines = page.session_state["csv"].decode().splitlines()
    assert len(lines) == 1 + 7
    assert lines[0].startswith("id,class,p_double,p_round,p_elongated,set")


def test_a_surer_answer_leaves_more_open(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    page = opened()
    files = [(name, content, "image/png") for name, content in galaxy_files]
    page.file_uploader(key="files").set_value(files).run()
    page.select_slider(key="level").set_value(0.5).run()
    usual = [len(names) for names in page.dataframe[0].value["Could be"]]
    page.select_slider(key="level").set_value(0.99).run()
    surest = [len(names) for names in page.dataframe[0].value["Could be"]]
    assert surest == [3] * 6
    assert sum(usual) < sum(surest)
    # At 99 % every class has too few calibration images; that is not laid to the galaxies.
    assert "It could be any of the classes: it was checked on too few" in words_on(page)


def test_one_image_is_explained_at_once(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve()
    page = opened()
    name, content = galaxy_files[0]
    page.file_uploader(key="files").set_value([(name, content, "image/png")]).run()
    assert not page.exception
    assert not page.dataframe
    words = words_on(page)
    assert "Where it looked" in words
    assert words.count(", distance") == 2 * 6  # each as a caption and as the words read aloud
    assert "95\N{NO-BREAK SPACE}% interval" in words


def test_an_image_unlike_the_training_says_so(serve: Callable[..., None]) -> None:
    import io

    import numpy as np
    from PIL import Image

    serve()
    file = io.BytesIO()
    stripes = np.tile(np.repeat([0, 255], 4), 8).astype(np.uint8)
    Image.fromarray(np.broadcast_to(stripes[:, None, None], (64, 64, 3)).copy()).save(file, "PNG")
    page = opened()
    page.file_uploader(key="files").set_value([("s.png", file.getvalue(), "image/png")]).run()
    assert "unlike the images that the classifier learnt from" in words_on(page)


def test_generate_draws_the_same_galaxies_for_a_seed(
    serve: Callable[..., None], generator_checkpoint: Path
) -> None:
    serve(gan=(generator_checkpoint,))
    page = opened("generate")
    first = words_on(page)
    assert first.count("<figcaption>nearest real") == 12
    page.number_input(key="seed").set_value(5).run()
    assert not page.exception
    other = words_on(page)
    page.number_input(key="seed").set_value(0).run()
    assert words_on(page) == first != other
    page.slider(key="count").set_value(4).run()
    page.toggle(key="nearest").set_value(False).run()
    assert not page.exception
    assert "<figcaption>nearest real" not in words_on(page)


def test_generated_galaxies_are_downloaded_with_their_history(
    serve: Callable[..., None], generator_checkpoint: Path, tmp_path: Path
) -> None:
    import io
    import zipfile

    from app.pieces import shown_pixels
    from app.views.generate import _generate, _hdf5_of, _zip_of
    from galaxies.hdf5 import read_hdf5

    serve(gan=(generator_checkpoint,))
    path = tmp_path / "generated.h5"
    path.write_bytes(_hdf5_of(generator_checkpoint, "double", 4, 3, 1.0))
    made = read_hdf5(path)
    assert made.is_synthetic
    assert made.provenance["generator"]["seed"] == 3
    images = _generate(str(generator_checkpoint), "double", 4, 3, 1.0)
    assert (made.pixels.numpy() == images).all()
    archive = zipfile.ZipFile(io.BytesIO(_zip_of([shown_pixels(i) for i in images], "made")))
    assert archive.namelist() == [f"made/{number:03d}.png" for number in range(4)]


def test_experiment_shows_the_verdict(serve: Callable[..., None], tmp_path: Path) -> None:
    results = {
        "class": "spiral_clockwise",
        "repeats": 3,
        "arms": {
            "plain": {
                "spiral_clockwise": {"recall": [0.5, 0.6, 0.7], "precision": [0.4, None, 0.6]}
            }
        },
        "arms_in_words": {"plain": "as it is"},
        "comparisons": [
            {
                "arm": "gan",
                "baseline": "plain",
                "class": "spiral_clockwise",
                "difference": 0.05,
                "interval": [-0.01, 0.11],
                "p": 0.1,
                "p_holm": 0.2,
                "claim": "too small to tell",
            }
        ],
        "verdict": {"claim": "too small to tell", "sentence": "Nothing can be said."},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "report.html").write_text("<html><head></head><body>all of it</body></html>")
    serve(results=(tmp_path,))
    page = opened("experiment")
    assert page.subheader[0].value == "Too small to tell"
    assert "Nothing can be said." in words_on(page)
    arms = page.dataframe[0].value.to_dict("records")
    assert arms[0]["Recall"] == pytest.approx(60)
    assert arms[0]["Precision"] == pytest.approx(50)
    compared = page.dataframe[1].value.to_dict("records")[0]
    assert compared["Class"] == "clockwise spiral"
    assert compared["Difference in recall"] == pytest.approx(5)


def test_an_experiment_that_has_not_finished(serve: Callable[..., None], tmp_path: Path) -> None:
    serve(results=(tmp_path,))
    assert "no finished experiment" in opened("experiment").warning[0].value


def test_the_model_page_shows_its_card(serve: Callable[..., None]) -> None:
    serve()
    page = opened("model")
    words = words_on(page)
    assert "double, round, elongated" in words
    assert "Known failures" in words
    assert "tags:" not in words
