"""An estimate that was killed goes on, and ends with the same bits."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from merging import diagonal_fisher
from merging.errors import CacheError, FisherError
from merging.gradients import squares
from tests import cases

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"vit-10": "exact", "bert-2": "rademacher"}
CHILD = """
import sys
from merging import diagonal_fisher
from merging.gradients import squares
from tests.merging.test_resume import batches, LABELS
from tests import cases
squares.MOST_EXAMPLES["cpu"] = 4
name, state = sys.argv[1:]
def on_progress(fraction, text):
    print(text, flush=True)
diagonal_fisher(cases.model_case(name), batches(name), LABELS[name], seed=3, on_progress=on_progress, state=state)
"""


def batches(name):
    """Three epochs of sixteen examples, in batches of six, of which no more than four fit into memory."""
    return 3 * cases.batches_for(name, 6)


def _killed(name, state, *, after):
    """The estimate in a process of its own, killed without warning once it has reported so many batches."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, name, str(state)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        for _ in range(after):
            last = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return int(last.split()[0])


@pytest.mark.parametrize("name", LABELS)
def test_a_killed_estimate_goes_on_and_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.setitem(squares.MOST_EXAMPLES, "cpu", 4)
    state, seen = tmp_path / "state", []
    reported = _killed(name, state, after=5)
    assert 0 < reported < 48

    def resumed():
        return diagonal_fisher(
            cases.model_case(name),
            batches(name),
            LABELS[name],
            seed=3,
            state=state,
            on_progress=lambda fraction, text: seen.append(int(text.split()[0])),
        )

    found = resumed()
    assert seen[-1] == found.examples == 48
    assert seen[0] > reported - 4, "no more than one batch was lost"
    whole = diagonal_fisher(cases.model_case(name), batches(name), LABELS[name], seed=3)
    assert all(torch.equal(found[parameter], whole[parameter]) for parameter in whole)


def test_every_batch_is_saved(tmp_path):
    """Stopped after any batch, the state holds all examples until then."""
    from safetensors import safe_open

    path = tmp_path / "state"

    class Stop(Exception):
        pass

    def stop(fraction, text):
        raise Stop

    for done in (3, 6, 9):
        with pytest.raises(Stop):
            diagonal_fisher(cases.model_case("vit-2"), cases.batches_for("vit-2", 3), on_progress=stop, state=path)
        with safe_open(path, framework="pt") as file:
            assert f'"examples": {done}' in file.metadata()["state"]


def test_fallbacks_are_remembered(tmp_path):
    path = tmp_path / "state"
    first = diagonal_fisher(cases.model_case("tied-3"), cases.batches_for("tied-3", 3), state=path)
    found = diagonal_fisher(cases.model_case("tied-3"), cases.batches_for("tied-3", 3), state=path)
    assert found.fallbacks == first.fallbacks


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_state_is_as_if_it_were_not_there(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    found = diagonal_fisher(cases.model_case("softmax-3"), cases.batches_for("softmax-3", 3), state=path)
    assert found.examples == cases.EXAMPLES


@pytest.mark.parametrize(
    ("name", "labels", "seed"), [("softmax-2", "exact", 0), ("softmax-3", "sampled", 0), ("softmax-3", "exact", 1)]
)
def test_the_state_of_another_estimate_is_refused(tmp_path, name, labels, seed):
    path = tmp_path / "state"
    diagonal_fisher(cases.model_case("softmax-3"), cases.batches_for("softmax-3", 3), "exact", state=path)
    with pytest.raises(FisherError, match=r'"state" is the state of another estimate: .* Delete the file'):
        diagonal_fisher(cases.model_case(name), cases.batches_for(name, 3), labels, seed=seed, state=path)


def test_a_state_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be written"):
        diagonal_fisher(
            cases.model_case("softmax-3"), cases.batches_for("softmax-3", 3), state=tmp_path / "file" / "state"
        )
