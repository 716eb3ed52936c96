"""Datasets of the Hub, by the real `datasets` client in a process of its own, from a Hub on loopback."""

import json
from pathlib import Path

import pytest

from tests.loopback_hub import Repository, _Handler, loopback_hub

# Reads a Python expression from its argument and prints what it gives, or the message of a TaskError.
CLIENT = """
import json, sys
from merging import open_task
from merging.errors import TaskError
from merging.summaries import describe_task
try:
    print(json.dumps(eval(sys.argv[1])))
except TaskError as problem:
    print(json.dumps(str(problem)))
"""
TASK = '{"dataset": "lab/sentences", "splits": {"fisher": "train", "test": "validation"}}'


def jsonl(folder: Path, splits: dict[str, list[dict]]) -> Path:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows(split: str, count: int, label: int | None = None) -> list[dict]:
    return [{"sentence": f"{split} {n}", "label": n % 2 if label is None else label} for n in range(count)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with datasets like GLUE's: the test split has no labels, one dataset has configurations."""
    folder = tmp_path_factory.mktemp("hub")
    splits = {"train": rows("train", 30), "validation": rows("validation", 6), "test": rows("test", 5, label=-1)}
    card = "---\nconfigs:\n- config_name: {}\n  data_files: {}\n- config_name: other\n  data_files: train.jsonl\n---\n"
    with loopback_hub(folder / "hub") as running:
        plain = jsonl(folder / "plain", splits)
        running.add("lab/sentences", plain, kind="dataset")
        running.add("lab/only-train", jsonl(folder / "one", {"train": rows("train", 30)}), kind="dataset")
        running.add("lab/gated", plain, kind="dataset", is_gated=True)
        running.add("lab/private", plain, kind="dataset", is_private=True, readers={"tester"})
        (plain / "README.md").write_text(card.format("first", "train.jsonl"))
        running.add("lab/many", plain, kind="dataset")
        yield running


@pytest.fixture
def ask(hub, tmp_path):
    def run(expression: str, **environment: str):
        done = hub.in_client(["-c", CLIENT, expression], tmp_path / "home", **environment)
        assert done.returncode == 0, done.stderr
        run.warnings = done.stderr
        return json.loads(done.stdout)

    return run


def test_a_dataset_by_id_has_its_splits_and_one_cut_for_validation(ask):
    found = ask(f"[open_task({TASK}).rows(split)['sentence'][:] for split in ('fisher', 'validation', 'test')]")
    assert [len(one) for one in found] == [24, 6, 6]
    assert sorted(found[0] + found[1]) == sorted(row["sentence"] for row in rows("train", 30))
    assert found[2] == [row["sentence"] for row in rows("validation", 6)]


def test_splits_and_columns_are_guessed_and_the_guess_opens(ask):
    look = "(lambda s: [s.reference, s.columns, s.inputs, s.label, s.parts, s.notes, len(s.examples), len(open_task(s.reference).rows('test'))])"
    reference, columns, inputs, label, parts, notes, shown, count = ask(
        f"{look}(describe_task({{'dataset': 'lab/sentences'}}))"
    )
    assert reference["splits"] == {"fisher": "train", "test": "validation"}
    assert columns == [["sentence", "text"], ["label", "number"]]
    assert (inputs, label, parts, shown, count) == (["sentence"], "label", ["train", "validation", "test"], 2, 6)
    assert "Splits are guessed" in notes[0]


def test_one_split_is_cut_into_three(ask):
    found = ask(
        "(lambda t: [len(t.rows(split)) for split in ('fisher', 'validation', 'test')])"
        "(open_task(describe_task({'dataset': 'lab/only-train'}).reference))"
    )
    assert found == [18, 6, 6]


def test_configurations_are_offered(ask):
    found = ask("(lambda s: [s.configs, s.columns, s.notes])(describe_task({'dataset': 'lab/many'}))")
    assert found == [["first", "other"], [], ["It has 2 configurations: pick one."]]
    message = ask("describe_task({'dataset': 'lab/many', 'config': 'firts'})")
    assert message == (
        'Dataset "lab/many" cannot be had: expected one of its configurations ("first", "other"), got "firts". '
        'Did you mean "first"?'
    )


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        ("lab/sentenses", "train", '"lab/sentences"? If it is private, set HF_TOKEN'),
        ("lab/private", "train", "or is private. "),
        ("lab/gated", "train", "got a gated one. Accept its licence on its page on the Hub, then set HF_TOKEN"),
        (
            "lab/sentences",
            "tran",
            'expected one of its splits ("test", "train", "validation"), got "tran". Did you mean "train"?',
        ),
        ("lab/sentences", "test", "has no labels: expected some in column"),
    ],
)
def test_what_cannot_be_had_says_how_to_go_on(ask, dataset, split, message):
    assert message in ask(
        f"len(open_task({{'dataset': '{dataset}', 'splits': {{'fisher': '{split}'}}}}).rows('fisher'))"
    )


def test_a_token_opens_what_is_private_and_a_revoked_one_is_left_out(ask):
    private = "len(open_task({'dataset': 'lab/private', 'splits': {'test': 'train'}}).rows('test'))"
    assert ask(f"len(open_task({TASK}).rows('test'))", HF_TOKEN="hf_revoked") == 6
    assert "Your Hugging Face token is refused" in ask.warnings
    assert "got one that does not exist, or is private" in ask(private, HF_TOKEN="hf_revoked")
    assert ask(private, HF_TOKEN="hf_tester") == 30


def test_without_a_network_the_cache_serves_and_else_the_message_says_so(ask):
    expression = f"len(open_task({TASK}).rows('test'))"
    assert ask(expression) == 6
    assert ask(expression, HF_HUB_OFFLINE="1") == 6
    other = expression.replace("lab/sentences", "lab/only-train")
    assert "Check the spelling and the connection" in ask(other, HF_HUB_OFFLINE="1")


def test_a_branch_that_moves_after_its_card_was_looked_at_is_not_followed(hub, ask, tmp_path, monkeypatch):
    first, second = (
        jsonl(tmp_path / own, {"train": rows(own, 30), "validation": rows(own, 6)}) for own in ("first", "second")
    )
    hub.add("lab/moving", first, kind="dataset")
    answer = _Handler._information

    def information(self, repository: Repository, sha: str) -> dict[str, object]:
        if repository.name == "lab/moving" and len(repository.commits) == 1:
            repository.commit(second)
        return answer(self, repository, sha)

    monkeypatch.setattr(_Handler, "_information", information)
    task = TASK.replace("lab/sentences", "lab/moving")
    assert ask(f"[row['sentence'] for row in open_task({task}).rows('test')]") == [f"first {n}" for n in range(6)]
