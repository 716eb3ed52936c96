"""Recipes: read back as written, and wrong ones named field by field."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from merging import open_pool, preset_recipe, recipe_for_pool
from merging.errors import MergingError, PoolError, RecipeError
from merging.recipe import EvaluationSettings, FisherSettings, ModelEntry, Recipe
from merging.rules import RULES
from tests import cases

HUB_TASK = {"dataset": "nyu-mll/glue", "config": "rte", "splits": {"fisher": "train", "test": "validation"}}
MINIMAL = {"models": [{"checkpoint": "a", "task": "b"}, {"checkpoint": "c", "task": "d"}]}


def changed(**fields):
    return yaml.safe_dump({**MINIMAL, **fields})


@given(
    weights=st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=2, max_size=5).filter(any),
    fisher=st.builds(
        FisherSettings,
        labels=st.sampled_from(["auto", "exact", "rademacher", "sampled", "empirical"]),
        examples=st.one_of(st.just("all"), st.integers(1, 10**6)),
        seed=st.integers(0, 2**31),
        floor=st.floats(0, 1),
        normalise=st.sampled_from(cases.NORMALISATIONS),
        zero_rule=st.sampled_from(cases.ZERO_RULES),
    ),
    rule=st.sampled_from(cases.RULES),
    split=st.sampled_from(["validation", "test"]),
    tasks=st.lists(st.text(min_size=1), max_size=2),
    name=st.text(min_size=1),
    compare=st.sampled_from([(), ("ensemble",), ("isotropic", "ensemble", "experts")]),
)
def test_a_recipe_reads_back_as_it_was_written(weights, fisher, rule, split, tasks, name, compare):
    assume(RULES[rule].exactly in (None, len(weights)))
    recipe = Recipe(
        models=tuple(ModelEntry(name, HUB_TASK, weight) for weight in weights),
        rule=rule,
        fisher=fisher,
        evaluation=EvaluationSettings(split, 7, tuple(tasks)),
        heads="merge",
        device="cpu",
        base="a base",
        compare=compare,
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_recipe_of_the_architecture_page_is_read():
    text = """
version: 1
models:
  - {checkpoint: "zoo:digits/parity", task: "zoo:digits/parity", weight: 0.5}
  - {checkpoint: "zoo:digits/loop",   task: "zoo:digits/loop",   weight: 0.5}
rule: fisher
fisher: {labels: exact, examples: 512, seed: 0, floor: 0.0, normalise: trace, zero_rule: mean}
evaluation: {split: test, examples: all}     # compared with isotropic, ensemble and experts
heads: keep                                   # keep | merge (equal label sets only)
device: auto                                  # auto | cuda | mps | cpu
"""
    recipe = Recipe.from_yaml(text)
    assert recipe.weights == [0.5, 0.5]
    assert recipe.fisher == FisherSettings(labels="exact", examples=512)
    assert recipe.evaluation == EvaluationSettings()


def test_what_is_left_out_takes_its_default():
    recipe = Recipe.from_yaml(yaml.safe_dump(MINIMAL))
    assert (recipe.rule, recipe.heads, recipe.device, recipe.weights) == ("fisher", "keep", "auto", [1.0, 1.0])
    assert (recipe.fisher.labels, recipe.fisher.normalise, recipe.fisher.zero_rule) == ("auto", "trace", "mean")


def test_a_floor_without_a_dot_is_a_number():
    """YAML reads 1e-6 as text."""
    recipe = Recipe.from_yaml("fisher: {floor: 1e-6}\n" + yaml.safe_dump(MINIMAL))
    assert float(recipe.fisher.floor) == 1e-6


def test_other_weights_change_nothing_else():
    recipe = Recipe.from_yaml(yaml.safe_dump(MINIMAL))
    other = recipe.with_weights([0.2, 3])
    assert other.weights == [0.2, 3]
    assert other.with_weights(recipe.weights) == recipe


def test_a_pools_recipe_has_equal_weights_and_the_pools_base():
    pool = open_pool("digits")
    recipe = recipe_for_pool(pool, ["parity", "loop"], device="cpu")
    assert recipe.weights == [0.5, 0.5]
    assert (recipe.base, recipe.device) == (pool.base, "cpu")
    assert preset_recipe(pool, "robust").evaluation.tasks == tuple(
        pool.task_reference(task) for task in pool.preset("robust").evaluate
    )
    with pytest.raises(PoolError, match=r'Did you mean "loop"'):
        recipe_for_pool(pool, ["parity", "lop"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"expected YAML, got"),
        ("", r"The recipe cannot be read: expected fields and values, got None"),
        ("just text", r"expected fields and values, got 'just text'"),
        ("[1, 2]", r"expected fields and values, got \[1, 2\]"),
        ("rule: fisher", r'The recipe has no models: expected a list under "models", got None'),
        ("models: {a: b}", r'expected a list under "models"'),
        ("models: [a, b]", r"The model 1 cannot be read: expected fields and values, got 'a'"),
        ("models: [{checkpoint: a}]", r'Model 1 is incomplete: expected "checkpoint" and "task", got "checkpoint"'),
        (changed(models=MINIMAL["models"][:1]), r"Nothing to merge: expected two or more models, got 1"),
        (changed(models=[]), r"Nothing to merge: expected two or more models, got 0"),
        (changed(ruel="fisher"), r'unknown field: .* got "ruel". Did you mean "rule"'),
        (changed(fisher={"label": "exact"}), r'The fisher has an unknown field: .* Did you mean "labels"'),
        (changed(fisher=None), r"The fisher cannot be read: expected fields and values, got None"),
        (changed(fisher={"labels": "exat"}), r'Unknown kind of labels: .* Did you mean "exact"'),
        (changed(fisher={"normalise": "l3"}), r'Unknown normalisation: .* Did you mean "l2"'),
        (changed(fisher={"zero_rule": "base"}), r'zero_rule "base" needs the base checkpoint: .* got none'),
        (changed(fisher={"floor": -1}), r"The floor cannot be used: .* got -1.0"),
        (changed(fisher={"floor": "low"}), r"The floor cannot be used: expected a number, got 'low'"),
        (changed(fisher={"seed": 1.5}), r"The seed cannot be used: .* got 1.5"),
        (changed(fisher={"examples": 0}), r"The fisher examples cannot be used: .* got 0"),
        (changed(fisher={"examples": True}), r"The fisher examples cannot be used: .* got True"),
        (changed(evaluation={"examples": "most"}), r"The evaluation examples cannot be used: .* got 'most'"),
        (changed(evaluation={"split": "tset"}), r'Unknown split: .* Did you mean "test"'),
        (changed(evaluation={"tasks": "rotated"}), r"expected a list, got 'rotated'"),
        (changed(evaluation={"tasks": 5}), r"expected a list, got 5"),
        (changed(rule="fischer"), r'Unknown rule: .* Did you mean "fisher"'),
        (changed(rule=["fisher"]), r"Unknown rule"),
        (changed(heads="kepe"), r'Unknown way of treating heads: .* Did you mean "keep"'),
        (changed(device="cudda"), r'Unknown device: .* Did you mean "cuda"'),
        (changed(compare=["ensembel"]), r'Unknown comparison: .* Did you mean "ensemble"'),
        (changed(compare="ensemble"), r"expected a list, got 'ensemble'"),
        (changed(compare=5), r"expected a list, got 5"),
        (changed(base=5), r"The base cannot be opened: expected a checkpoint, got 5"),
        (changed(fisher={"seed": 2**64}), r"The seed cannot be used: expected at most 2147483648, got 1.84e\+19"),
        (
            changed(models=[{"checkpoint": ["a"], "task": "b"}] * 2),
            r"The checkpoint cannot be opened: expected a check",
        ),
        (changed(models=[{"checkpoint": "a", "task": {"dataset": float("nan")}}] * 2), r"The task cannot be opened"),
        (changed(models=[{"checkpoint": "a", "task": 5}] * 2), r"The task cannot be opened: expected a task, .* got 5"),
        ("models: !!python/object/apply:os.getcwd []", r"expected YAML, got 'could not determine a constructor"),
        (changed(version=2), r"expected version 1, got 2"),
    ],
)
def test_a_wrong_recipe_names_the_field_and_what_to_do(text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_yaml(text)


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [1, float("nan")], [1, float("inf")], ["a", 1], [None, 1]])
def test_weights_without_a_meaning_are_refused(weights):
    models = [{**model, "weight": weight} for model, weight in zip(MINIMAL["models"], weights, strict=True)]
    with pytest.raises(RecipeError, match=r"weights? cannot be used: expected"):
        Recipe.from_yaml(changed(models=models))


def test_a_wrong_recipe_cannot_be_made_in_code_either():
    recipe = Recipe.from_yaml(yaml.safe_dump(MINIMAL))
    with pytest.raises(RecipeError, match=r"expected at least one above 0"):
        recipe.with_weights([0, 0])
    with pytest.raises(RecipeError, match=r"Unknown rule"):
        replace(recipe, rule="median")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x80", b"\x00\x01\x02", bytes(range(256))])
def test_a_binary_file_is_no_recipe(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"cannot be read: expected .*YAML"):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_missing_recipe_says_so(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MergingError, match=r"cannot be read: expected a YAML file, got .* Check the path"):
            Recipe.load(path)


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "é", "\t"])
def test_a_name_with_any_mark_is_read_as_it_was_written(mark):
    own = Recipe((ModelEntry(f"a{mark}b", "zoo:digits/parity"), ModelEntry("zoo:digits/loop", "zoo:digits/loop")))
    assert Recipe.from_yaml(own.to_yaml()).models[0].checkpoint == f"a{mark}b"
