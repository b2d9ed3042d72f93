"""The page Classify: what each image is, how sure that is, and why."""

from functools import lru_cache

import streamlit as st

from app import served
from app.answers import Answer, Explanation, answer_files, answer_samples, as_csv, explain, stretch
from app.cli import ClassifyAppConfig
from app.pieces import notice, picture, probability_bars, shown_pixels, thumbnail, tiles
from app.uploads import MEBIBYTE
from app.wording import (
    describe_probability,
    describe_record,
    describe_set,
    readable,
    with_article,
)

CARDS_AT_ONCE = 12
SAMPLES_OFFERED = 12
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)


def show() -> None:
    """Draw the page."""
    choices, limits = served.choices(), served.limits()
    st.title(choices.title)
    st.markdown(
        "Drop an image of one galaxy, or many. For each you see what it most resembles, "
        "how sure that is, and why."
    )
    files = st.file_uploader(
        "Your images",
        accept_multiple_files=True,
        key="files",
        max_upload_size=max(1, limits.upload_bytes // MEBIBYTE),
        help=f"JPEG, PNG, TIFF, WebP or FITS with one galaxy in the middle, or a zip of them. "
        f"At most {limits.files} images and {limits.upload_bytes // MEBIBYTE} MB at once. "
        "Images are not stored.",
    )
    show_samples = bool(st.session_state.get("show_samples")) and not files
    if not files and not show_samples:
        _offer_samples()
    if not files and not show_samples:
        return
    level = st.select_slider(
        "How sure should the answer be?",
        sorted({*_LEVELS, choices.confidence}),
        value=choices.confidence,
        format_func=lambda share: f"{100 * share:g} %",
        key="level",
        help="The surer it has to be, the more classes it leaves open. At 90 %, the true class is "
        "among those named for 90 of 100 galaxies like the ones it was tested on.",
    )
    source = (tuple(file.file_id for file in files or ()), show_samples)
    remembered = st.session_state.get("answers")
    if remembered is None or remembered[0] != (source, level):
        with st.spinner("Looking …"):
            sent = ((file.name, file.getvalue()) for file in files or ())
            answers = answer_samples(level) if show_samples else answer_files(sent, level)
        st.session_state["answers"] = remembered = ((source, level), answers)
    if st.session_state.get("explained") != source:  # explanations do not depend on the level
        st.session_state["explained"] = source
        st.session_state["explanations"] = {}
    _show_answers(remembered[1], level)


def _offer_samples() -> None:
    shown = _sample_tiles(served.choices())
    if shown:
        st.button(
            "No image at hand? Try these samples",
            key="samples",
            on_click=lambda: st.session_state.update(show_samples=True),
        )
        st.html(shown)


@lru_cache(maxsize=4)
def _sample_tiles(choices: ClassifyAppConfig) -> str:
    """The same for every visitor, so drawn once."""
    pixels = [answer.pixels for answer in answer_samples(choices.confidence)[:SAMPLES_OFFERED]]
    pictures = [shown_pixels(image.numpy(), stretch()) for image in pixels if image is not None]
    return tiles([(picture, "") for picture in pictures]) if pictures else ""


def _show_answers(answers: list[Answer], level: float) -> None:
    good = [(row, answer) for row, answer in enumerate(answers) if answer.error is None]
    bad = [answer for answer in answers if answer.error is not None]
    if bad:
        st.html(_refusals(bad))
    if len(answers) > 1:
        _show_table(answers, level)
    shown = good
    if len(good) > CARDS_AT_ONCE:
        starts = list(range(0, len(good), CARDS_AT_ONCE))
        start = st.selectbox(
            "Images",
            starts,
            format_func=lambda s: f"{s + 1} to {min(s + CARDS_AT_ONCE, len(good))} of {len(good)}",
            key="cards",
        )
        shown = good[start : start + CARDS_AT_ONCE]
    for row, answer in shown:
        _show_card(row, answer, level, alone=len(good) == 1)


def _refusals(bad: list[Answer]) -> str:
    title = "1 file could not be read:" if len(bad) == 1 else f"{len(bad)} files could not be read:"
    return notice(title, [f"{answer.name}: {answer.error}" for answer in bad])


def _show_table(answers: list[Answer], level: float) -> None:
    rows = [
        {
            "": thumbnail(answer.pixels, stretch()) if answer.pixels is not None else None,
            "Most like": readable(answer.prediction.label or "(not read)"),
            "Probability": _percent(answer),
            "Could be": [readable(name) for name in _likely(answer)],
            "Unlike training": answer.prediction.unlike_training,
            "File": answer.name,
            "Problem": answer.error or "",
        }
        for answer in answers
    ]
    if not any(answer.error for answer in answers):
        for row in rows:
            del row["Problem"]
    st.dataframe(
        rows,
        hide_index=True,
        row_height=52,
        height=min(52 * len(rows) + 40, 460),
        column_config={
            "": st.column_config.ImageColumn(width=60),
            "Could be": st.column_config.ListColumn(
                width="medium", help=f"Classes that cannot be ruled out at {100 * level:g} %"
            ),
            "Probability": st.column_config.ProgressColumn(
                format="%d %%", min_value=0, max_value=100, help="Of the most probable class"
            ),
            "Unlike training": st.column_config.CheckboxColumn(
                help="Farther from the training images than 99 % of held-out images"
            ),
        },
        alt="One row per file: its classes, the most probable one and its probability",
    )
    st.session_state["csv"] = as_csv(answers)
    st.download_button(
        "Download the table (CSV)",
        st.session_state["csv"],
        "classes.csv",
        "text/csv",
        on_click="ignore",
        key="download",
    )


def _show_card(row: int, answer: Answer, level: float, *, alone: bool) -> None:
    prediction = answer.prediction
    assert answer.pixels is not None
    assert prediction.label is not None
    with st.container(border=True):
        left, right = st.columns([2, 3], gap="medium")
        with left:
            st.html(
                picture(shown_pixels(answer.pixels.numpy(), stretch()), f"The image {answer.name}")
                + '<p class="quiet">As the classifier sees it</p>'
            )
        with right:
            st.html(_verdict(answer, level))
            st.html(probability_bars(prediction.probabilities, prediction.prediction_set or ()))
            st.html(_track_record(answer))
        box = st.expander("Why?", expanded=alone, on_change="rerun", key=f"why-{row}")
        if box.open:
            with box:
                _show_explanation(row, answer, level)


def _verdict(answer: Answer, level: float) -> str:
    from html import escape

    prediction = answer.prediction
    parts = [
        f'<p class="file-name">{escape(answer.name)}</p>',
        f'<p class="verdict">{escape(_sentence(answer))}</p>',
    ]
    if answer.truth is not None:
        said = "A sample that it has not learnt from. Its catalogue says: "
        parts.append(f'<p class="quiet">{escape(said + readable(answer.truth))}.</p>')
    if prediction.unlike_training:
        parts.append(
            notice(
                "This image is unlike the images that the classifier learnt from. "
                "Do not rely on the answer."
            )
        )
    return "".join(parts)


def _sentence(answer: Answer) -> str:
    """The prediction set in plain words; the most probable class where there is no set."""
    prediction = answer.prediction
    label = prediction.label or ""
    if prediction.prediction_set is None:
        probability = describe_probability(prediction.probabilities[label])
        return f"Most like {with_article(label)} ({probability})."
    return describe_set(
        _likely(answer), list(prediction.probabilities), prediction.never_ruled_out, label
    )


def _likely(answer: Answer) -> list[str]:
    """The prediction set, the most probable class first."""
    prediction = answer.prediction
    return sorted(prediction.prediction_set or (), key=lambda name: -prediction.probabilities[name])


def _percent(answer: Answer) -> float | None:
    label = answer.prediction.label
    return None if label is None else round(100 * answer.prediction.probabilities[label], 1)


def _track_record(answer: Answer) -> str:
    from html import escape

    prediction = answer.prediction
    record = prediction.class_record
    if record is None:
        return '<p class="quiet">This checkpoint does not say how it did on test images.</p>'
    label = prediction.label or ""
    sentences = []
    for kind, total in (("precision", record["predicted"]), ("recall", record["images"])):
        sentence = describe_record(label, record["right"], total, kind)
        if total and record[f"{kind}_interval"] is not None:
            low, high = record[f"{kind}_interval"]
            sentence = sentence.rstrip(".")
            sentence += f" ({kind} {100 * low:.0f} to {100 * high:.0f} %, 95 % interval)."
        sentences.append(sentence)
    text = " ".join(sentences).replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<p class="quiet">{escape(text)}</p>'


def _show_explanation(row: int, answer: Answer, level: float) -> None:
    known: dict[int, Explanation] = st.session_state["explanations"]
    if row not in known:
        with st.spinner("Looking closer …"):
            known[row] = explain(answer, level)
    explanation = known[row]
    left, right = st.columns([2, 3], gap="medium")
    if explanation.evidence is not None:
        with left:
            st.html(picture(explanation.evidence, "Where the classifier looked"))
            st.markdown(
                "**Where it looked.** The warmer, the more this part spoke for "
                f"{with_article(answer.prediction.label or '')} (Grad-CAM)."
            )
    if explanation.similar:
        with right:
            st.markdown("**The training images most like it**, and what they are:")
            st.html(
                tiles(
                    [
                        (pixels, f"{readable(label)}, distance {distance:.2f}")
                        for pixels, label, distance in explanation.similar
                    ]
                )
            )
    if explanation.evidence is None and not explanation.similar:
        st.caption("This checkpoint holds nothing to explain its answers with.")
