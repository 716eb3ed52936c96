"""The Learn tab: why Fisher merging works, by things to move."""

from dataclasses import dataclass

import gradio as gr

from components.frames import Frame, create_frame


@dataclass(frozen=True)
class Learn:
    """The widgets of the Learn tab."""

    gaussians: Frame

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of the tab's events."""
        return self.gaussians.outputs()


def create_learn() -> Learn:
    """Empty: filled when the tab is opened."""
    return Learn(create_frame("Two Gaussians", "gaussians"))
