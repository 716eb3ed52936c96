"""Writes a merged model as Hugging Face folders, with its recipe, scores and model card."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from merging.checkpoints import PROCESSOR_FILES
from merging.errors import ExportError
from merging.evaluation import with_body
from merging.pipeline import Result
from merging.prepared import Prepared, unique_names

# A folder that holds all of these is an earlier export; a folder with somebody's recipe.yaml is not.
MARKERS = ("recipe.yaml", "scores.json", "config.json")


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
    return _replace_folder(folder, lambda temporary: _write(result, temporary))


def require_exportable(folder: str | Path) -> None:
    """Raises: ExportError if `folder` exists and is neither empty nor an earlier export."""
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise ExportError(f'"{folder}" cannot be written: expected a folder, got a file. Choose another place.')
    if folder.is_dir() and any(folder.iterdir()) and not all((folder / name).is_file() for name in MARKERS):
        raise ExportError(
            f'"{folder}" cannot be written: expected a new or empty folder, or an earlier export, got a folder with '
            "other files. Choose another place; nothing was changed."
        )


def scores_as_dict(result: Result) -> dict[str, dict[str, dict[str, object]]]:
    """Scores by method and task, ready for JSON."""
    return {method: {task: score.as_dict() for task, score in own.items()} for method, own in result.scores.items()}


def _write(result: Result, folder: Path) -> None:
    prepared = result.prepared
    # A copy, so that nobody else's evaluation can change it meanwhile.
    merged = prepared.merged_copy(result.merged, result.recipe.weights)
    merged.cpu()
    if result.recipe.heads == "merge":
        _save(merged, prepared.checkpoints[0].folder, folder)
    else:
        _save(merged.base_model, prepared.checkpoints[0].folder, folder)
        for name, index in _task_folders(prepared).items():
            view = with_body(prepared.modules[index], merged.base_model)
            _save(view, prepared.checkpoints[index].folder, folder / name)
    (folder / "recipe.yaml").write_text(result.recipe.to_yaml(), encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(scores_as_dict(result), indent=1), encoding="utf-8")
    (folder / "README.md").write_text(model_card(result), encoding="utf-8")


def _task_folders(prepared: Prepared) -> dict[str, int]:
    """The folder of every model with its own head: its task's name, or its own where several share the task."""
    owned = [(entry, index) for entry in prepared.tasks for index in entry.owners]
    names = [entry.name if len(entry.owners) == 1 else prepared.names[index] for entry, index in owned]
    return dict(zip(unique_names([_safe(name) for name in names]), [index for _, index in owned], strict=True))


def _save(model: nn.Module, source: Path, folder: Path) -> None:
    """A checkpoint with the source's tokenizer or image processor beside it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    for pattern in PROCESSOR_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Writes beside `folder`, then swaps: a failure leaves what was there."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".exporting-"))
        write(temporary)
        temporary.chmod(0o755)
        if folder.is_dir():
            old = temporary.with_name(f"{temporary.name}-old")
            folder.rename(old)
            try:
                temporary.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(folder)
    # safetensors reports a full disk as its own error, which is not an OSError.
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise ExportError(
            f'"{folder}" cannot be written: expected a folder with free space, got "{reason}". '
            "Choose another place or free some space; nothing was changed."
        ) from problem
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).lstrip(".") or "task"


def model_card(result: Result) -> str:
    """The merged model's card in Markdown: what was merged and how, its scores, and how to open it."""
    recipe, prepared = result.recipe, result.prepared
    weights = recipe.weights
    share = [weight / sum(weights) for weight in weights]
    models = "\n".join(f"- `{name}`: λ = {value:.3f}" for name, value in zip(prepared.names, share, strict=True))
    methods = list(result.scores)
    rows = [
        f"| {task} | " + " | ".join(f"{100 * result.scores[m][task].value:.1f}" for m in methods) + " |"
        for task in result.scores[methods[0]]
    ]
    table = "\n".join(["| task | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|", *rows])
    architecture = prepared.checkpoints[0].architecture
    folders = list(_task_folders(prepared))
    where = "" if recipe.heads == "merge" else f', subfolder="{folders[0]}"'
    kept = (
        ""
        if recipe.heads == "merge"
        else (
            "\nThe folder itself holds the merged body; each model's own head is with it in a folder of its task's name: "
            + ", ".join(f"`{name}`" for name in folders)
            + ".\n"
        )
    )
    settings = recipe.fisher
    return f"""---
library_name: transformers
tags: [model-merging, fisher-merging]
---
# {", ".join(prepared.names)}: merged by the rule "{recipe.rule}"

{models}

Fishers: {settings.labels} labels, {settings.examples} examples, seed {settings.seed}, floor {settings.floor},
normalised by {settings.normalise}, zero rule {settings.zero_rule}. `recipe.yaml` reproduces this merge.
{kept}
```python
from transformers import {architecture}
model = {architecture}.from_pretrained("this folder"{where})
```

Accuracy (%) on `{recipe.evaluation.split}`; `experts` are the single models on their own tasks:

{table}

Method: Matena & Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022 (arXiv:2111.09832).
"""
