"""Bad input on the command line: exit code 2, one message that helps, and nothing lost or half written."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml

import merging
from merging import open_pool, preset_recipe
from merging.__main__ import main
from merging.recipe import EvaluationSettings
from tests import cases


def snapshot(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path, fresh_cache, capsys):
    """Runs a recipe (text, mapping or Recipe) that must be refused; returns the message."""

    def run(recipe, command="run"):
        path = tmp_path / "recipe.yaml"
        text = recipe.to_yaml() if hasattr(recipe, "to_yaml") else recipe
        path.write_bytes(
            text if isinstance(text, bytes) else (text if isinstance(text, str) else yaml.safe_dump(text)).encode()
        )
        before = snapshot(tmp_path)
        cached = set(fresh_cache.iterdir()) if fresh_cache.is_dir() else set()
        capsys.readouterr()
        output = ["--output", str(tmp_path / "out")] if command == "run" else []
        assert main([command, str(path), *output, "--json"]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "Traceback" not in shown.err
        # Progress lines may stand before the message, which is the last line.
        message = shown.err.strip().splitlines()[-1]
        assert "expected" in message
        assert ", got " in message
        after = snapshot(tmp_path)
        half = [name for name in after.keys() - before.keys() if not name.startswith(str(fresh_cache))]
        assert not half, "nothing is half written"
        new = set(fresh_cache.iterdir()) - cached if fresh_cache.is_dir() else set()
        assert all(file.suffix == ".safetensors" and merging.Fisher.load(file) for file in new)
        return message

    return run


def with_checkpoint(reference, recipe=None):
    """The two-task recipe whose second model is another checkpoint."""
    recipe = recipe or cases.two_tasks()
    return replace(recipe, models=(recipe.models[0], replace(recipe.models[1], checkpoint=str(reference))))


def with_task(reference):
    recipe = cases.two_tasks()
    return replace(recipe, models=(recipe.models[0], replace(recipe.models[1], task=str(reference))))


def with_fields(**fields):
    return {**yaml.safe_load(cases.two_tasks().to_yaml()), **fields}


@pytest.mark.parametrize(
    ("weights", "got"),
    [((0, 0), "[0.0, 0.0]"), ((1, -0.5), "[1.0, -0.5]"), ((".nan", 1), "[nan, 1.0]"), ((".inf", 1), "[inf, 1.0]")],
)
def test_weights_without_a_meaning(refused, weights, got):
    content = with_fields()
    for model, weight in zip(content["models"], weights, strict=True):
        model["weight"] = float(str(weight).lstrip("."))
    message = refused(content)
    assert f"got {got}" in message
    assert "λ" in message


def test_fewer_than_two_models(refused):
    assert "expected two or more models, got 1. Add a model." in refused(
        with_fields(models=with_fields()["models"][:1])
    )


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({"rule": "fishr"}, "fisher"),
        ({"device": "gpu"}, "cpu"),
        ({"rul": "fisher"}, "rule"),
        ({"heads": "merged"}, "merge"),
        ({"fisher": {"normalize": "l2"}}, "normalise"),
    ],
)
def test_an_unknown_word_offers_the_nearest(refused, fields, offered):
    assert f'Did you mean "{offered}"?' in refused(with_fields(**fields))


def test_an_unknown_checkpoint_task_and_pool_offer_the_nearest(refused):
    assert 'Did you mean "large"?' in refused(with_checkpoint("zoo:digits/larg"))
    assert 'Did you mean "loop"?' in refused(with_task("zoo:digits/loops"))
    assert 'Did you mean "digits"?' in refused(with_checkpoint("zoo:digit/large"))


@pytest.mark.parametrize(
    ("asked", "offered"), [("digit/four-tasks", "digits"), ("digits/five-seed", "five-seeds"), ("digits", None)]
)
def test_an_unknown_pool_or_preset_on_the_command_line_offers_the_nearest(capsys, asked, offered):
    assert main(["pools", "--recipe", asked]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert (f'Did you mean "{offered}"?' if offered else "Pick one of those") in shown.err


def test_a_device_that_this_machine_does_not_have(refused):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    assert 'got "mps"' in refused(with_fields(device="mps"))


def test_a_checkpoint_of_another_width(refused, tmp_path):
    wide = tmp_path / "wide"
    cases.vit(2, width=32).save_pretrained(wide)
    shutil.copy(merging.open_checkpoint("zoo:digits/large").folder / "preprocessor_config.json", wide)
    message = refused(with_checkpoint(wide))
    assert 'expected "wide" to have the same parameters as "parity"' in message or "expected equal shapes" in message
    assert "vit." in message


def test_a_checkpoint_of_another_architecture(refused, tmp_path):
    cases.model_case("bert-2").save_pretrained(tmp_path / "bert")
    message = refused(with_checkpoint(tmp_path / "bert"))
    assert "expected the same architecture (ViTForImageClassification), got BertForSequenceClassification" in message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"text": "a", "label": 7}', 'expected labels from 0 to 1, got "7"'),
        ('{"text": "a", "label": "prime"}', 'expected labels among "even", "odd", got "prime"'),
        ('{"text": "a", "label": -1}', "has no labels"),
        ('{"text": "a", "label": 0}\n{"text": null, "label": 1}', "got none in row 2"),
        ('{"text": "", "label": 0}', "has only empty texts"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_any_fisher_is_estimated(refused, fresh_cache, tmp_path, rows, message):
    (tmp_path / "data").mkdir()
    for split in ("fisher", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(rows + "\n")
    recipe = cases.two_tasks()
    models = (recipe.models[1], replace(recipe.models[0], task=str(tmp_path / "data")))
    assert message in refused(replace(recipe, models=models))
    assert not list(fresh_cache.glob("*"))


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_checkpoint_with_a_missing_file(refused, pool_folder, missing):
    (pool_folder / "checkpoints" / "large" / missing).unlink()
    message = refused(with_checkpoint(pool_folder / "checkpoints" / "large"))
    assert {"model.safetensors": "no weights", "config.json": "config.json"}.get(missing, "image processor") in message


def test_a_pool_with_a_missing_file(pool_folder, capsys):
    (pool_folder / "checkpoints" / "large" / "model.safetensors").unlink()
    assert main(["pools", "--recipe", f"{pool_folder}/four-tasks"]) == 2
    with pytest.raises(merging.MergingError, match=r'got none for "checkpoints/large'):
        preset_recipe(open_pool(str(pool_folder)), "four-tasks")


def test_truncated_weights(refused, pool_folder):
    weights = pool_folder / "checkpoints" / "large" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    message = refused(with_checkpoint(weights.parent))
    assert "expected complete safetensors files" in message
    assert "Download or save the checkpoint again" in message


def test_pickled_weights(refused, pool_folder):
    folder = pool_folder / "checkpoints" / "large"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert 'got pickled weights ("pytorch_model.bin")' in refused(with_checkpoint(folder))


def test_a_task_without_rows(refused, pool_folder):
    folder = pool_folder / "tasks" / "empty"
    folder.mkdir()
    for split in ("fisher", "test"):
        (folder / f"{split}.jsonl").write_text("")
    assert "expected at least one, got 0. Add data." in refused(with_task(folder))


def test_a_task_without_a_fisher_split(refused, pool_folder):
    (pool_folder / "data" / "digits" / "fisher.parquet").unlink()
    message = refused(with_task(pool_folder / "tasks" / "parity"))
    assert "has no fisher split: expected a file fisher.parquet, .jsonl or .csv" in message


def test_a_task_of_other_labels(refused):
    message = refused(replace(with_task("zoo:digits/digit"), evaluation=EvaluationSettings(examples=40)))
    assert "does not fit" in message
    assert "expected labels" in message


def test_a_cached_fisher_of_other_shapes(refused, fresh_cache):
    recipe = cases.two_tasks()
    prepared = merging.prepare(recipe)
    path = min(fresh_cache.iterdir())
    merging.Fisher({name: tensor[:1] for name, tensor in prepared.fishers[0].items()}, 16).save(path)
    written = path.read_bytes()
    message = refused(recipe)
    assert "expected shape" in message
    assert f'Delete "{path}"' in message
    assert path.read_bytes() == written


def test_a_file_in_the_place_of_the_cache(refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "file"))
    message = refused(cases.two_tasks())
    assert "The Fisher cache cannot be written: expected a folder" in message
    assert "set FISHER_CACHE_DIR to a folder that you can write to" in message
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    "recipe",
    ["a: [", "", "just words", "- 1\n- 2", "rule: fisher", b"\x00\x01\x02\xff", b"\x89PNG\r\n\x1a\n", "models: [5, 6]"],
    ids=["no YAML", "empty", "words", "a list", "no models", "binary", "a picture", "numbers"],
)
def test_a_file_that_is_no_recipe(refused, recipe):
    for command in ("run", "fisher", "evaluate"):
        refused(recipe, command)


def test_a_recipe_that_is_not_there(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "out")]) == 2
    assert 'got "No such file or directory". Check the path.' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
