"""ZeroGPU without ZeroGPU: its calls run in forked processes, which hand back nothing but what pickles; here on the CPU."""

import faulthandler
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy
import pytest
import torch

from components import zero_gpu
from components.zero_gpu import LONGEST_S, SHORTEST_S, ZeroGpu, reported, seconds_for
from merging import devices, lent_work
from merging.devices import ZERO_GPU, available_devices, lent
from merging.errors import Cancelled, TaskError
from merging.lending import OnProgress, evaluation_operations, fisher_operations
from merging.opened import open_recipe
from merging.pipeline import evaluate, prepare
from merging.readers import Reader, account, in_name_of
from merging.recipe import FisherSettings
from tests import cases

# Forked from a process that has done nothing but import: with threads, one may hold a lock that its copy never gets back.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload([__name__, "transformers.models.vit.modeling_vit"])
CALLS = {"fisher_on_gpu": zero_gpu.fisher_call, "fixed_on_gpu": zero_gpu.fixed_call}
HUNG_S = 200  # then a call says where it hangs


def _child(call: Callable, arguments: bytes, environment: dict[str, str], ended, pipe) -> None:
    faulthandler.dump_traceback_later(HUNG_S, exit=True)
    os.environ |= environment
    devices.available_devices, zero_gpu.REPORT_S = lambda: ["cpu"], 0.0
    events = call(*pickle.loads(arguments))
    try:
        for event in events:
            pipe.send_bytes(pickle.dumps(event))
            if ended.is_set():
                events.close()
                break
    except BaseException as bug:
        pipe.send_bytes(pickle.dumps(("lost", type(bug).__name__)))
    pipe.send_bytes(pickle.dumps(None))


def forked(call: Callable) -> Callable:
    """As the `spaces` package does it: a process of its own, arguments and events through pickle."""

    def asked(*arguments: object):
        ours, theirs = FORK.Pipe()
        ended = FORK.Event()
        given = (call, pickle.dumps(arguments), dict(os.environ), ended, theirs)
        process = FORK.Process(target=_child, args=given, daemon=True)
        process.start()
        theirs.close()
        try:
            while (event := pickle.loads(ours.recv_bytes())) is not None:
                if event[0] == "lost":
                    raise gr.Error(event[1])
                yield event
        finally:
            ended.set()
            process.join(60)
            assert process.exitcode == 0

    return asked


def _endless_call(*arguments: object) -> Iterator[zero_gpu.Event]:
    def work(on_progress: OnProgress) -> None:
        try:
            while True:
                on_progress(0.5, "on")
                time.sleep(0.01)
        except Cancelled:
            Path(os.environ["STOPPED"]).touch()
            raise

    yield from reported(work)


class OnTheCpu(ZeroGpu):
    """The GPU of this machine."""

    device = "cpu"


@pytest.fixture
def lender(monkeypatch):
    """ZeroGPU's lender, whose calls are forked."""
    for name, call in CALLS.items():
        monkeypatch.setattr(zero_gpu, name, forked(call))
    return OnTheCpu()


@pytest.fixture
def recipe(four_result):
    """A recipe whose Fishers nobody has estimated."""
    return replace(four_result.recipe, fisher=FisherSettings(examples=16, seed=77), device="auto")


def test_every_call_gives_a_forked_process_what_this_one_would_have_computed(lender, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu"])
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "here"))
    own = evaluate(prepare(recipe), recipe)
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "there"))
    texts = []
    prepared = prepare(recipe, lambda fraction, text: texts.append(text), lender=lender)
    borrowed = evaluate(prepared, recipe)
    assert any("Fisher of loop (3 of 4)" in text and "examples" in text for text in texts)
    for mine, theirs in zip(own.prepared.fishers, prepared.fishers, strict=True):
        for name, tensor in mine.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-5, atol=1e-12)
    assert borrowed.scores == own.scores
    assert borrowed.singles == own.singles
    for name, one in own.predictions["ensemble"].items():
        numpy.testing.assert_allclose(
            borrowed.predictions["ensemble"][name].probabilities, one.probabilities, atol=1e-6
        )
    assert prepared.notes == own.prepared.notes


def test_a_call_reads_the_hub_for_whoever_has_signed_in(tmp_path, monkeypatch):
    tester = Reader("1", "hf_tester")
    asked = []

    def answered(*arguments: object):
        asked.append(arguments)
        yield "done", None

    for name in CALLS:
        monkeypatch.setattr(zero_gpu, name, answered)
    with in_name_of(tester):
        ZeroGpu().fisher(cases.two_tasks(), 0, 0.0, lambda *told: None)
        ZeroGpu().fixed(cases.two_tasks(), "test", 0.0, lambda *told: None)
    assert [arguments[2] for arguments in asked] == [tester, tester]
    seen = []
    monkeypatch.setattr(lent_work, "open_recipe", lambda *arguments: seen.append(account()) or ([], [], [], []))
    with pytest.raises(IndexError):  # no model is opened
        list(zero_gpu.fisher_call(*asked[0]))
    assert (seen, account()) == (["1"], "")


def test_a_fisher_that_is_cached_asks_for_no_gpu(lender, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))
    prepare(replace(recipe, device="cpu"))

    def refused(*arguments: object):
        raise AssertionError(arguments)

    monkeypatch.setattr(zero_gpu, "fisher_on_gpu", refused)
    assert len(prepare(recipe, lender=lender).fishers) == 4


def test_a_gpu_that_is_not_to_be_had_leaves_the_work_to_the_cpu_and_says_so(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))

    def refused(*arguments: object):
        raise gr.Error("You have exceeded your GPU quota (60s requested vs. 12s left).")
        yield

    for name in CALLS:
        monkeypatch.setattr(zero_gpu, name, refused)
    with pytest.warns(UserWarning, match="exceeded your GPU quota"):
        prepared = prepare(recipe, lender=ZeroGpu())
    with pytest.warns(UserWarning, match="exceeded your GPU quota"):
        evaluate(prepared, recipe)
    told = " ".join(prepared.notes)
    assert 'The Fisher of "loop" was estimated on the CPU.' in told
    assert "The single models were evaluated on the CPU." in told


def test_what_is_wrong_is_told_as_it_would_be_here(lender, recipe):
    task = "zoo:digits/nothing"
    broken = replace(recipe, models=tuple(replace(model, task=task) for model in recipe.models))
    with pytest.raises(TaskError) as here:
        open_recipe(broken, lambda fraction, text: None)
    with pytest.raises(TaskError) as there:
        lender.fisher(broken, 0, 1e9, lambda fraction, text: None)
    assert str(there.value) == str(here.value)


def test_a_call_is_stopped_within_a_report(lender, recipe, tmp_path, monkeypatch):
    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    monkeypatch.setattr(zero_gpu, "fisher_on_gpu", forked(_endless_call))
    monkeypatch.setenv("STOPPED", str(tmp_path / "stopped"))
    with pytest.raises(Cancelled):
        lender.fisher(recipe, 0, 1e9, stop)
    assert (tmp_path / "stopped").exists()


def test_a_closed_report_ends_its_work():
    ended = []

    def work(on_progress):
        try:
            while True:
                on_progress(0.5, "on")
        finally:
            ended.append(True)

    events = reported(work)
    assert next(events) == ("progress", (0.5, "on"))
    events.close()
    assert ended == [True]


def test_a_bug_is_no_result():
    with pytest.raises(ZeroDivisionError):
        list(reported(lambda on_progress: 1 / 0))


def test_the_time_that_is_asked_for_grows_with_parameters_and_examples(recipe):
    opened = open_recipe(recipe, lambda *told: None)
    checkpoint, task = opened.checkpoints[0], opened.own[0]
    few = fisher_operations(checkpoint, task, recipe)
    many = fisher_operations(checkpoint, task, replace(recipe, fisher=FisherSettings(examples=160)))
    assert many == pytest.approx(10 * few)
    assert evaluation_operations([checkpoint] * 2, 100) == 2 * evaluation_operations([checkpoint], 100)
    asked = [seconds_for(10.0**power) for power in range(9, 18)]
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (SHORTEST_S, LONGEST_S)


def test_on_zero_gpu_only_what_was_lent_is_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "cuda" in available_devices()
    monkeypatch.setenv(ZERO_GPU, "true")
    assert available_devices()[-1:] == available_devices() == ["cpu"]
    with lent():
        assert available_devices()[0] == "cuda"


def test_the_calls_are_decorated_on_zero_gpu_and_only_there():
    """With a package of that name that notes what is asked of it: the real one wants ZeroGPU's own machine."""
    told = """
import os, sys, types
spaces = types.ModuleType("spaces")
asked = []
spaces.GPU = lambda task, duration: asked.append((task.__name__, duration("recipe", 1, 42))) or task
sys.modules["spaces"] = spaces
from components import zero_gpu
print(asked, zero_gpu.lender() is not None)
"""
    code = f"import os; os.environ['{ZERO_GPU}'] = 'true'\n{told}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[('fisher_call', 42), ('fixed_call', 42)] True"
    assert zero_gpu.lender() is None
    assert (zero_gpu.fisher_on_gpu, zero_gpu.fixed_on_gpu) == (zero_gpu.fisher_call, zero_gpu.fixed_call)
