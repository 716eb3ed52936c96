"""Pushing the merged model to the Hugging Face Hub, under the Export tab: by a token on one's own machine, on a Space in the
name of whoever has signed in.

Gradio keeps the login in a signed cookie of the visitor's browser and hands the token to the one event that asks for it.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
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


SIGN_IN = "Nothing was pushed: expected you to be signed in, got a visitor without a login. Press “Sign in with Hugging Face”."


def has_login() -> bool:
    """Whether visitors can sign in: on a Space with `hf_oauth: true`, nowhere else."""
    return is_hosted() and os.environ.get("SYSTEM") == "spaces" and bool(os.environ.get("OAUTH_CLIENT_ID"))


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
    """Exports what the page shows and pushes it: notice, and an empty field for the token."""
    try:
        require_own_machine()
    except MergingError as problem:
        return [notice(str(problem), "error"), ""]
    return _pushed(repository, (token or "").strip() or None, private, values)


def pushed_by_visitor(
    login: gr.OAuthToken | None, repository: str, token: str, private: bool, *values: object
) -> list[str]:
    """The same in the name of whoever has signed in; `token`, which nobody is asked for here, is not looked at."""
    if login is None or not login.token:
        return [notice(SIGN_IN, "error"), ""]
    return _pushed(repository, login.token, private, values)


def _pushed(repository: str, token: str | None, private: bool, values: Sequence[object]) -> list[str]:
    try:
        result = live_result(recipe_of(Form.of(*values), hosted=is_hosted()))
        if result is None:
            return [notice(NOT_PREPARED), ""]
        with tempfile.TemporaryDirectory(prefix="pushing-") as folder:
            merged = export(result, Path(folder) / "merged")
            address = push(merged, (repository or "").strip(), token=token, private=bool(private))
    except MergingError as problem:
        logs.event("push_failed", logging.WARNING, problem=problem)
        return [notice(str(problem), "error"), ""]
    logs.event("pushed", private=bool(private))
    return [notice(f"The merged model is at {address}.", "good"), ""]
