"""The Explore λ tab: what every λ gives, and the search for the best one."""

from dataclasses import dataclass

import gradio as gr

from components.frames import Frame, create_frame


@dataclass(frozen=True)
class Explore:
    """The widgets of the Explore λ tab."""

    frame: Frame

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of the tab's events."""
        return self.frame.outputs()


def create_explore() -> Explore:
    """Empty: filled when the tab is opened."""
    return Explore(create_frame("Scores over λ", "explore", can_pick=True))
