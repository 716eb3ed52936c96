"""The Export tab: the merged model, its recipe in and out, and the command that does the same."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from components import logs
from components.form import Form, recipe_of
from components.links import link_query
from components.modes import is_hosted
from components.pages import visitor
from components.score_charts import NOT_PREPARED
from components.store import live_result
from components.tables import notice
from components.visit_folders import FOLDERS
from merging.errors import ExportError, MergingError
from merging.export import export

COMMAND = "python -m merging run recipe.yaml --output merged"


@dataclass(frozen=True)
class ExportPanel:
    """The widgets of the Export tab."""

    notice: gr.HTML
    download: gr.Button
    file: gr.DownloadButton
    recipe: gr.Code
    save_recipe: gr.Button
    recipe_file: gr.DownloadButton
    upload: gr.UploadButton
    command: gr.Code
    link: gr.Textbox


def create_export_panel() -> ExportPanel:
    """Filled when the tab is opened."""
    message = gr.HTML(elem_id="export-notice", elem_classes="studio-message")
    gr.Markdown(
        "## The merged model\n"
        "A zip of Hugging Face folders in safetensors that `from_pretrained` opens, with a model card, the scores and the recipe."
    )
    download = gr.Button("Download merged model", variant="primary")
    file = gr.DownloadButton("Merged model as a zip", visible="hidden", elem_id="merged-file")
    gr.Markdown("## The recipe\nEverything that decides this merge; the same file gives the same tensors again.")
    # Wrapped: a region that scrolls sideways cannot be reached by keyboard.
    recipe = gr.Code(language="yaml", label="recipe.yaml", interactive=False, lines=12, wrap_lines=True)
    with gr.Row():
        save_recipe = gr.Button("Download recipe", size="sm")
        recipe_file = gr.DownloadButton("Recipe as a file", visible="hidden", elem_id="recipe-file")
        upload = gr.UploadButton("Open a recipe", file_types=[".yaml", ".yml"], size="sm")
    gr.Markdown("## The same on the command line")
    command = gr.Code(
        COMMAND, language="shell", lines=1, max_lines=2, label="command", interactive=False, wrap_lines=True
    )
    link = gr.Textbox(
        label="A link that reopens these settings", interactive=False, max_lines=8, buttons=["copy"], elem_id="link"
    )
    return ExportPanel(message, download, file, recipe, save_recipe, recipe_file, upload, command, link)


def described(*values: object) -> list[object]:
    """The recipe of what the page shows: notice, YAML, link."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip(), gr.skip()]
    try:
        return ["", recipe.to_yaml(), link_query(recipe)]
    except MergingError as problem:
        return [notice(str(problem)), recipe.to_yaml(), ""]


def exported(*values: object) -> list[object]:
    """Writes the merged model as a zip: notice, file."""
    try:
        result = live_result(recipe_of(Form.of(*values), hosted=is_hosted()))
        if result is None:
            return [notice(NOT_PREPARED), gr.skip()]
        return [notice("The merged model is on its way to your downloads.", "good"), _zipped(result)]
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip()]


def saved_recipe(*values: object) -> list[object]:
    """Writes the recipe as a file: notice, file."""
    try:
        text = recipe_of(Form.of(*values), hosted=is_hosted()).to_yaml()
        with FOLDERS.new(visitor(), "recipe") as folder:
            path = folder / "recipe.yaml"
            path.write_text(text, encoding="utf-8")
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip()]
    except OSError as problem:
        return [notice(str(_full(problem)), "error"), gr.skip()]
    return ["", str(path)]


def _zipped(result: object) -> str:
    begun = time.monotonic()
    try:
        with FOLDERS.new(visitor(), "export") as folder:
            export(result, folder / "merged")
            archive = shutil.make_archive(str(folder / "merged-model"), "zip", folder, "merged")
            shutil.rmtree(folder / "merged", ignore_errors=True)
    except OSError as problem:
        logs.event("export_failed", logging.WARNING, problem=problem)
        raise _full(problem) from problem
    logs.event("exported", bytes=Path(archive).stat().st_size, seconds=round(time.monotonic() - begun, 2))
    return archive


def _full(problem: OSError) -> ExportError:
    return ExportError(
        f"The file cannot be written: expected a temporary folder with free space, got {problem.strerror}. Free some space."
    )
