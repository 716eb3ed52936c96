"""What the server keeps of every open page."""

import gradio as gr
import pytest
from gradio import state_holder
from gradio.state_holder import SessionState, StateHolder

from components import sessions
from components.sessions import LeanSession


@pytest.fixture
def page():
    """A page with a state and something to show."""
    with gr.Blocks() as page:
        gr.State([1])
        gr.Slider(0, 1, value=0.5, label="λ")
    return page


def test_a_session_keeps_values_and_no_configuration(page, monkeypatch):
    monkeypatch.setattr(state_holder, "SessionState", SessionState)
    sessions.begin()
    holder = StateHolder()
    holder.set_blocks(page)
    session = holder["a page"]
    assert isinstance(session, LeanSession)
    state, slider = (
        next(one for one in page.blocks.values() if isinstance(one, kind)) for kind in (gr.State, gr.Slider)
    )
    assert session[state._id] == [1]
    session[state._id] = [1, 2]
    assert session[state._id] == [1, 2]
    assert holder["another"][state._id] == [1]
    assert session[slider._id] is slider
    session._update_config(slider._id)
    session._update_value_in_config(slider._id, 0.7)
    assert slider._id not in session.config_values


def test_gradios_own_session_would_keep_it(page):
    """Once this fails there is nothing left to leave out."""
    assert len(SessionState(page).config_values) >= 2
