"""T5 as a classifier: logits from label words, multi-token words, Fishers, merges, exports, and bad prompts."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import merging
from merging.checkpoints import open_checkpoint
from merging.errors import TaskError
from merging.export import export
from merging.families import fit_checkpoint, open_models
from merging.tasks import open_task
from merging.text_to_text import answer_tokens, prompted
from tests.merging.clip import moved
from tests.references import assert_same_fisher, slow_fisher, slow_predict

SPECIAL = ["<pad>", "</s>", "<unk>"]
WORDS = [*SPECIAL, *re.findall(r"\S+", "sentence : is it good bad not entailment the film a very ? fine dull")]
LABELS = {"one-word": ["bad", "good"], "many-words": ["very dull", "fine"], "prefix": ["entailment", "not", "not fine"]}
PROMPT = "is it good ? {sentence}"


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """One token for each of WORDS, and an end, as T5's own has it."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=32, **special)


def write_t5(folder: Path, seed: int) -> Path:
    """A tiny random T5 with its tokenizer."""
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2, "relative_attention_num_buckets": 8}
    torch.manual_seed(seed)
    config = hf.T5Config(vocab_size=len(WORDS), decoder_start_token_id=0, dropout_rate=0.0, **sizes)
    moved(hf.T5ForConditionalGeneration(config), seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_task(folder: Path, labels: list[str], prompt: str | None = PROMPT) -> Path:
    """Twelve short texts in every split, their labels as words."""
    folder.mkdir(parents=True)
    texts = [
        "the film is good",
        "a dull film",
        "very good",
        "the film is not fine",
        "bad",
        "it is a very very dull film",
    ]
    for split in ("fisher", "validation", "test"):
        rows = [{"sentence": text, "label": labels[index % len(labels)]} for index, text in enumerate(2 * texts)]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    about = {"labels": labels, **({"prompt": prompt} if prompt else {})}
    (folder / "task.yaml").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two T5s and a task for each set of labels."""
    root = tmp_path_factory.mktemp("t5")
    found = {name: write_t5(root / name, seed) for seed, name in enumerate(("first", "second"))}
    return found | {name: write_task(root / "tasks" / name, labels) for name, labels in LABELS.items()}


def opened(folders: dict[str, Path], labels: str):
    """The first T5's model for a task, and the task's test batches."""
    task = open_task(str(folders[labels]))
    checkpoint = fit_checkpoint(open_checkpoint(str(folders["first"])), task, None)
    (model,) = open_models([checkpoint], [task], "cpu")
    return model, task.batches("test", checkpoint, batch_size=5)


def recipe(folders: dict[str, Path], labels: str) -> dict[str, object]:
    """Both T5s on one task."""
    entries = [{"checkpoint": str(folders[name]), "task": str(folders[labels])} for name in ("first", "second")]
    return {"version": 1, "models": entries, "fisher": {"examples": 6}, "device": "cpu"}


@torch.no_grad()
@pytest.mark.parametrize("labels", LABELS)
def test_a_logit_is_the_log_probability_of_the_labels_words(folders, labels):
    """Beside T5's own loss for those words, one label and one example at a time."""
    model, batches = opened(folders, labels)
    whole, words = hf.T5ForConditionalGeneration.from_pretrained(folders["first"]).eval(), tokenizer()
    ends = labels == "prefix"
    for batch in batches:
        found = model(batch["input_ids"], batch["attention_mask"]).logits
        for row, length in enumerate(batch["attention_mask"].sum(1)):
            ids = batch["input_ids"][row : row + 1, :length]
            for column, name in enumerate(LABELS[labels]):
                answer = words(name, add_special_tokens=ends, return_tensors="pt")["input_ids"]
                loss = whole(input_ids=ids, labels=answer).loss
                torch.testing.assert_close(found[row, column], -loss * answer.shape[1], rtol=1e-4, atol=1e-4)


def test_an_end_is_asked_for_only_where_one_label_begins_another():
    assert answer_tokens(tokenizer(), LABELS["many-words"], reference="x") == [
        [WORDS.index("very"), WORDS.index("dull")],
        [WORDS.index("fine")],
    ]
    assert all(answer[-1] == 1 for answer in answer_tokens(tokenizer(), LABELS["prefix"], reference="x"))


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
@pytest.mark.parametrize("labels", ["one-word", "prefix"])
def test_the_fisher_over_label_words_is_the_slow_one(folders, labels):
    model, batches = opened(folders, labels)
    assert_same_fisher(merging.diagonal_fisher(model, batches, "exact"), slow_fisher(model, batches))


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
@pytest.mark.parametrize("labels", ["one-word", "many-words"])
def test_a_merge_runs_and_the_whole_model_is_its_body(folders, labels, tmp_path):
    result = merging.run(recipe(folders, labels))
    assert {score.n for own in result.scores.values() for score in own.values()} == {12}
    whole = hf.T5ForConditionalGeneration.from_pretrained(folders["first"])
    assert list(result.merged) == [f"language_model.{name}" for name, _ in whole.named_parameters()]
    model, batches = opened(folders, labels)
    right = slow_predict(model, batches).argmax(1) == torch.cat([one["labels"] for one in batches]).numpy()
    assert result.singles["first"][labels].value == pytest.approx(right.mean())
    written = hf.T5ForConditionalGeneration.from_pretrained(export(result, tmp_path / "merged"))
    for name, tensor in written.named_parameters():
        assert torch.equal(tensor, result.merged[f"language_model.{name}"])


def test_a_prompt_is_filled_with_the_columns():
    columns = {"premise": ["a b"], "hypothesis": ["c {x}"], "label": [0]}
    settings = {"inputs": ("premise", "hypothesis"), "reference": "x"}
    assert prompted(columns, "{hypothesis} of {premise}?", **settings) == ["c {x} of a b?"]
    assert prompted(columns, None, **settings) == ["premise: a b hypothesis: c {x}"]


@pytest.mark.parametrize("prompt", ["{sentense}", "is it good ?", "{sentence", "{}", "{sentence.x}"])
def test_a_prompt_that_names_no_column_is_refused(folders, tmp_path, prompt):
    task = write_task(tmp_path / "task", LABELS["one-word"], prompt)
    with pytest.raises(TaskError, match="has a prompt that"):
        merging.run(recipe({**folders, "one-word": task}, "one-word"))


def test_labels_that_the_tokenizer_does_not_know_are_refused(folders, tmp_path):
    task = write_task(tmp_path / "task", ["bad", "splendid"])
    with pytest.raises(TaskError, match='got unknown words in "splendid"'):
        merging.run(recipe({**folders, "one-word": task}, "one-word"))
