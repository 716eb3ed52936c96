"""Pushing the merged model to the Hugging Face Hub, under the Export tab."""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from components import logs
from components.form import Form, recipe_of
from components.modes import is_hosted, require_own_machine
from components.score_charts import NOT_PREPARED
from components.store import live_result
from components.tables import notice
from merging.errors import MergingError
from merging.export import export
from merging.publish import push


@dataclass(frozen=True)
class PushPanel:
    """The widgets: the token is read once, for one push."""

    repository: gr.Textbox
    token: gr.Textbox
    private: gr.Checkbox
    button: gr.Button
    notice: gr.HTML

    def asked(self) -> list[gr.components.Component]:
        """What `pushed` reads before the form."""
        return [self.repository, self.token, self.private]


def create_push_panel() -> PushPanel:
    """Not on a hosted page, where it would need the visitor's own login."""
    shown = not is_hosted()
    with gr.Accordion("Push to the Hugging Face Hub", open=False, visible=shown):
        repository = gr.Textbox(label="Repository", placeholder="org/name", max_lines=1, lines=1)
        token = gr.Textbox(
            label="Token", type="password", info="with write access; empty: the one you are logged in with", max_lines=1
        )
        private = gr.Checkbox(True, label="Private")
        button = gr.Button("Push to Hub", variant="primary")
        message = gr.HTML(elem_id="push-notice", elem_classes="studio-message")
    return PushPanel(repository, token, private, button, message)


def pushed(repository: str, token: str, private: bool, *values: object) -> list[str]:
    """Exports what the page shows and pushes it: notice, and an empty field for the token."""
    try:
        require_own_machine()
        result = live_result(recipe_of(Form.of(*values), hosted=is_hosted()))
        if result is None:
            return [notice(NOT_PREPARED), ""]
        with tempfile.TemporaryDirectory(prefix="pushing-") as folder:
            merged = export(result, Path(folder) / "merged")
            address = push(merged, (repository or "").strip(), token=(token or "").strip() or None, private=private)
    except MergingError as problem:
        logs.event("push_failed", logging.WARNING, problem=problem)
        return [notice(str(problem), "error"), ""]
    logs.event("pushed", private=bool(private))
    return [notice(f"The merged model is at {address}.", "good"), ""]
