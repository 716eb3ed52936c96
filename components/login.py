"""Signing in with Hugging Face, on a Space with `hf_oauth: true`: private repositories are read, and merges pushed, in the
visitor's own name.

Gradio keeps the login in a signed cookie of the visitor's browser. The token is taken from it for the request that is being
handled, and the work that this asks for.
"""

import os

import gradio as gr
from gradio.context import LocalContext
from gradio.helpers import special_args

from components.modes import is_hosted
from merging.readers import Reader


def has_login() -> bool:
    """Whether visitors can sign in: on a Space with `hf_oauth: true`, nowhere else."""
    return is_hosted() and os.environ.get("SYSTEM") == "spaces" and bool(os.environ.get("OAUTH_CLIENT_ID"))


def signed_in() -> Reader | None:
    """Whose event is being handled, or whose work this thread does; None for strangers, and for the server's own work."""
    request = LocalContext.request.get(None)
    if request is None:
        return None
    (profile, token), *_ = special_args(_of_login, inputs=[], request=request)
    return Reader(str(profile["sub"]), token.token) if profile and token and token.token else None


def _of_login(profile: gr.OAuthProfile | None, token: gr.OAuthToken | None) -> None:
    """Its annotations say what Gradio takes from a request."""
