"""Models of one's own: a checkpoint and its task, looked at, corrected, and put beside the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr

from components.form import ROWS, model_choices, model_name, model_value
from components.login import has_login
from components.modes import is_hosted, require_own_machine, require_public, require_public_task
from components.tables import notice
from components.uploads import UPLOADS
from components.weight_sliders import rows_for
from merging.errors import MergingError, RecipeError
from merging.pools import open_pool
from merging.references import is_file, is_folder
from merging.upload_references import UPLOAD

# The entry of the list of pools that holds nothing yet.
OWN = "own models"
Reference = str | Mapping[str, object]
# A task as it was looked at: its reference, its guessed inputs, its guessed label.
Found = tuple[Reference, tuple[str, ...], str | None]
LINE = {"max_lines": 1, "lines": 1}
NO_COLUMNS = {"choices": [], "value": None}


@dataclass(frozen=True)
class AddModel:
    """The widgets; `found_task` holds the task's reference as it was looked at, and the columns that were guessed."""

    panel: gr.Accordion
    checkpoint: gr.Textbox
    task: gr.Textbox
    config: gr.Textbox
    upload: gr.UploadButton
    look: gr.Button
    summary: gr.HTML
    inputs: gr.Dropdown
    label: gr.Dropdown
    alignment: gr.Textbox
    suggest: gr.Button
    add: gr.Button
    found_task: gr.State

    def asked(self) -> list[gr.components.Component]:
        """The inputs of `looked`."""
        return [self.checkpoint, self.task, self.config]

    def found(self) -> list[gr.components.Component]:
        """The outputs of `looked`."""
        return [self.summary, self.inputs, self.label, self.alignment, self.found_task]

    def corrected(self) -> list[gr.components.Component]:
        """What is added: the checkpoint, and the task as it was found and corrected."""
        return [self.checkpoint, self.found_task, self.inputs, self.label, self.alignment]


def create_add_model() -> AddModel:
    """An accordion under the list of models; a hosted page takes ids alone."""
    own = not is_hosted()
    folder, file = (", or a folder", ", a folder, a file") if own else ("", "")
    with gr.Accordion("Add a model of your own", open=False) as panel:
        if has_login():
            gr.LoginButton(logout_value="Sign out ({})", size="sm")
        checkpoint = gr.Textbox(label="Checkpoint", placeholder=f"org/name, org/name@revision{folder}", **LINE)
        task = gr.Textbox(label="Its dataset", placeholder=f"org/dataset{file}, or zoo:POOL/NAME", **LINE)
        config = gr.Textbox(label="Configuration of the dataset", placeholder="for example rte", **LINE)
        with gr.Row():
            upload = gr.UploadButton("Upload data", file_types=UPLOADS, size="sm", min_width=110)
            look = gr.Button("Look", size="sm", min_width=80)
        summary = gr.HTML(elem_id="task-summary")
        about = {"label": "Input columns", "info": "one image, one or two texts"}
        inputs = gr.Dropdown([], multiselect=True, max_choices=2, **about)
        label = gr.Dropdown([], label="Label column")
        alignment = gr.Textbox(
            label="Label order",
            info="the model’s output for each label, such as 1, 2, 0; empty: by their names",
            **LINE,
        )
        with gr.Row():
            suggest = gr.Button("Suggest order", size="sm", min_width=110, visible=own)
            add = gr.Button("Add", variant="primary", size="sm", min_width=80)
    return AddModel(
        panel, checkpoint, task, config, upload, look, summary, inputs, label, alignment, suggest, add, gr.State(None)
    )


def looked(checkpoint: str, task: str, config: str) -> list[object]:
    """What stands in a task, and how the checkpoint reads it: summary, columns, label, order, found task."""
    from merging.summaries import describe_task

    try:
        summary = describe_task(_allowed(_reference(task, config)))
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.update(**NO_COLUMNS), gr.update(**NO_COLUMNS), "", None]
    columns = [name for name, _ in summary.columns]
    splits = ", ".join(f"{name} {'?' if rows is None else rows}" for name, rows in summary.splits.items())
    kinds = ", ".join(f"{escape(name)} ({escape(kind)})" for name, kind in summary.columns)
    first = "; ".join(f"{escape(name)}: “{escape(value)}”" for name, value in (summary.examples or [{}])[0].items())
    labels = escape(", ".join((summary.labels or ("not recognised",))[:12]))
    notes = [*summary.notes, *_fit(checkpoint, summary.reference)]
    lines = [f"<b>Rows</b> {splits}", f"<b>Columns</b> {kinds}", f"<b>Labels</b> {labels}", f"<b>First row</b> {first}"]
    html = "<br>".join([*lines, *map(escape, notes)])
    return [
        f'<div class="studio-notice good" role="status">{html}</div>',
        gr.update(choices=columns, value=list(summary.inputs or ())),
        gr.update(choices=columns, value=summary.label),
        "",
        (summary.reference, tuple(summary.inputs or ()), summary.label),
    ]


def suggested(checkpoint: str, found: Found | None, inputs: Sequence[str], label: str) -> list[object]:
    """The order of labels under which the checkpoint is right most often: summary, order."""
    from merging.suggestions import suggest_for
    from merging.tasks import open_task

    try:
        require_own_machine()
        task = open_task(_corrected(found, inputs, label, ""))
        suggestion = suggest_for(task, _opened(checkpoint))
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip()]
    return [notice(suggestion.sentence, "good"), ", ".join(map(str, suggestion.order))]


def added(
    pool: str,
    models: Sequence[str],
    checkpoint: str,
    found: Found | None,
    inputs: Sequence[str],
    label: str,
    order: str,
) -> list[object]:
    """One model more: notice, models, sliders."""
    try:
        if len(models or ()) >= ROWS:
            raise RecipeError(f"Too many models: expected at most {ROWS}. Take one out first.")
        value = model_value(_name(checkpoint), _allowed(_corrected(found, inputs, label, order)))
        known = [] if pool == OWN else model_choices(open_pool(pool))
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip(), *[gr.skip()] * ROWS]
    chosen = [*(models or ()), value]
    held = {value for _, value in known}
    choices = [*known, *[(model_name(one), one) for one in chosen if one not in held]]
    text = f"{model_name(value)} is added." + (" Add another one." if len(chosen) < 2 else "")
    return [notice(text, "good"), gr.update(choices=choices, value=chosen), *rows_for(chosen)]


def _reference(task: str, config: str) -> Reference:
    """A path or an embedded task as it is; else a dataset of the Hub."""
    task, config = (task or "").strip(), (config or "").strip()
    if not task:
        raise RecipeError("There is no dataset: expected an id, a folder or a file, got nothing. Name the dataset.")
    if is_hosted() and not task.startswith(("zoo:", UPLOAD)):
        return {"dataset": task, **({"config": config} if config else {})}
    is_id = (
        task.count("/") <= 1
        and not task.startswith((".", "/", "~", "zoo:", UPLOAD))
        and not (is_file(task) or is_folder(task))
    )
    if is_id and not Path(task).suffix:
        return {"dataset": task, **({"config": config} if config else {})}
    return task


def _allowed(reference: Reference) -> Reference:
    """The reference itself. Raises: RecipeError where a hosted page does not open it."""
    if is_hosted():
        require_public_task(reference)
    return reference


def _corrected(found: Found | None, inputs: Sequence[str], label: str, order: str) -> Reference:
    """The task as it was looked at, with what the user changed."""
    if found is None:
        raise RecipeError("The dataset is not known yet: expected it to be looked at first, got nothing. Press “Look”.")
    reference, guessed_inputs, guessed_label = found
    changes: dict[str, object] = {}
    if tuple(inputs or ()) != guessed_inputs:
        changes["text"] = list(inputs or ())
    if label != guessed_label:
        changes["label"] = label
    if (order or "").strip():
        changes["alignment"] = _numbers(order)
    if not changes and not isinstance(reference, Mapping):
        return reference
    if not isinstance(reference, Mapping):
        reference = {"folder" if is_folder(str(reference)) else "file": reference}
    if "text" in changes and "image" in reference:
        changes["image"] = changes.pop("text")
    return {**reference, **changes}


def _numbers(order: str) -> list[int]:
    try:
        return [int(number) for number in order.replace(";", ",").split(",")]
    except ValueError:
        raise RecipeError(
            f"The label order cannot be read: expected whole numbers such as 1, 2, 0, got {order!r:.60}. Mend it."
        ) from None


def _fit(checkpoint: str, reference: Reference) -> list[str]:
    """How the checkpoint's labels stand to the dataset's, where both are on this machine."""
    from merging.headers import is_on_hub
    from merging.summaries import fit_task
    from merging.tasks import open_task

    if is_hosted() or not (checkpoint or "").strip() or is_on_hub(checkpoint.strip()) or isinstance(reference, Mapping):
        return []
    try:
        return list(fit_task(open_task(reference), "fisher", _opened(checkpoint), examples=200).notes)
    except MergingError as problem:
        return [str(problem)]


def _opened(checkpoint: str):
    from merging.checkpoints import open_checkpoint

    return open_checkpoint(_name(checkpoint))


def _name(checkpoint: str) -> str:
    checkpoint = (checkpoint or "").strip()
    if not checkpoint:
        raise RecipeError("There is no checkpoint: expected an id or a folder, got nothing. Name the checkpoint.")
    if is_hosted():
        require_public(checkpoint)
    return checkpoint
