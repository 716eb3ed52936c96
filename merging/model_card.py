"""The merged model's card, and what of a recipe may be seen by others: no path of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from merging.checkpoints import Checkpoint
from merging.families import body_class
from merging.headers import is_on_hub
from merging.metrics import Score
from merging.recipe import Recipe
from merging.rules import RULES

TAGS = ["merge", "fisher-merging"]


def shareable_recipe(recipe: Recipe) -> Recipe:
    """The recipe with every local folder or file under its short name."""
    models = [
        replace(model, checkpoint=_shareable(model.checkpoint), task=_shareable(model.task)) for model in recipe.models
    ]
    tasks = tuple(_shareable(task) for task in recipe.evaluation.tasks)
    evaluation = replace(recipe.evaluation, tasks=tasks)
    return replace(recipe, models=tuple(models), evaluation=evaluation, base=recipe.base and _shareable(recipe.base))


def is_local(reference: str) -> bool:
    """Whether a reference, or any other text of a recipe or a configuration, is a path on this machine."""
    if reference.startswith(("/", "~/", "./", "../")) or Path(reference).is_absolute():
        return True
    try:
        return any(separator in reference for separator in "/\\") and Path(reference).exists()
    except (OSError, ValueError):
        return False


def card_text(
    recipe: Recipe,
    checkpoints: Sequence[Checkpoint],
    names: Sequence[str],
    *,
    folders: Sequence[str] = (),
    scores: Mapping[str, Mapping[str, Score]] | None = None,
) -> str:
    """The card in Markdown with the Hub's metadata: what was merged and how, its scores, and how to open it.

    `names` are the models', `folders` those of the models with heads of their own; `scores` by method and task.
    """
    recipe = shareable_recipe(recipe)
    share = [weight / sum(recipe.weights) for weight in recipe.weights]
    models = "\n".join(f"- `{name}`: λ = {value:.3f}" for name, value in zip(names, share, strict=True))
    return f"""---
{_metadata(recipe, checkpoints[0], scores or {})}
---
# {", ".join(names)}: merged by the rule "{recipe.rule}"

{models}

{_settings(recipe)}
{_opening(checkpoints[0], folders)}
{_score_table(recipe, scores) if scores else "Not evaluated yet: `python -m merging evaluate recipe.yaml` does."}

`recipe.yaml` reproduces this merge; checkpoints and tasks that it names without a `/` were folders:

```yaml
{recipe.to_yaml()}```

Method: {RULES[recipe.rule].source}.
"""


def _settings(recipe: Recipe) -> str:
    """What decided the merge beside the weights."""
    rule, own = RULES[recipe.rule], recipe.fisher
    lines = [rule.sentence]
    if rule.needs_fisher or rule.needs_factors:
        lines.append(
            f"Fishers: {own.labels} labels, {own.examples} examples, seed {own.seed}, floor {own.floor},\n"
            f"normalised by {own.normalise}, zero rule {own.zero_rule}."
        )
    used = {
        name: getattr(recipe.settings, name) for name in dict.fromkeys((*rule.settings, *recipe.settings.changed()))
    }
    if used:
        lines.append("Settings of the rule: " + ", ".join(f"{name} {value:g}" for name, value in used.items()) + ".")
    if recipe.layer_weights:
        lines.append(
            "Weights of their own: "
            + ", ".join(f"{layer} {list(w)}" for layer, w in recipe.layer_weights.items())
            + "."
        )
    return "\n".join(lines)


def _shareable(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _shareable(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_shareable(own) for own in value)
    return Path(value).expanduser().name if isinstance(value, str) and is_local(value) else value


def _metadata(recipe: Recipe, checkpoint: Checkpoint, scores: Mapping[str, Mapping[str, Score]]) -> str:
    """YAML that the Hub understands; of references only those that lead somewhere on it."""
    from huggingface_hub import EvalResult, ModelCardData

    references = [model.checkpoint for model in recipe.models] + ([recipe.base] if recipe.base else [])
    parents = [reference.split("@")[0] for reference in references if is_on_hub(reference)]
    datasets = [found for model in recipe.models if (found := _hub_dataset(model.task))]
    task_type = "image-classification" if checkpoint.reads_images else "text-classification"
    results = [
        EvalResult(
            task_type=task_type,
            dataset_type=task,
            dataset_name=task,
            dataset_split=recipe.evaluation.split,
            metric_type=score.metric,
            metric_value=round(score.value, 6),
        )
        for task, score in scores.get(recipe.rule, {}).items()
    ]
    data = ModelCardData(
        base_model=list(dict.fromkeys(parents)) or None,
        base_model_relation="merge" if parents else None,
        library_name="transformers",
        tags=TAGS,
        datasets=list(dict.fromkeys(datasets)) or None,
        model_name=f"merged by {recipe.rule}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _hub_dataset(task: object) -> str | None:
    """The id of a task's dataset on the Hub."""
    name = task.get("dataset") if isinstance(task, Mapping) else None
    return name if isinstance(name, str) and is_on_hub(name) else None


def _opening(checkpoint: Checkpoint, folders: Sequence[str]) -> str:
    architecture = body_class(checkpoint)
    where = f', subfolder="{folders[0]}"' if folders else ""
    kept = (
        "\nThe folder itself holds the merged body; each model's own head is with it in a folder of its task's name: "
        + ", ".join(f"`{name}`" for name in folders)
        + ".\n"
    )
    return f"""{kept if folders else ""}
```python
from transformers import {architecture}
model = {architecture}.from_pretrained("this folder"{where})
```
"""


def _score_table(recipe: Recipe, scores: Mapping[str, Mapping[str, Score]]) -> str:
    methods = list(scores)
    rows = [
        f"| {task} | " + " | ".join(f"{100 * scores[method][task].value:.1f}" for method in methods) + " |"
        for task in scores[methods[0]]
    ]
    table = "\n".join(["| task | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|", *rows])
    return (
        f"Accuracy (%) on `{recipe.evaluation.split}`; `experts` are the single models on their own tasks:\n\n{table}"
    )
