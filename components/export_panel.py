"""The Export tab: the merged model, its recipe in and out, and the command that does the same."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from components.form import ROWS, Form, model_name, model_value, recipe_of, require_embedded, task_of, task_value
from components.pool_picker import EXAMPLES, is_hosted
from components.score_charts import NOT_PREPARED
from components.store import live_result
from components.tables import notice
from components.weight_sliders import rows_for, set_to
from merging.devices import resolve_device
from merging.errors import ExportError, MergingError, RecipeError
from merging.export import export
from merging.recipe import Recipe

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
    return ExportPanel(message, download, file, recipe, save_recipe, recipe_file, upload, command)


def described(*values: object) -> list[object]:
    """The recipe of what the page shows: notice, YAML."""
    try:
        return ["", recipe_of(Form.of(*values), hosted=is_hosted()).to_yaml()]
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip()]


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
        path = Path(tempfile.mkdtemp(prefix="recipe-")) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
    except MergingError as problem:
        return [notice(str(problem), "error"), gr.skip()]
    except OSError as problem:
        return [notice(str(_full(problem)), "error"), gr.skip()]
    return ["", str(path)]


def opened_recipe(path: str, known_models: list[tuple[str, str]]) -> list[object]:
    """A recipe's file as values of the widgets: models, heads, tasks, labels, examples, seed, floor, normalise,
    zero rule, device, split, base, then the sliders.

    Raises: RecipeError for a recipe that is wrong or that the page cannot show; DeviceError.
    """
    recipe = Recipe.load(path)
    if is_hosted():
        require_embedded(recipe)
    _require_shown(recipe)
    models = [model_value(entry.checkpoint, entry.task) for entry in recipe.models]
    labels = {value: label for label, value in known_models}
    choices = [*known_models, *[(model_name(value), value) for value in models if value not in labels]]
    settings = recipe.fisher
    rows = rows_for(models)
    for row, moved in zip(rows, set_to(recipe.weights), strict=True):
        if "value" in row:
            row["value"] = moved["value"]
    tasks = [task_value(task) for task in recipe.evaluation.tasks]
    return [
        gr.update(choices=choices, value=models),
        recipe.heads,
        gr.update(choices=[(_task_name(task), task) for task in tasks], value=tasks) if tasks else [],
        settings.labels,
        settings.examples,
        settings.seed,
        settings.floor,
        settings.normalise,
        settings.zero_rule,
        recipe.device,
        recipe.evaluation.split,
        recipe.base or "",
        *rows,
    ]


def _task_name(value: str) -> str:
    task = task_of(value)
    return task.split("/")[-1] if isinstance(task, str) else str(task.get("name") or task.get("dataset") or "task")


def _require_shown(recipe: Recipe) -> None:
    """Raises: MergingError for a recipe that the page's widgets cannot hold, or whose device is not here."""
    examples = recipe.fisher.examples
    few = examples != "all" and EXAMPLES[0] <= examples <= EXAMPLES[1]
    if recipe.rule != "fisher" or not few or recipe.evaluation.examples != "all" or len(recipe.models) > ROWS:
        raise RecipeError(
            f"The page cannot show this recipe: expected rule: fisher, {EXAMPLES[0]} to {EXAMPLES[1]} Fisher examples, "
            f"evaluation examples: all and at most {ROWS} models, got {recipe.rule}, {examples}, "
            f"{recipe.evaluation.examples} and {len(recipe.models)} models. Use the command line."
        )
    resolve_device(recipe.device)


def _zipped(result: object) -> str:
    folder = Path(tempfile.mkdtemp(prefix="merged-"))
    try:
        export(result, folder / "merged")
        archive = shutil.make_archive(str(folder / "merged-model"), "zip", folder, "merged")
    except OSError as problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise _full(problem) from problem
    shutil.rmtree(folder / "merged", ignore_errors=True)
    return archive


def _full(problem: OSError) -> ExportError:
    return ExportError(
        f"The file cannot be written: expected a temporary folder with free space, got {problem.strerror}. Free some space."
    )
