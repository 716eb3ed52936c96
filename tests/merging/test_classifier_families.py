"""Every family of classifiers goes from two checkpoints on disk through a merge, its scores and its export."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import merging
from merging.errors import CheckpointError
from merging.export import export
from tests import cases
from tests.families import family
from tests.merging.clip import moved
from tests.references import slow_predict

TEXTS = [
    ("the film is good", "i like the film"),
    ("a dull film", "the film is good and not dull at all"),
    ("not good", "not bad"),
    ("the very good film", "a film"),
    ("i like it", "i do not like it and the film is dull"),
    ("bad", "the film is bad"),
]
WORDS = sorted({word for pair in TEXTS for text in pair for word in re.findall(r"\S+", text)})
LABELS = {0: "other", 1: "same"}
# Longest text of the tiny models, with room for RoBERTa's offset.
MOST_TOKENS = 16


def bert_like(model: type, config: type, **settings: object) -> Callable[[int], torch.nn.Module]:
    """A builder of a text classifier with the vocabulary of `word_tokenizer`."""

    def build(_: int) -> torch.nn.Module:
        sizes = {"vocab_size": len(WORDS) + 4, "max_position_embeddings": 20, "pad_token_id": 0, **settings}
        return model(config(num_labels=2, id2label=LABELS, label2id={"other": 0, "same": 1}, **sizes))

    return build


SMALL = cases.TEXT
TEXT_FAMILIES = {
    "bert": bert_like(hf.BertForSequenceClassification, hf.BertConfig, **SMALL),
    "roberta": bert_like(hf.RobertaForSequenceClassification, hf.RobertaConfig, type_vocab_size=1, **SMALL),
    "distilbert": bert_like(
        hf.DistilBertForSequenceClassification, hf.DistilBertConfig, dim=16, n_layers=2, n_heads=2, hidden_dim=24
    ),
    "albert": bert_like(hf.AlbertForSequenceClassification, hf.AlbertConfig, embedding_size=8, **SMALL),
    "deberta-v2": bert_like(
        hf.DebertaV2ForSequenceClassification,
        hf.DebertaV2Config,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        **SMALL,
    ),
    "gpt2": bert_like(hf.GPT2ForSequenceClassification, hf.GPT2Config, n_positions=20, n_embd=16, n_layer=2, n_head=2),
}


def word_tokenizer(family_name: str) -> hf.PreTrainedTokenizerFast:
    """Words as tokens, with the special tokens of the family; GPT-2's has no padding token and marks no ends."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "<cls>", "<sep>", *WORDS])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if family_name == "gpt2":
        special = {"unk_token": "<unk>", "eos_token": "<sep>"}
    else:
        ends = [("<cls>", 2), ("<sep>", 3)]
        second = "1" if family_name in ("bert", "albert") else "0"
        pair = f"<cls> $A <sep> $B:{second} <sep>:{second}"
        built.post_processor = processors.TemplateProcessing(single="<cls> $A <sep>", pair=pair, special_tokens=ends)
        special = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>"}
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if family_name in ("bert", "albert") else [])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built, model_max_length=MOST_TOKENS, model_input_names=inputs, **special
    )


def write_texts(folder: Path) -> Path:
    """Pairs of texts as JSON lines, labels as words."""
    folder.mkdir()
    rows = [
        {"sentence1": one, "sentence2": two, "label": LABELS[index % 2]} for index, (one, two) in enumerate(2 * TEXTS)
    ]
    for split in ("fisher", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def write_images(folder: Path) -> Path:
    """Noise as parquet, labels as numbers."""
    import datasets

    folder.mkdir()
    noise = numpy.random.default_rng(0).integers(0, 255, (12, 8, 8), dtype=numpy.uint8)
    columns = {"image": [Image.fromarray(image) for image in noise], "label": [index % 2 for index in range(12)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for split in ("fisher", "validation", "test"):
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def write_text_checkpoint(folder: Path, name: str, seed: int) -> Path:
    """A random classifier of a family with its tokenizer."""
    torch.manual_seed(seed)
    moved(TEXT_FAMILIES[name](2), seed).save_pretrained(folder)
    word_tokenizer(name).save_pretrained(folder)
    return folder


def write_image_checkpoint(folder: Path, name: str, seed: int) -> Path:
    """A random classifier of a family with its image processor."""
    moved(family(name, 2), seed).save_pretrained(folder)
    kind = {"vit": hf.ViTImageProcessorPil, "deit": hf.DeiTImageProcessorPil}[name]
    kind(size={"height": 8, "width": 8}, do_center_crop=False, image_mean=[0.5], image_std=[0.5]).save_pretrained(
        folder
    )
    return folder


def recipe(checkpoints: list[Path], task: Path) -> dict[str, object]:
    """Equal weights, all of the task's rows."""
    entries = [{"checkpoint": str(folder), "task": str(task)} for folder in checkpoints]
    return {"version": 1, "models": entries, "fisher": {"examples": 6}, "device": "cpu"}


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
@pytest.mark.parametrize("name", [*TEXT_FAMILIES, "vit", "deit"])
def test_a_family_is_merged_scored_and_exported_with_its_own_head(name, tmp_path):
    is_text = name in TEXT_FAMILIES
    write = write_text_checkpoint if is_text else write_image_checkpoint
    folders = [write(tmp_path / f"model-{seed}", name, seed) for seed in (1, 2)]
    task = (write_texts if is_text else write_images)(tmp_path / "task")
    result = merging.run(recipe(folders, task))
    assert {score.n for own in result.scores.values() for score in own.values()} == {12}
    first = merging.open_checkpoint(str(folders[0]))
    batches = merging.open_task(str(task)).batches("test", first, batch_size=5)
    right = slow_predict(first.model(), batches).argmax(1) == torch.cat([one["labels"] for one in batches]).numpy()
    assert result.singles["model-1"]["task"].value == pytest.approx(right.mean())
    written = merging.open_checkpoint(str(export(result, tmp_path / "merged") / "model-1"))
    expected = result.predictions["fisher"]["task"].probabilities
    numpy.testing.assert_allclose(slow_predict(written.model(), batches), expected, atol=1e-5)


def test_gpt2_without_a_padding_token_anywhere_is_refused_in_words(tmp_path):
    folders = [write_text_checkpoint(tmp_path / f"model-{seed}", "gpt2", seed) for seed in (1, 2)]
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    with pytest.raises(CheckpointError, match=r'expected a padding token \("pad_token_id" in config.json\), got none'):
        merging.run(recipe(folders, write_texts(tmp_path / "task")))
