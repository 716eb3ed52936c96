"""What the tests run over: models, rules and settings, as tables."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch
import transformers as hf
from torch import Tensor, nn

import merging
from merging.recipe import EvaluationSettings, FisherSettings, Recipe

EXAMPLES = 16
BATCH_SIZES = (1, 3, 16)
VOCABULARY = 19
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


class Classifier(nn.Module):
    """A plain torch classifier with the interface of a Hugging Face one."""

    def __init__(self, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> SimpleNamespace:
        """Logits (N, K) of features (N, D)."""
        return SimpleNamespace(logits=self.head(x))


class Tied(Classifier):
    """Two hidden layers that share one weight."""

    def __init__(self, classes: int):
        super().__init__(first=nn.Linear(5, 5), second=nn.Linear(5, 5), head=nn.Linear(5, classes))
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> SimpleNamespace:
        """Logits (N, K) of features (N, 5)."""
        return SimpleNamespace(logits=self.head(torch.tanh(self.second(torch.tanh(self.first(x))))))


def softmax_regression(classes: int, features: int = 5) -> Classifier:
    """z = W x + b."""
    return Classifier(head=nn.Linear(features, classes))


def with_unused(classes: int) -> Classifier:
    """Softmax regression beside a layer that the logits do not depend on."""
    return Classifier(head=nn.Linear(5, classes), unused=nn.Linear(3, 2))


def bert(classes: int) -> nn.Module:
    config = hf.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=20, num_labels=classes, **TEXT)
    return hf.BertForSequenceClassification(config)


def roberta(classes: int) -> nn.Module:
    config = hf.RobertaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=20, pad_token_id=0, num_labels=classes, **TEXT
    )
    return hf.RobertaForSequenceClassification(config)


def distilbert(classes: int) -> nn.Module:
    config = hf.DistilBertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=20,
        dim=16,
        n_layers=2,
        n_heads=2,
        hidden_dim=24,
        num_labels=classes,
    )
    return hf.DistilBertForSequenceClassification(config)


def albert(classes: int) -> nn.Module:
    """Two layers that are one: every parameter of the block is used twice."""
    config = hf.AlbertConfig(
        vocab_size=VOCABULARY, embedding_size=8, max_position_embeddings=20, num_labels=classes, **TEXT
    )
    return hf.AlbertForSequenceClassification(config)


def gpt2(classes: int) -> nn.Module:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_positions=20, n_embd=16, n_layer=2, n_head=2, pad_token_id=0, num_labels=classes
    )
    return hf.GPT2ForSequenceClassification(config)


def vit(classes: int, width: int = 16) -> nn.Module:
    config = hf.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=classes, **{**TEXT, "hidden_size": width}
    )
    return hf.ViTForImageClassification(config)


# name -> (model, classes, kind of data)
MODELS: dict[str, tuple[Callable[[int], nn.Module], int, str]] = {
    "softmax-2": (softmax_regression, 2, "features"),
    "softmax-3": (softmax_regression, 3, "features"),
    "softmax-10": (softmax_regression, 10, "features"),
    "tied-3": (Tied, 3, "features"),
    "unused-2": (with_unused, 2, "features"),
    "bert-2": (bert, 2, "text"),
    "bert-10": (bert, 10, "text"),
    "roberta-3": (roberta, 3, "text"),
    "distilbert-2": (distilbert, 2, "text"),
    "albert-3": (albert, 3, "text"),
    "gpt2-2": (gpt2, 2, "text"),
    "gpt2-3": (gpt2, 3, "text"),
    "vit-2": (vit, 2, "images"),
    "vit-10": (vit, 10, "images"),
}
HUGGING_FACE = [name for name, (_, _, kind) in MODELS.items() if kind in ("text", "images")]


def model_case(name: str, seed: int = 0) -> nn.Module:
    """A model of the table; every parameter, biases and layer norms included, is moved off its first value."""
    build, classes, _ = MODELS[name]
    torch.manual_seed(seed)
    model = build(classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
    return model.eval()


def batches_for(name: str, batch_size: int, examples: int = EXAMPLES, seed: int = 0) -> list[dict[str, Tensor]]:
    """The same examples whatever the batch size; texts of 1 to 16 tokens with repeats, padded within their batch."""
    generator = torch.Generator().manual_seed(seed)
    kind = MODELS[name][2]
    if kind == "text":
        # The first is the longest, and one batch of 16 is as long as it is large.
        lengths = [max(1, EXAMPLES - 3 * index % EXAMPLES) for index in range(examples)]
        rows = [torch.randint(1, 9, (length,), generator=generator) for length in lengths]
        return [_padded(rows[start : start + batch_size]) for start in range(0, examples, batch_size)]
    shape = {"features": (5,), "images": (1, 8, 8)}[kind]
    data = torch.randn(examples, *shape, generator=generator)
    return [{"pixel_values" if kind == "images" else "x": part} for part in data.split(batch_size)]


def _padded(rows: list[Tensor]) -> dict[str, Tensor]:
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


# Weighted means of each coordinate; and what other rules do with it.
AVERAGES = ("isotropic", "fisher", "row")
PLAIN = ("isotropic", "fisher")
VECTORS = ("ugm", "task_arithmetic", "ties", "dare", "slerp")
LAYERS = ("kfac", "regmean", "regmean_weighted")
RULES = (*AVERAGES, *LAYERS, *VECTORS)
NORMALISATIONS = ("trace", "l2", "none")
ZERO_RULES = ("mean", "target", "base")


def quick_recipe(preset: str, **settings: object) -> Recipe:
    """A preset of the pool `digits` with 16 examples per Fisher, on the CPU."""
    recipe = merging.preset_recipe(merging.open_pool("digits"), preset, device="cpu")
    recipe = replace(recipe, fisher=FisherSettings(examples=16))
    return replace(recipe, **settings)


def two_tasks(**settings: object) -> Recipe:
    """The first two models of the four-task preset, evaluated on 40 rows."""
    recipe = quick_recipe("four-tasks", evaluation=EvaluationSettings(examples=40))
    return replace(recipe, **{"models": recipe.models[:2], **settings})
