"""Pushing the merged model to the Hugging Face Hub, under the Export tab: by a token on one's own machine, on a Space in the
name of whoever has signed in.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from components import logs
from components.form import Form, recipe_of
from components.login import has_login, signed_in
from components.modes import is_hosted, require_own_machine
from components.score_charts import NOT_PREPARED
from components.store import live_result
from components.tables import notice
from merging.errors import ExportError, MergingError
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


SIGN_IN = "Nothing was pushed: expected you to be signed in, got a visitor without a login. Press “Sign in with Hugging Face”."


def create_push_panel() -> PushPanel:
    """Not on a hosted page where nobody can sign in."""
    with gr.Accordion("Push to the Hugging Face Hub", open=False, visible=has_login() or not is_hosted()):
        if has_login():
            gr.LoginButton(logout_value="Sign out ({})", size="md")
        repository = gr.Textbox(label="Repository", placeholder="org/name", max_lines=1, lines=1)
        token = gr.Textbox(
            label="Token",
            type="password",
            info="with write access; empty: the one you are logged in with",
            max_lines=1,
            visible=not is_hosted(),
        )
        private = gr.Checkbox(True, label="Private")
        button = gr.Button("Push to Hub", variant="primary")
        message = gr.HTML(elem_id="push-notice", elem_classes="studio-message")
    return PushPanel(repository, token, private, button, message)


def pushed(repository: str, token: str, private: bool, *values: object) -> list[str]:
    """Exports what the page shows and pushes it: notice, and an empty field for the token.

    Where visitors sign in it is pushed in their name; `token`, which nobody is asked for there, is not looked at.
    """
    try:
        if not has_login():
            require_own_machine()
            return _pushed(repository, (token or "").strip() or None, private, values)
        if (visitor := signed_in()) is None:
            raise ExportError(SIGN_IN)
        return _pushed(repository, visitor.token, private, values)
    except MergingError as problem:
        logs.event("push_failed", logging.WARNING, problem=problem)
        return [notice(str(problem), "error"), ""]


def _pushed(repository: str, token: str | None, private: bool, values: Sequence[object]) -> list[str]:
    result = live_result(recipe_of(Form.of(*values), hosted=is_hosted()))
    if result is None:
        return [notice(NOT_PREPARED), ""]
    with tempfile.TemporaryDirectory(prefix="pushing-") as folder:
        merged = export(result, Path(folder) / "merged")
        address = push(merged, (repository or "").strip(), token=token, private=bool(private))
    logs.event("pushed", private=bool(private))
    return [notice(f"The merged model is at {address}.", "good"), ""]
