"""The script that Streamlit runs for each visitor: style, navigation, the chosen page."""

import streamlit as st

from app import served
from app.pieces import STYLE
from app.views import classify, experiment, generate, model


def pages() -> list["st.Page"]:
    """The pages that this server has something to show on."""
    choices = served.choices()
    shown = [st.Page(classify.show, title="Classify", url_path="classify", default=True)]
    if choices.gan:
        shown.append(st.Page(generate.show, title="Generate", url_path="generate"))
    if choices.results:
        shown.append(st.Page(experiment.show, title="Experiment", url_path="experiment"))
    shown.append(st.Page(model.show, title="About", url_path="about"))
    return shown


st.set_page_config(page_title=served.choices().title, page_icon="🌌", layout="centered")
st.html(STYLE)
st.navigation(pages(), position="top").run()
