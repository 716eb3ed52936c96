"""Checkpoints from the Hub, by the real client, from a Hub on loopback: what is read when, and what is refused."""

import json
import os
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from merging import hub as hub_module
from merging import open_checkpoint
from merging.errors import CheckpointError
from merging.headers import pinned_reference, read_header
from merging.zoo import ZOO_FOLDER
from tests import cases
from tests.loopback_hub import connect, loopback_hub

PARITY = ZOO_FOLDER / "digits" / "checkpoints" / "parity"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one checkpoint, `lab/parity`, that this process's client speaks to."""
    with loopback_hub(tmp_path / "hub") as running:
        running.add("lab/parity", PARITY)
        connect(monkeypatch, running, tmp_path / "home")
        yield running


def test_headers_are_read_before_any_weight_is_downloaded(hub):
    header = read_header("lab/parity")
    assert {name: stored.shape for name, stored in header.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in load_file(PARITY / "model.safetensors").items()
    }
    assert header.config == json.loads((PARITY / "config.json").read_text())
    assert header.size_bytes == (PARITY / "model.safetensors").stat().st_size
    assert header.download_bytes >= header.size_bytes
    assert hub.downloads("model.safetensors") == ["bytes=0-100000"], "the header's range alone"
    read_header("lab/parity")
    open_checkpoint("lab/parity")
    assert read_header("lab/parity").download_bytes == 0


def test_a_checkpoint_by_id_is_the_one_in_the_folder(hub):
    checkpoint, local = open_checkpoint("lab/parity"), open_checkpoint(str(PARITY))
    assert checkpoint.name == "parity"
    assert checkpoint.hash == local.hash
    pixels = torch.rand(2, 1, 16, 16)
    assert torch.equal(checkpoint.model()(pixels).logits, local.model()(pixels).logits)
    assert checkpoint.processor() is not None


def test_revisions_are_branches_or_commits_and_are_pinned(hub, tmp_path):
    first = hub.repositories["model", "lab/parity"].refs["main"]
    hub.add("lab/parity", ZOO_FOLDER / "digits" / "checkpoints" / "loop", revision="v2")
    second = hub.repositories["model", "lab/parity"].refs["v2"]
    assert _pinned("lab/parity@v2") == f"lab/parity@{second}"
    assert _pinned("lab/parity") == f"lab/parity@{first}"
    assert open_checkpoint(f"lab/parity@{second}").hash == open_checkpoint("lab/parity@v2").hash
    assert open_checkpoint("lab/parity@v2").hash != open_checkpoint("lab/parity").hash
    # A branch that moves on does not change what is pinned.
    hub.add("lab/parity", ZOO_FOLDER / "digits" / "checkpoints" / "large", revision="v2")
    moved = open_checkpoint("lab/parity@v2")
    assert pinned_reference("lab/parity@v2") != f"lab/parity@{second}"
    assert open_checkpoint(f"lab/parity@{second}").hash != moved.hash
    hub.add("lab/parity", ZOO_FOLDER / "digits" / "checkpoints" / "loop", revision="refs/pr/1")
    assert open_checkpoint("lab/parity@refs/pr/1").hash == open_checkpoint(f"lab/parity@{second}").hash
    with pytest.raises(CheckpointError, match=r"lab/parity@v3.*Revision Not Found.*Check the id and the revision"):
        open_checkpoint("lab/parity@v3")


def test_a_sharded_checkpoint_is_downloaded_whole(hub, tmp_path):
    model = cases.model_case("bert-10")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    hub.add("lab/sharded", tmp_path / "sharded")
    assert set(read_header("lab/sharded").tensors) == set(open_checkpoint(str(tmp_path / "sharded")).shapes)
    opened = open_checkpoint("lab/sharded").model()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())


@pytest.mark.parametrize("asked", ["lab/paritty", "labs/parity", "lab/parity-fine"])
def test_an_unknown_id_offers_the_nearest(hub, asked):
    with pytest.raises(CheckpointError, match=r'does not exist, or is private\. Did you mean "lab/parity"'):
        open_checkpoint(asked)


def test_an_id_that_no_hub_could_have_is_refused(hub):
    with pytest.raises(CheckpointError, match="cannot be had"):
        open_checkpoint("lab/par ity..")


def test_an_unknown_id_without_relatives_says_so(hub):
    with pytest.raises(CheckpointError, match=r"Check the spelling. If it is private, set HF_TOKEN"):
        open_checkpoint("zzzzzzzz/qqqqqqqq")


def test_a_gated_checkpoint_says_how_to_get_in(hub, monkeypatch):
    hub.add("lab/gated", PARITY, is_gated=True)
    with pytest.raises(CheckpointError, match=r"got a gated one. Accept its licence .* set HF_TOKEN .*hf auth login"):
        open_checkpoint("lab/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_tester")
    with pytest.raises(CheckpointError, match=r"got a gated one"):
        read_header("lab/gated")
    hub.repositories["model", "lab/gated"].readers.add("tester")
    assert open_checkpoint("lab/gated").name == "gated"


def test_a_private_checkpoint_opens_with_a_token_only(hub, monkeypatch):
    hub.add("lab/secret", PARITY, is_private=True, readers={"tester"})
    with pytest.raises(CheckpointError, match=r"or is private\. .*If it is private, set HF_TOKEN"):
        open_checkpoint("lab/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_tester")
    assert open_checkpoint("lab/secret").name == "secret"


def test_a_revoked_token_is_left_out_with_a_warning(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    with pytest.warns(UserWarning, match=r"token is refused: .* Going on without it") as warned:
        checkpoint = open_checkpoint("lab/parity")
    assert checkpoint.name == "parity"
    assert not any("hf_revoked" in str(one.message) for one in warned)
    with pytest.warns(UserWarning, match="token is refused"):
        assert read_header("lab/parity").tensors


def test_a_transfer_that_breaks_at_half_goes_on_from_there(hub, monkeypatch):
    chunk = 1 << 14  # bytes; the client writes whole chunks, of 10 MB unless told
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", chunk)
    size = (PARITY / "model.safetensors").stat().st_size
    hub.breaks["model.safetensors"] = 2
    checkpoint = open_checkpoint("lab/parity")
    assert checkpoint.hash == open_checkpoint(str(PARITY)).hash
    ranges = hub.downloads("model.safetensors")
    assert ranges[0] is None
    assert len(ranges) == 3
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) for span in ranges[1:]]
    assert size // 2 - chunk < starts[0] < starts[1] < size
    assert hub.sent["model.safetensors"] < size + 2 * chunk, "no whole chunk is sent twice"


def test_a_transfer_that_never_ends_well_leaves_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.breaks["model.safetensors"] = 1000
    with pytest.raises(CheckpointError, match="cannot be had"):
        open_checkpoint("lab/parity")
    assert not list((tmp_path / "home").rglob("*.incomplete"))
    hub.breaks.clear()
    assert open_checkpoint("lab/parity").hash == open_checkpoint(str(PARITY)).hash


def test_a_slow_hub_is_waited_for(hub):
    hub.seconds_per_block = 0.02
    assert open_checkpoint("lab/parity").hash == open_checkpoint(str(PARITY)).hash


@pytest.mark.parametrize("how", ["offline mode", "no network", "a Hub that is down"])
def test_without_a_network_the_cache_serves_where_it_is_complete(hub, monkeypatch, how):
    hub.add("lab/loop", ZOO_FOLDER / "digits" / "checkpoints" / "loop")
    before = open_checkpoint("lab/parity").hash
    read_header("lab/loop")
    _cut(hub, monkeypatch, how)
    assert open_checkpoint("lab/parity").hash == before
    assert read_header("lab/parity").tensors
    for reference in ("lab/loop", "lab/never-seen", "lab/parity@v2"):
        with pytest.raises(CheckpointError, match=r"or a complete copy in the cache, got .* Check the connection"):
            open_checkpoint(reference)


def test_pickles_are_never_downloaded(hub, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(PARITY / "config.json", folder)
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    hub.add("lab/pickled", folder)
    for read in (read_header, open_checkpoint):
        with pytest.raises(
            CheckpointError, match=r'expected weights in safetensors, got pickled weights \("pytorch_mo'
        ):
            read("lab/pickled")
    assert not hub.downloads("pytorch_model.bin")


def test_files_that_are_not_needed_stay_where_they_are(hub, tmp_path):
    folder = shutil.copytree(PARITY, tmp_path / "more")
    for name in ("pytorch_model.bin", "modeling_own.py", "onnx/model.onnx", "onnx/config.json", "training_args.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"0" * 100)
    hub.add("lab/more", folder)
    checkpoint = open_checkpoint("lab/more")
    assert {path.name for path in checkpoint.folder.rglob("*")} == {path.name for path in PARITY.iterdir()}


def test_a_disk_too_small_is_seen_before_the_download(hub, monkeypatch):
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: expected 0.00 GB of free disk, .* set HF_HOME"):
        open_checkpoint("lab/parity")
    assert not hub.downloads("model.safetensors")


def test_a_disk_that_fills_up_leaves_nothing_half_written(hub, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(CheckpointError, match=r"got \"No space left on device\". Free some space, or set HF_HOME"):
        open_checkpoint("lab/parity")
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert not list((tmp_path / "home").rglob("*.incomplete"))


def test_a_repository_without_a_model_is_refused(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.add("lab/empty", tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"expected a file config.json, got \"README.md\""):
        read_header("lab/empty")
    with pytest.raises(CheckpointError, match=r"got no weights"):
        open_checkpoint("lab/empty")


def test_a_valid_token_warns_of_nothing(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_tester")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        open_checkpoint("lab/parity")


def _pinned(reference):
    """The reference with its commit, before anything is downloaded and after that."""
    commit = read_header(reference).commit
    open_checkpoint(reference)
    pinned = pinned_reference(reference)
    assert pinned.endswith(f"@{commit}")
    return pinned


def _cut(hub, monkeypatch, how):
    from huggingface_hub import constants

    if how == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "no network":
        hub.stop()
    else:
        hub.is_down = True
    assert "HF_HUB_OFFLINE" not in os.environ
