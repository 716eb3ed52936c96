"""What the tabs of the studio make of tiny tasks, damaged Fishers, too few and too many models."""

from dataclasses import replace

import pytest

import merging
from components import explore_actions, inspect_actions, inspect_jobs, learn
from components.form import Form
from components.inspect import DISTANCES, MAPS, MATRIX, MIXING, PLANE, SIMILARITY
from components.jobs import REGISTRY, Job
from components.store import STORE
from merging import prepare
from merging.pools import open_pool
from merging.recipe import ModelEntry, preset_recipe
from merging.zoo import ZOO_FOLDER
from tests.benchmarks.slider import form_values

FOUR = preset_recipe(open_pool("digits"), "four-tasks")
OPENED = (MAPS, MIXING, SIMILARITY, DISTANCES)
WIDTH = 1280


def _values(recipe) -> list[object]:
    return form_values(recipe, recipe.weights)


def _text(parts: list[object]) -> str:
    return " ".join(part for part in parts if isinstance(part, str))


def _ended(parts: list[object]) -> Job:
    job = next(job for part in parts if isinstance(part, str) and (job := REGISTRY.get(part)))
    assert job.ended.wait(200)
    return job


def _begin(what: str, recipe) -> list[object]:
    values = _values(recipe)
    return {
        "search": lambda: explore_actions.begun("", "", "mean", 10, WIDTH, *values),
        "matrix": lambda: inspect_jobs.matrix_begun({}, WIDTH, *values),
        "plane": lambda: inspect_jobs.plane_begun({}, WIDTH, "parity", "loop", "base", *values),
        "quality": lambda: learn.measured(learn.QUALITY, WIDTH, *values),
        "costs": lambda: learn.measured(learn.COSTS, WIDTH, *values),
    }[what]()


LONG = ("search", "matrix", "plane", "quality", "costs")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two models with three rows in every split of their tasks, prepared."""
    entries = []
    for name in ("parity", "loop"):
        folder = tmp_path_factory.mktemp("tasks") / name
        folder.mkdir()
        task = open_pool("digits").model(name).task
        for split in ("fisher", "validation", "test"):
            rows = merging.open_task(task).rows(split).select(range(3))
            rows.to_parquet(folder / f"{split}.parquet")
        about = (ZOO_FOLDER / "digits" / "tasks" / name / "task.yaml").read_text(encoding="utf-8").splitlines()
        (folder / "task.yaml").write_text("\n".join(line for line in about if not line.startswith("data:")))
        entries.append(ModelEntry(f"zoo:digits/{name}", str(folder), 0.5))
    recipe = replace(FOUR, models=tuple(entries))
    STORE.put(recipe, prepare(recipe))
    return recipe


@pytest.fixture
def damaged():
    """Two models, the second with a NaN in its Fisher."""
    recipe = replace(FOUR, models=FOUR.models[:3:2], fisher=replace(FOUR.fisher, examples=16, seed=77))
    prepared = prepare(recipe)
    fisher = prepared.fishers[1]
    name = next(iter(prepared.merged_names))
    fisher[name].view(-1)[0] = float("nan")
    STORE.put(recipe, prepared)
    return recipe


@pytest.mark.parametrize("section", OPENED)
def test_three_rows_are_enough_for_every_section(tiny, section):
    answer = inspect_actions.opened(section, {}, WIDTH, *_values(tiny))
    assert 'role="alert"' not in _text(answer)
    assert any(hasattr(part, "to_plotly_json") for part in answer)


@pytest.mark.parametrize("what", LONG)
def test_three_rows_are_enough_for_every_measurement(tiny, what):
    job = _ended(_begin(what, tiny))
    assert job.state == "done", job.message


@pytest.mark.parametrize("section", OPENED)
def test_a_nan_in_a_fisher_is_told_by_every_section_that_reads_it(damaged, section):
    answer = inspect_actions.opened(section, {}, WIDTH, *_values(damaged))
    assert 'role="alert"' in _text(answer)
    assert "expected finite numbers" in _text(answer)


@pytest.mark.parametrize("what", ["search", "matrix", "plane"])
def test_a_nan_in_a_fisher_fails_a_measurement_with_a_message(damaged, what):
    job = _ended(_begin(what, damaged))
    assert job.state == "failed"
    assert "expected finite numbers" in job.message


COUNTS = {"one model": (FOUR.models[:1], "two or more models"), "sixteen": (FOUR.models * 4, "at most 8, got 16")}


@pytest.mark.parametrize(("models", "told"), COUNTS.values(), ids=COUNTS)
def test_too_few_and_too_many_models_are_told_by_every_tab(models, told):
    values = form_values(FOUR, FOUR.weights)
    chosen = Form.of(*values).models
    values[0] = [chosen[index % 4] for index in range(len(models))]
    answers = [
        explore_actions.begun("", "", "mean", 10, WIDTH, *values),
        inspect_jobs.matrix_begun({}, WIDTH, *values),
        inspect_jobs.plane_begun({}, WIDTH, "parity", "loop", "base", *values),
        learn.measured(learn.QUALITY, WIDTH, *values),
        learn.measured(learn.COSTS, WIDTH, *values),
        *[inspect_actions.opened(section, {}, WIDTH, *values) for section in (*OPENED, MATRIX, PLANE)],
    ]
    for answer in answers:
        assert 'role="alert"' in _text(answer)
        assert told in _text(answer)
