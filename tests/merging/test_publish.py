"""From the Hub and back to it, by the real clients and a Hub on loopback; and what a push refuses."""

import json
import shutil

import pytest
import torch
import yaml

import merging
from merging.__main__ import main
from merging.errors import ExportError
from merging.publish import push
from merging.zoo import ZOO_FOLDER
from tests.loopback_hub import loopback_hub

DIGITS = ZOO_FOLDER / "digits"
TOKEN = "hf_tester"


@pytest.fixture
def exported(tmp_path):
    """A folder as an export leaves it."""
    folder = shutil.copytree(DIGITS / "checkpoints" / "parity", tmp_path / "merged")
    (folder / "recipe.yaml").write_text("version: 1\n")
    (folder / "scores.json").write_text("{}")
    (folder / "README.md").write_text("---\nlibrary_name: transformers\ntags: [merge, fisher-merging]\n---\n# Merged\n")
    shutil.copytree(DIGITS / "checkpoints" / "loop", folder / "loop")
    (folder / ".hidden").write_text("not to be sent")
    return folder


def pushed_files(hub, name):
    repository = hub.repositories["model", name]
    return {entry["path"] for entry in repository.files(repository.refs["main"])}


def test_by_id_merged_pushed_back_and_opened_again(tmp_path):
    """Two checkpoints and a dataset by id, merged and pushed back on the command line, opened with `from_pretrained`."""
    with loopback_hub(tmp_path / "hub") as hub:
        data = tmp_path / "data"
        data.mkdir()
        shutil.copy(DIGITS / "data" / "digits" / "fisher.parquet", data / "train.parquet")
        shutil.copy(DIGITS / "data" / "digits" / "test.parquet", data / "test.parquet")
        hub.add("lab/digits", data, kind="dataset")
        for name in ("parity", "loop"):
            hub.add(f"lab/{name}", DIGITS / "checkpoints" / name)
        task = {"dataset": "lab/digits", "splits": {"fisher": "train", "test": "test"}, "image": "image"}
        recipe = {
            "version": 1,
            "models": [
                {"checkpoint": "lab/parity", "task": {**task, "label": "parity", "labels": ["even", "odd"]}},
                {"checkpoint": "lab/loop", "task": {**task, "label": "loop"}},
            ],
            "fisher": {"examples": 32},
            "evaluation": {"examples": 40},
            "device": "cpu",
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        home, out = tmp_path / "home", tmp_path / "out"
        settings = {"HF_TOKEN": TOKEN, "FISHER_CACHE_DIR": str(tmp_path / "fishers")}
        command = ["-m", "merging", "run", str(tmp_path / "recipe.yaml"), "--output", str(out), "--json"]
        ran = hub.in_client(command, home, **settings)
        assert ran.returncode == 0, ran.stderr
        assert set(json.loads(ran.stdout)["scores"]) >= {"fisher", "isotropic"}
        pinned = merging.Recipe.load(out / "recipe.yaml").models
        commits = [hub.repositories["model", f"lab/{name}"].refs["main"] for name in ("parity", "loop")]
        assert [model.checkpoint for model in pinned] == [f"lab/parity@{commits[0]}", f"lab/loop@{commits[1]}"]
        sent = hub.in_client(["-m", "merging", "push", str(out), "tester/merged"], home, **settings)
        assert sent.returncode == 0, sent.stderr
        assert sent.stdout.strip() == f"{hub.endpoint}/tester/merged"
        assert TOKEN not in ran.stdout + ran.stderr + sent.stdout + sent.stderr
        assert hub.repositories["model", "tester/merged"].is_private
        assert pushed_files(hub, "tester/merged") == {
            path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
        }
        again = hub.in_client(["-m", "merging", "push", str(out), "tester/merged"], home, **settings)
        assert again.returncode == 0, "the card of an export carries the mark of this tool"
        heads = [folder.name for folder in out.iterdir() if folder.is_dir()]
        assert len(heads) == 2
        opened = hub.in_client(["-c", OPEN, *heads], tmp_path / "other-home", HF_TOKEN=TOKEN)
        assert opened.returncode == 0, opened.stderr
        logits = json.loads(opened.stdout.splitlines()[-1])
    import transformers

    for head in heads:
        local = transformers.AutoModelForImageClassification.from_pretrained(out / head).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            expected = local(torch.rand(3, 1, 16, 16)).logits
        assert torch.equal(torch.tensor(logits[head]), expected), "bit for bit"


OPEN = """
import json, sys, torch, transformers
logits = {}
for head in sys.argv[1:]:
    model = transformers.AutoModelForImageClassification.from_pretrained("tester/merged", subfolder=head).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        logits[head] = model(torch.rand(3, 1, 16, 16)).logits.tolist()
print(json.dumps(logits))
"""


def test_a_push_makes_a_private_repository_with_every_file(hub, exported):
    assert push(exported, "tester/merged", token=TOKEN) == f"{hub.endpoint}/tester/merged"
    repository = hub.repositories["model", "tester/merged"]
    assert repository.is_private
    assert pushed_files(hub, "tester/merged") == {
        path.relative_to(exported).as_posix()
        for path in exported.rglob("*")
        if path.is_file() and path.name != ".hidden"
    }
    there = repository.commits[repository.refs["main"]]
    assert (there / "loop" / "model.safetensors").read_bytes() == (exported / "loop" / "model.safetensors").read_bytes()


def test_a_public_push_says_so(hub, exported):
    push(exported, "tester/merged", token=TOKEN, private=False)
    assert not hub.repositories["model", "tester/merged"].is_private
    with pytest.raises(ExportError, match=r"expected a private repository, got one that is open to all"):
        push(exported, "tester/merged", token=TOKEN)
    push(exported, "tester/merged", token=TOKEN, private=False)


def test_pushing_again_replaces_weights_and_keeps_what_others_added(hub, exported, tmp_path):
    push(exported, "tester/merged", token=TOKEN)
    added = shutil.copytree(_newest(hub, "tester/merged"), tmp_path / "added")
    (added / "picture.png").write_bytes(b"1")
    (added / "model-00002-of-00002.safetensors").write_bytes(b"old")
    hub.add("tester/merged", added)
    (exported / "scores.json").write_text('{"new": 1}')
    push(exported, "tester/merged", token=TOKEN)
    files = pushed_files(hub, "tester/merged")
    assert "picture.png" in files
    assert "model-00002-of-00002.safetensors" not in files
    assert (_newest(hub, "tester/merged") / "scores.json").read_text() == '{"new": 1}'


def test_a_repository_that_this_tool_did_not_make_is_left_alone(hub, exported):
    before = hub.add("tester/own", DIGITS / "checkpoints" / "parity", is_private=True, readers={"tester"}).refs["main"]
    with pytest.raises(ExportError, match=r"or one that an earlier push made .* got one with other content"):
        push(exported, "tester/own", token=TOKEN)
    assert hub.repositories["model", "tester/own"].refs["main"] == before
    assert all(method in ("GET", "HEAD") for method, _, _ in hub.requests)


@pytest.mark.parametrize("token", [None, "hf_revoked"])
def test_without_a_good_token_it_says_how_to_log_in(hub, exported, token):
    with pytest.raises(ExportError, match=r"expected a token that may write there.*write access to tester") as refused:
        push(exported, "tester/merged", token=token)
    assert "hf_revoked" not in str(refused.value)
    assert not hub.repositories


def test_somebody_elses_name_is_refused(hub, exported):
    with pytest.raises(ExportError, match=r"expected a token that may write there"):
        push(exported, "others/merged", token=TOKEN)


@pytest.mark.parametrize("name", ["merged", "a/b/c", "tester/mer ged", "/merged"])
def test_a_name_that_no_repository_can_have_is_refused(hub, exported, name):
    with pytest.raises(ExportError, match=r"is no name for a repository: expected ORG/NAME"):
        push(exported, name, token=TOKEN)
    assert not hub.requests


def test_only_exported_folders_are_pushed(hub, exported):
    (exported / "recipe.yaml").unlink()
    with pytest.raises(ExportError, match=r'one without "recipe.yaml". Export the merged model first'):
        push(exported, "tester/merged", token=TOKEN)
    assert not hub.requests


def test_an_upload_that_breaks_can_be_pushed_again(hub, exported, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("huggingface_hub._commit_api.lfs_upload", _break)
        with pytest.raises(ExportError, match=r'got "the line went dead". Push again'):
            push(exported, "tester/merged", token=TOKEN)
    assert pushed_files(hub, "tester/merged") == {"recipe.yaml", "README.md"}
    push(exported, "tester/merged", token=TOKEN)
    assert "model.safetensors" in pushed_files(hub, "tester/merged")


def test_without_a_network_it_says_so(hub, exported):
    hub.stop()
    with pytest.raises(ExportError, match=r"expected an upload to the Hub, got "):
        push(exported, "tester/merged", token=TOKEN)


def test_the_command_line_pushes_and_refuses(hub, exported, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["push", str(exported), "tester/merged", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == f"{hub.endpoint}/tester/merged"
    assert main(["push", str(exported.parent), "tester/merged"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cannot be pushed: expected a folder that was exported" in shown.err


def _newest(hub, name):
    repository = hub.repositories["model", name]
    return repository.commits[repository.refs["main"]]


def _break(**settings):
    raise OSError("the line went dead")
