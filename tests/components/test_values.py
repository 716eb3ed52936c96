"""How widgets' values come to an event and go back."""

import asyncio
import threading

import anyio
import gradio as gr
import pytest
from anyio import to_thread
from gradio import blocks

from components import values
from components.values import run_sync

SLIDERS = 12


@pytest.fixture
def hops(monkeypatch):
    """What is handed to threads, by name."""
    found, own = [], to_thread.run_sync

    async def counted(work, *given, **how):
        found.append(work.__name__)
        return await own(work, *given, **how)

    monkeypatch.setattr(to_thread, "run_sync", counted)
    monkeypatch.setattr(blocks, "anyio", anyio)
    return found


def _called(*given: object) -> list[object]:
    """What an event answers whose inputs are sliders, a choice and a text, and whose outputs a number and a chart."""
    with gr.Blocks() as page:
        sliders = [gr.Slider(0, 1, value=0.5, label=f"λ {place}") for place in range(SLIDERS)]
        choice, text = gr.Dropdown(["mean", "worst"], value="mean", label="by"), gr.Textbox(label="name")
        total, chart = gr.Number(label="sum"), gr.Plot()
        gr.Button().click(lambda *own: (sum(own[:SLIDERS]), None), [*sliders, choice, text], [total, chart])
    return asyncio.run(page.process_api(0, list(given), None))["data"]


def test_only_the_event_and_what_is_drawn_take_a_thread(hops):
    values.begin()
    assert _called(*[0.25] * SLIDERS, "mean", "own") == [3.0, None]
    assert [name for name in hops if name in ("preprocess", "postprocess")] == ["postprocess"]  # the chart's
    assert len(hops) == 2


def test_gradio_itself_takes_one_for_every_value(hops):
    """Once this fails there is nothing left to leave out."""
    assert _called(*[0.25] * SLIDERS, "mean", "own") == [3.0, None]
    assert hops.count("preprocess") == SLIDERS + 2


@pytest.mark.parametrize("wrong", [[2.0, "mean"], [0.25, "best"]], ids=["slider", "choice"])
def test_what_no_widget_sends_is_refused_as_before(hops, wrong):
    values.begin()
    with pytest.raises(gr.Error):
        _called(wrong[0], *[0.25] * (SLIDERS - 1), wrong[1], "own")


def test_whose_work_is_done_where(hops):
    async def where(work, *given):
        return await run_sync(work, *given)

    with gr.Blocks():
        assert asyncio.run(where(gr.HTML().postprocess, "text")) == "text"
        assert not hops
        assert asyncio.run(where(gr.Plot().postprocess, None)) is None
        assert hops == ["postprocess"]
    assert asyncio.run(where(threading.get_ident)) != threading.get_ident()
