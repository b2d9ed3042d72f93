"""The page About: what the classifier is, what it learnt from, and where it fails."""

import re

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
    st.title("About this classifier")
    classes = [readable(name) for name in served.classifier().class_names]
    st.markdown(
        f"It knows {len(classes)} classes: {', '.join(classes)}. It puts every image into one of "
        "them, even an image of something else; look for the note that an image is *unlike the "
        "training images*."
    )
    if card := served.card():
        text = _YAML_HEAD.sub("", card)
        st.markdown(_one_heading_lower(text))
        st.download_button("Download this card", text, "card.md", "text/markdown")
    else:
        st.info("This checkpoint has no card; classify-train writes one.")
    for name, content in sorted(served.figures(), key=lambda figure: _place_of(figure[0])):
        st.subheader(_title_of(name))
        st.image(content, alt=_title_of(name))


def _one_heading_lower(markdown: str) -> str:
    """The card's headings below the page's own."""
    return re.sub(r"^(#+ )", r"#\1", markdown, flags=re.MULTILINE)


def _title_of(name: str) -> str:
    known = next((title for key, title in _FIGURES.items() if key in name), None)
    return known or readable(name).capitalize()


def _place_of(name: str) -> tuple[int, str]:
    """Figures in the order of `_FIGURES`, others after them."""
    keys = list(_FIGURES)
    return next((keys.index(key) for key in keys if key in name), len(keys)), name
