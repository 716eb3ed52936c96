"""How the page's events follow each other."""

import gradio as gr
import pytest

from app import build_app

PRESSED = {"click", "tick"}
ALIKE = {"open_lessons"}  # its two tabs tell of the same


@pytest.fixture(scope="module")
def events():
    """Every event that the server answers."""
    return [event for event in build_app().fns.values() if event.fn is not None]


def test_a_status_stands_on_pictures_and_one_text_alone(events):
    """Gradio's page goes through all that ever had a status, with all that is inside of it, at each message."""
    assert {len(event.show_progress_on) for event in events if event.show_progress == "hidden"} == {0}
    shown = [event for event in events if event.show_progress != "hidden"]
    for event in shown:
        texts = [one for one in event.show_progress_on if not isinstance(one, gr.Plot)]
        assert len(texts) <= 1
        assert all(isinstance(one, gr.HTML) for one in texts)
        assert set(event.show_progress_on) <= set(event.outputs)
    assert {event.api_name for event in shown if not event.show_progress_on} <= {"choose_models"}


def test_nothing_that_is_asked_for_is_left_out(events):
    """Gradio drops an event whose last answer is on its way, unless told otherwise: only what is pressed twice may be."""
    dropped = [event for event in events if event.trigger_mode == "once"]
    assert dropped
    assert [
        event.api_name
        for event in dropped
        if {name for _, name in event.targets} - PRESSED and event.api_name not in ALIKE
    ] == []
    assert [event.api_name for event in dropped if event.trigger_after is not None] == []
