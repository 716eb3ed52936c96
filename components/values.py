"""What widgets hold comes to an event, and goes back, without a thread for each of them.

Gradio hands every single value to a thread of its pool, for what takes a microsecond: fifty of them for one move of a
slider, each of which waits for the interpreter twice. Beside fifty visitors that took longer than the merge.
"""

from collections.abc import Callable
from types import SimpleNamespace

import gradio as gr
from anyio import to_thread
from gradio import blocks

# Their values are numbers, choices and texts: nothing is computed, read or written for them.
LIGHT = (
    *(gr.Slider, gr.Number, gr.Textbox, gr.Dropdown, gr.Checkbox, gr.CheckboxGroup, gr.Radio),
    *(gr.HTML, gr.Button, gr.Timer, gr.BrowserState),
)


async def run_sync(work: Callable[..., object], *given: object, **how: object) -> object:
    """`anyio.to_thread.run_sync`, but for what a light widget makes of its value, which is made here and now."""
    if type(getattr(work, "__self__", None)) in LIGHT:
        return work(*given)
    return await to_thread.run_sync(work, *given, **how)


def begin() -> None:
    """From now on the page's values go this way."""
    blocks.anyio = SimpleNamespace(to_thread=SimpleNamespace(run_sync=run_sync))
