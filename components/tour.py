"""The head of the page, and a tour of 60 seconds that first-time visitors are offered; page.js walks through it."""

import json
from html import escape
from typing import NamedTuple


class Step(NamedTuple):
    """One stop: `target` is a CSS selector of what is looked at, `tab` the tab that it is on."""

    title: str
    text: str
    target: str
    tab: str


STEPS = (
    Step(
        "A merge is already here",
        "Small models, each fine-tuned for a task of its own, become one. The bars show how good the one is on every task: "
        "averaged plainly, merged by Fisher, and beside the models that it is made of.",
        "#score-chart",
        "Merge",
    ),
    Step(
        "Move a λ",
        "λ says how much a model counts. Drag one: the merge is made and scored again under your hand. "
        "Undo takes the last move back.",
        ".studio-sliders",
        "Merge",
    ),
    Step(
        "What Fisher adds",
        "An average treats all parameters alike. The Fisher says how much a model’s predictions depend on each of them, "
        "and so who decides where.",
        ".studio-formula",
        "Merge",
    ),
    Step(
        "Look inside",
        "Where in the network each model is sure of its parameters, and whose each part of the merge is.",
        "#fisher-heatmap",
        "Inspect",
    ),
    Step(
        "Find the best λ",
        "Every λ at a glance, or a search; chosen on the validation rows, reported on the test rows. "
        "Click a point, and the sliders go there.",
        ".studio-explore",
        "Explore λ",
    ),
    Step(
        "Your own models",
        "Pick another pool, or “own models” to bring checkpoints and data of yours. The Export tab hands you the "
        "merged model. To understand why it works, go on in the Learn tab.",
        ".sidebar",
        "Merge",
    ),
)


def head_html() -> str:
    """Title, what the studio does, and the tour's button with its invitation."""
    steps = escape(json.dumps([step._asdict() for step in STEPS]))
    return (
        '<div class="studio-head"><div><h1>Fisher Merge Studio</h1>'
        "<p>Merge fine-tuned models by how much each one’s predictions depend on every parameter.</p></div>"
        f'<div class="studio-invitation" data-steps="{steps}"><span hidden>New here? </span>'
        '<button type="button" class="studio-save" data-tour="start">Tour, 60 seconds</button>'
        '<button type="button" class="studio-save" data-tour="dismiss" hidden>No, thanks</button></div></div>'
    )
