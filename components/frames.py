"""A picture's place on the page: sentence above, figure, numbers below with their downloads, and what was clicked."""

from dataclasses import dataclass

import gradio as gr

from components.picture import Picture, numbers_html, sentence_html
from components.tables import notice


@dataclass(frozen=True)
class Frame:
    """The widgets of one picture, in the order of `framed`; `picked` receives what is chosen in it, as text.

    `page.js` writes there the first entry of a clicked point's `customdata`, or a table row's pick; listen to `.input`.
    """

    name: str
    sentence: gr.HTML
    plot: gr.Plot
    numbers: gr.HTML
    picked: gr.Textbox | None

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `framed`."""
        return [self.sentence, self.plot, self.numbers]


def create_frame(name: str, elem_id: str, *, can_pick: bool = False) -> Frame:
    """An empty frame. `name` is what screen readers and downloaded files call the picture."""
    sentence = gr.HTML(elem_id=f"{elem_id}-sentence")
    plot = gr.Plot(label=name, show_label=False, elem_id=elem_id, elem_classes="studio-frame", buttons=[])
    numbers = gr.HTML(elem_id=f"{elem_id}-numbers")
    picked = None
    if can_pick:
        picked = gr.Textbox(label=f"chosen in {name}", visible="hidden", elem_id=f"{elem_id}-picked", max_length=2000)
    return Frame(name, sentence, plot, numbers, picked)


def framed(picture: Picture, name: str) -> list[object]:
    """What a frame of this name shows of a picture: sentence, figure, numbers."""
    return [sentence_html(picture), picture.figure, numbers_html(picture, name)]


def empty(text: str, kind: str = "") -> list[object]:
    """A frame without a picture: what to press, or what went wrong (`kind` "error")."""
    return [notice(text, kind), None, ""]
