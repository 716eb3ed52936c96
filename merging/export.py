"""Writes a merged model as Hugging Face folders, with its recipe, scores and model card."""

import json
import shutil
from pathlib import Path

from torch import nn

from merging.checkpoints import PROCESSOR_FILES, Checkpoint
from merging.evaluation import with_body
from merging.evaluation_tasks import EvaluationTask
from merging.families import answers_in_words
from merging.folders import replace_folder, require_exportable
from merging.model_card import card_text, is_local, shareable_recipe
from merging.pipeline import Result
from merging.recipe import Recipe
from merging.references import unique_names

COMPANIONS = (*PROCESSOR_FILES, "generation_config.json")
NOTED_PATHS = ("_name_or_path", "name_or_path")


def export(result: Result, folder: str | Path) -> Path:
    """Writes the merged model into `folder`, whole or not at all.

    With merged heads the folder is one checkpoint. With kept heads it holds the merged body as a checkpoint of its
    own, and one checkpoint per task in a folder of the task's name: `from_pretrained(folder, subfolder=task)`;
    where several models share a task, one per model in a folder of the model's name.
    Beside them `recipe.yaml`, `scores.json` and `README.md`. A folder that an earlier export wrote is replaced.

    Raises: ExportError if the folder holds something else or cannot be written.
    """
    folder = Path(folder).expanduser()
    require_exportable(folder)
    return replace_folder(folder, lambda temporary: _write(result, temporary))


def scores_as_dict(result: Result) -> dict[str, dict[str, dict[str, object]]]:
    """Scores by method and task, ready for JSON."""
    return {method: {task: score.as_dict() for task, score in own.items()} for method, own in result.scores.items()}


def _write(result: Result, folder: Path) -> None:
    prepared = result.prepared
    # A copy, so that nobody else's evaluation can change it meanwhile.
    merged = prepared.merged_copy(result.merged, result.recipe.weights)
    merged.cpu()
    if result.recipe.heads == "merge" and not answers_in_words(prepared.checkpoints[0]):
        _save(merged, prepared.checkpoints[0].folder, folder)
    else:
        _save(merged.base_model, prepared.checkpoints[0].processor_folder, folder)
        for name, index in task_folders(prepared.checkpoints[0], prepared.tasks, prepared.names).items():
            view = with_body(prepared.modules[index], merged.base_model)
            _save(view, prepared.checkpoints[index].processor_folder, folder / name)
    write_papers(folder, result.recipe, scores_as_dict(result), model_card(result))


def model_card(result: Result) -> str:
    """The merged model's card in Markdown, with its scores."""
    prepared = result.prepared
    folders = list(task_folders(prepared.checkpoints[0], prepared.tasks, prepared.names))
    folders = [] if result.recipe.heads == "merge" else folders
    recipe = result.recipe.pinned()
    return card_text(recipe, prepared.checkpoints, prepared.names, folders=folders, scores=result.scores)


def write_papers(folder: Path, recipe: Recipe, scores: object, card: str) -> None:
    """Writes what stands beside the weights, without any path of this machine."""
    (folder / "recipe.yaml").write_text(shareable_recipe(recipe.pinned()).to_yaml(), encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    for config in folder.rglob("*config.json"):
        _forget_paths(config)


def task_folders(first: Checkpoint, tasks: list[EvaluationTask], names: list[str]) -> dict[str, int]:
    """The folder of every model with its own head: its task's name, or its own where several share the task.

    None for heads that follow from a task's words: no checkpoint stores them, and the recipe makes them anew.
    """
    if answers_in_words(first):
        return {}
    owned = [(entry, index) for entry in tasks for index in entry.owners]
    shown = [entry.name if len(entry.owners) == 1 else names[index] for entry, index in owned]
    return dict(zip(unique_names([_safe(name) for name in shown]), [index for _, index in owned], strict=True))


def _save(model: nn.Module, source: Path, folder: Path) -> None:
    """A checkpoint with the source's tokenizer or image processor beside it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    copy_companions(source, folder)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies what a checkpoint has beside its weights and configuration: tokenizer, image processor, generation."""
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).lstrip(".") or "task"


def _forget_paths(config: Path) -> None:
    """Libraries note in a configuration where it was read from."""
    content = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: own for key, own in content.items() if not (key in NOTED_PATHS and is_local(str(own)))}
    if kept != content:
        config.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
