"""The page About: what the classifier is, what it learnt from, and where it fails."""

import re
from pathlib import Path

import streamlit as st

from app import served
from app.wording import readable

_YAML_HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_FIGURES = {
    "confusion": "What it says for each true class",
    "reliability": "How far its percentages can be believed",
    "mistakes": "Its most confident mistakes",
    "curves": "How the training went",
}


def show() -> None:
    """Draw the page."""
    checkpoint = served.choices().checkpoint
    st.title("About this classifier")
    classes = [readable(name) for name in served.classifier().class_names]
    st.markdown(
        f"It knows {len(classes)} classes: {', '.join(classes)}. It puts every image into one of "
        "them, even an image of something else; look for the note that an image is *unlike the "
        "training images*."
    )
    card = checkpoint / "card.md"
    if card.is_file():
        text = _YAML_HEAD.sub("", card.read_text(encoding="utf-8"))
        st.markdown(_one_heading_lower(text))
        st.download_button("Download this card", text, "card.md", "text/markdown")
    else:
        st.info("This checkpoint has no card; classify-train writes one.")
    for path in sorted((checkpoint / "plots").glob("*.png"), key=_place_of):
        st.subheader(_title_of(path))
        st.image(str(path), alt=_title_of(path))


def _one_heading_lower(markdown: str) -> str:
    """The card's headings below the page's own."""
    return re.sub(r"^(#+ )", r"#\1", markdown, flags=re.MULTILINE)


def _title_of(path: Path) -> str:
    known = next((title for key, title in _FIGURES.items() if key in path.stem), None)
    return known or readable(path.stem).capitalize()


def _place_of(path: Path) -> tuple[int, str]:
    """Figures in the order of `_FIGURES`, others after them."""
    keys = list(_FIGURES)
    return next((keys.index(key) for key in keys if key in path.stem), len(keys)), path.stem
