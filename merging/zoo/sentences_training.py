"""How one checkpoint of the sentences pool is trained: architecture, tokenizer, loss, saving."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from merging.zoo.sentences_data import SentenceRows
from merging.zoo.sentences_grammar import vocabulary
from merging.zoo.training import fit, run_seed

PAD, UNKNOWN, SEPARATOR, END = "<pad>", "<unk>", "<sep>", "<end>"
MOST_TOKENS = 40


@dataclass(frozen=True)
class TrainingRun:
    """Everything that decides one training, given its start and its rows."""

    name: str
    task: str
    epochs: int
    peak_learning_rate: float


def create_tokenizer() -> PreTrainedTokenizerFast:
    """Every word of the grammar is a token; a text ends in `<end>`, and `<sep>` stands between the texts of a pair."""
    words = {word: index for index, word in enumerate([PAD, UNKNOWN, SEPARATOR, END, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A {SEPARATOR} $B {END}",
        special_tokens=[(SEPARATOR, words[SEPARATOR]), (END, words[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        sep_token=SEPARATOR,
        eos_token=END,
        model_max_length=MOST_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


TOKENIZER = create_tokenizer()


def create_config(labels: tuple[str, ...]) -> GPT2Config:
    """Width 64, 3 layers, 4 heads, FFN 128, no dropout.

    The first weights deviate by .08: with GPT-2's .02, meant for widths of 768 and more, words are told apart late.
    """
    return GPT2Config(
        vocab_size=len(TOKENIZER),
        n_positions=MOST_TOKENS,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_inner=128,
        # GPT-2's own "gelu_new" is the same function in five steps instead of one.
        activation_function="gelu_pytorch_tanh",
        initializer_range=0.08,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=TOKENIZER.eos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        pad_token_id=TOKENIZER.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )


def tokens_of(texts: list[tuple[str, ...]]) -> dict[str, Tensor]:
    """Token ids and attention mask (rows, tokens), padded on the right."""
    encoded = [TOKENIZER(*row)["input_ids"] for row in texts]
    return dict(TOKENIZER.pad({"input_ids": encoded}, return_tensors="pt"))


def train(
    run: TrainingRun, rows: SentenceRows, *, labels: tuple[str, ...], start: nn.Module | None, seed: int
) -> GPT2ForSequenceClassification:
    """Train from the body of `start` (or from scratch) and a new head, whose logits begin at about unit variance.

    Fresh weights follow from `seed` and the run's task, so that heads of one task can be merged; the order of the rows
    follows from `seed` and the run's name. The global generator stays untouched.
    """
    config = create_config(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run_seed(seed, run.task))
        model = GPT2ForSequenceClassification(config)
        nn.init.normal_(model.score.weight, std=config.n_embd**-0.5)
    if start is not None:
        model.transformer.load_state_dict(start.transformer.state_dict())
    tokens, targets = tokens_of(rows.texts), torch.tensor(rows.labels)

    def loss_of(batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(**_without_padding(tokens, batch)).logits, targets[batch])

    return fit(
        model,
        loss_of,
        len(targets),
        generator=torch.Generator().manual_seed(run_seed(seed, run.name)),
        epochs=run.epochs,
        peak_learning_rate=run.peak_learning_rate,
    )


@torch.no_grad()
def accuracy(model: nn.Module, rows: SentenceRows) -> float:
    """The share of rows whose most probable label is the right one."""
    predicted = model(**tokens_of(rows.texts)).logits.argmax(dim=-1)
    return float((predicted == torch.tensor(rows.labels)).float().mean())


def save(model: nn.Module, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer."""
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)


def _without_padding(tokens: Mapping[str, Tensor], batch: Tensor) -> dict[str, Tensor]:
    """The rows of a batch, as wide as its longest text."""
    width = int(tokens["attention_mask"][batch].sum(dim=1).max())
    return {name: values[batch, :width] for name, values in tokens.items()}
