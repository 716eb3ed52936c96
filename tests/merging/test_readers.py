"""A page for many: each visitor reads of the Hub what their own account may read, and nobody else reads it after them."""

import json

import pytest

from merging import hub as hub_module
from merging import open_checkpoint
from merging.errors import CheckpointError
from merging.headers import read_header
from merging.hub import HubUnreachable
from merging.readers import Reader, account, in_name_of, read_for
from merging.zoo import ZOO_FOLDER
from tests.loopback_hub import connect, loopback_hub
from tests.merging.test_hub_tasks import jsonl, rows

PARITY = ZOO_FOLDER / "digits" / "checkpoints" / "parity"
TESTER = Reader("1", "hf_tester")
PRIVATE = r"or is private\. .*press “Sign in with Hugging Face”"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with a checkpoint that `tester` alone may read; this process is a page whose visitors sign in."""
    with loopback_hub(tmp_path / "hub") as running:
        running.add("lab/secret", PARITY, is_private=True, readers={"tester"})
        running.add("lab/open", PARITY)
        connect(monkeypatch, running, tmp_path / "home")
        read_for(lambda: None)
        yield running
        read_for(None)


def test_a_private_checkpoint_is_for_its_readers_alone_also_once_it_is_here(hub):
    with in_name_of(TESTER):
        assert open_checkpoint("lab/secret").hash == open_checkpoint(str(PARITY)).hash
    for read in (read_header, open_checkpoint, hub_module.look_up, hub_module.fetch):
        with pytest.raises(CheckpointError, match=PRIVATE):
            read("lab/secret")
        revoked = pytest.warns(UserWarning, match="need a new login")
        with in_name_of(Reader("2", "hf_another")), revoked, pytest.raises(CheckpointError, match=PRIVATE):
            read("lab/secret")
    assert open_checkpoint("lab/open").name == "open"


def test_without_the_hub_nothing_that_is_here_is_opened_where_visitors_sign_in(hub):
    with in_name_of(TESTER):
        open_checkpoint("lab/secret")
    hub.stop()
    for read in (read_header, open_checkpoint):
        with pytest.raises(HubUnreachable, match="Check the connection"):
            read("lab/secret")
    read_for(None)  # one's own machine
    assert open_checkpoint("lab/secret").hash == open_checkpoint(str(PARITY)).hash


def test_a_token_is_told_to_nobody(hub):
    with in_name_of(TESTER):
        assert (account(), TESTER.token in repr([TESTER, hub_module.look_up("lab/secret")])) == ("1", False)
        assert hub_module.look_up("lab/secret").token is None
    assert account() == ""


# Each line: whose question it is, and whether the Hub answers.
ASKED = """
import json, sys
from merging import open_task
from merging.errors import TaskError
from merging.readers import Reader, in_name_of, read_for
from merging.summaries import describe_task

TASK = {"dataset": "lab/private", "splits": {"test": "train"}}

def ask(reader):
    found = []
    with in_name_of(reader):
        for look in (lambda: len(open_task(TASK).rows("test")), lambda: describe_task({"dataset": "lab/private"}).reference["dataset"]):
            try:
                found.append(look())
            except TaskError as problem:
                found.append(str(problem))
    return found

read_for(lambda: None)
print(json.dumps([ask(Reader("1", "hf_tester") if name == "tester" else None) for name in sys.argv[1:]]))
"""


def test_a_private_dataset_is_for_its_readers_alone_also_once_it_is_here(tmp_path):
    with loopback_hub(tmp_path / "hub") as hub:
        splits = {"train": rows("train", 30), "validation": rows("validation", 6)}
        own = {"kind": "dataset", "is_private": True, "readers": {"tester"}}
        hub.add("lab/private", jsonl(tmp_path / "private", splits), **own)

        def asked(*names: str) -> list[list[object]]:
            done = hub.in_client(["-c", ASKED, *names], tmp_path / "home")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        stranger, tester, again, once_more = asked("", "tester", "", "tester")
        assert tester == once_more == [30, "lab/private"]
        for told in [*stranger, *again]:
            assert "or is private" in str(told)
            assert "press “Sign in with Hugging Face”" in str(told)
        hub.is_down = True
        for found in asked("", "tester"):
            assert all(isinstance(told, str) and "lab/private" in told and told != "lab/private" for told in found)
