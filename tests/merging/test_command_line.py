"""The command line: exit codes, and what stands on which stream."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from merging import Recipe
from merging.__main__ import main
from tests import cases

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(cases.two_tasks().to_yaml())
    return str(path)


def test_pools_lists_models_and_presets(capsys):
    assert main(["pools"]) == 0
    lines = capsys.readouterr().out
    assert "zoo:digits/parity" in lines
    assert "preset digits/four-tasks: parity, large, loop, remainder" in lines


def test_pools_prints_one_json_object(capsys):
    assert main(["pools", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["digits"]["presets"]["four-tasks"] == ["parity", "large", "loop", "remainder"]


def test_pools_prints_a_presets_recipe_that_can_be_read(capsys):
    assert main(["pools", "--recipe", "digits/five-seeds"]) == 0
    recipe = Recipe.from_yaml(capsys.readouterr().out)
    assert recipe.heads == "merge"
    assert len(recipe.models) == 5


def test_fisher_estimates_and_caches(recipe_file, fresh_cache, capsys):
    assert main(["fisher", recipe_file]) == 0
    assert "2 Fishers are in the cache: parity, large" in capsys.readouterr().out
    assert len(list(fresh_cache.iterdir())) == 2
    assert main(["fisher", recipe_file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["parity", "large"]


def test_run_writes_the_model_and_prints_scores(recipe_file, tmp_path, capsys):
    assert main(["run", recipe_file, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"written to {tmp_path / 'out'}" in shown
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["parity", "large", "mean"]
    transformers.ViTForImageClassification.from_pretrained(tmp_path / "out", subfolder="large")
    assert Recipe.load(tmp_path / "out" / "recipe.yaml") == Recipe.load(recipe_file)


def test_json_is_alone_on_standard_output(recipe_file, tmp_path, capsys):
    assert main(["run", recipe_file, "--output", str(tmp_path / "out"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content.keys() == {"scores", "timings", "output"}
    assert content["output"] == str(tmp_path / "out")
    assert content["timings"].keys() == {"open", "fisher", "merge", "evaluate", "compare", "export"}
    assert content["scores"].keys() == {"fisher", "isotropic", "ensemble", "experts"}
    assert content["scores"]["fisher"]["parity"].keys() == {"metric", "value", "low", "high", "n"}
    assert content["scores"] == json.loads((tmp_path / "out" / "scores.json").read_text())


def test_evaluate_gives_the_same_scores_and_writes_nothing(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", recipe_file, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert main(["evaluate", recipe_file, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["scores"] == run["scores"]
    assert evaluated["output"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_stream_writes_the_same_model_as_run_without_scores(recipe_file, tmp_path, capsys):
    assert main(["run", recipe_file, "--output", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["stream", recipe_file, "--output", str(tmp_path / "out"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == {"scores": {}, "timings": content["timings"], "output": str(tmp_path / "out")}
    assert content["timings"].keys() == {"open", "fisher", "merge"}
    assert Recipe.load(tmp_path / "out" / "recipe.yaml") == Recipe.load(recipe_file)
    for name in ("parity", "large"):
        found, expected = (
            transformers.ViTForImageClassification.from_pretrained(tmp_path / folder, subfolder=name).state_dict()
            for folder in ("out", "run")
        )
        assert all(torch.equal(own, expected[key]) for key, own in found.items())


@pytest.mark.parametrize(
    "arguments", [[], ["merge"], ["stream", "a"], ["run"], ["run", "a", "b"], ["evaluate", "a", "--output", "b"]]
)
def test_wrong_words_are_exit_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m merging" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_seen_before_the_work(recipe_file, tmp_path, capsys, fresh_cache):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main(["run", recipe_file, "--output", str(tmp_path / "mine")]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert not fresh_cache.exists()


def test_a_bug_is_not_dressed_as_the_users_fault(recipe_file, monkeypatch):
    def broken(*arguments):
        raise KeyError("a bug")

    monkeypatch.setattr("merging.pipeline.run", broken)
    with pytest.raises(KeyError):
        main(["run", recipe_file])


def _start(*arguments, cache):
    environment = {**os.environ, "FISHER_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-m", "merging", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_process_prints_json_alone_and_exits_with_zero(recipe_file, tmp_path):
    process = _start("evaluate", recipe_file, "--json", cache=tmp_path / "cache")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["scores"]["experts"]["large"]["n"] == 40
    assert "Fisher of" in err, "progress goes to standard error"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_exits_with_130_and_leaves_no_half_file(tmp_path, number):
    slow = cases.quick_recipe("five-seeds")
    path = tmp_path / "slow.yaml"
    path.write_text(slow.to_yaml().replace("examples: 16", "examples: all"))
    process = _start("fisher", str(path), cache=tmp_path / "cache")
    try:
        for line in process.stderr:
            if "examples" in line:
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Stopped. What is estimated so far is in the cache: the same command goes on from there." in err
    assert "Traceback" not in err
    assert out == ""
    assert all(
        file.suffix in (".safetensors", ".state") and file.name[0] != "." for file in (tmp_path / "cache").iterdir()
    )
