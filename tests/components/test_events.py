"""How the page's events follow each other."""

import pytest

from app import build_app

PRESSED = {"click", "tick"}
ALIKE = {"open_lessons"}  # its two tabs tell of the same


@pytest.fixture(scope="module")
def events():
    """Every event that the server answers."""
    return [event for event in build_app().fns.values() if event.fn is not None]


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
