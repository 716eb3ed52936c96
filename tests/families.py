"""Models of many families, tiny and random, and their data: what must hold for every architecture runs over FAMILIES."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import torch
import transformers as hf
from torch import Tensor, nn

from tests import cases, handmade

Build = Callable[[int], nn.Module]

WORDS = {**cases.TEXT, "vocab_size": cases.VOCABULARY, "max_position_embeddings": 20}
# Where layers do not differ and share nothing, a second one is only slower.
ONE_LAYER = {"num_hidden_layers": 1}
DECODER = {**WORDS, "num_key_value_heads": 1, "pad_token_id": 0, **ONE_LAYER}
IMAGES = {"image_size": 8, "num_channels": 1}
PATCHES = {**cases.TEXT, **IMAGES, "patch_size": 4, **ONE_LAYER}
RELATIVE = {
    **WORDS,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 2,
}


def _texts(name: str, **settings: object) -> Build:
    return _classifier(name, "Sequence", settings)


def _images(name: str, **settings: object) -> Build:
    return _classifier(name, "Image", settings)


def _classifier(name: str, kind: str, settings: dict[str, object]) -> Build:
    def build(classes: int) -> nn.Module:
        config = getattr(hf, f"{name}Config")(num_labels=classes, **settings)
        return getattr(hf, f"{name}For{kind}Classification")(config)

    return build


class EncoderOfT5(nn.Module):
    """T5's encoder, averaged over the real tokens: its own classifier needs the decoder's words."""

    def __init__(self, classes: int):
        super().__init__()
        sizes = {"vocab_size": cases.VOCABULARY, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        self.encoder = hf.T5EncoderModel(hf.T5Config(**sizes, relative_attention_num_buckets=8))
        self.head = nn.Linear(16, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Logits (N, K)."""
        states = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask[..., None].to(states.dtype)
        return SimpleNamespace(logits=self.head((states * real).sum(1) / real.sum(1)))


def gpt2_language_model(classes: int = cases.VOCABULARY) -> nn.Module:
    """GPT-2 with its head tied to its word embedding; logits (N, T, K)."""
    sizes = {"n_positions": 20, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=classes, bos_token_id=0, eos_token_id=0, **sizes))


def llama_language_model(classes: int = cases.VOCABULARY) -> nn.Module:
    """Llama with a head of its own; logits (N, T, K)."""
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**DECODER, "vocab_size": classes}, tie_word_embeddings=False))


class Prompted(nn.Module):
    """A language model's next word as the label; embedding of words, of segments and head are one weight."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes, self.words = classes, gpt2_language_model()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> SimpleNamespace:
        """Logits (N, K) of the first K words, behind the last real token."""
        logits = self.words(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits
        last = attention_mask.sum(1) - 1
        return SimpleNamespace(logits=logits[torch.arange(len(last)), last, : self.classes])


# name -> (model of K classes, kind of data)
FAMILIES: dict[str, tuple[Build, str]] = {
    "bert": (cases.bert, "segments"),
    "roberta": (cases.roberta, "text"),
    "distilbert": (cases.distilbert, "text"),
    "albert": (cases.albert, "segments"),
    "electra": (_texts("Electra", embedding_size=8, **{**WORDS, **ONE_LAYER}), "segments"),
    "deberta": (
        _texts("DebertaV2", position_buckets=4, share_att_key=True, conv_kernel_size=3, **RELATIVE),
        "segments",
    ),
    "deberta-apart": (
        _texts("DebertaV2", max_relative_positions=5, conv_kernel_size=0, **{**RELATIVE, **ONE_LAYER}),
        "segments",
    ),
    "modernbert": (_texts("ModernBert", pad_token_id=0, local_attention=4, **WORDS), "text"),
    "mpnet": (_texts("MPNet", **{**WORDS, **ONE_LAYER}), "text"),
    "t5": (EncoderOfT5, "text"),
    "gpt2": (cases.gpt2, "text"),
    "gpt2-prompted": (Prompted, "segments"),
    "llama": (_texts("Llama", **DECODER), "text"),
    "qwen2": (_texts("Qwen2", **DECODER), "text"),
    "qwen3": (_texts("Qwen3", head_dim=8, **DECODER), "text"),
    "mixtral": (
        _texts("Mixtral", num_local_experts=3, num_experts_per_tok=2, experts_implementation="eager", **DECODER),
        "text",
    ),
    "vit": (cases.vit, "images"),
    "deit": (_images("DeiT", **PATCHES), "images"),
    "clip": (_images("CLIP", vision_config=PATCHES), "images"),
    "swin": (
        _images("Swin", patch_size=1, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=4, **IMAGES),
        "images",
    ),
    "resnet": (
        _images("ResNet", num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 2], layer_type="basic"),
        "images",
    ),
    "convnext": (
        _images("ConvNext", num_channels=1, patch_size=2, hidden_sizes=[4, 8], depths=[1, 1], num_stages=2),
        "images",
    ),
    "bare": (handmade.Bare, "text"),
    "bias-table": (handmade.BiasTable, "text"),
    "borrowed": (handmade.Borrowed, "text"),
    "both-ways": (handmade.BothWays, "text"),
    "attention": (handmade.Attention, "text"),
    "encoder-layer": (handmade.EncoderLayer, "text"),
    "seq-first": (handmade.SeqFirst, "text"),
    "recurrent": (handmade.Recurrent, "text"),
    "lengths": (handmade.Lengths, "text"),
    "packed": (handmade.Packed, "text"),
    "in-place": (handmade.InPlace, "text"),
    "arguments": (handmade.Arguments, "text"),
    "convolved": (handmade.Convolved, "text"),
    "convolutions": (handmade.convolutions, "images"),
    "norms": (handmade.norms, "images"),
    "overwritten": (handmade.overwritten, "images"),
    "others": (handmade.Others, "features"),
}
LANGUAGE_MODELS: dict[str, Build] = {"gpt2-lm": gpt2_language_model, "llama-lm": llama_language_model}
CLASSES = (1, 2, 3, 10)
# These compute norms, rotations, routes or their loss in float32, whatever their weights are.
FLOAT32_INSIDE = ("gpt2-lm", "llama", "llama-lm", "mixtral", "modernbert", "qwen2", "qwen3", "t5")
_SAME_DATA = {"text": "bert-2", "segments": "bert-2", "images": "vit-2", "features": "softmax-2"}


def family(name: str, classes: int) -> nn.Module:
    """A model of the table in evaluation mode."""
    return moved(FAMILIES[name][0], classes)


def moved(build: Build, classes: int, seed: int = 4) -> nn.Module:
    """A model, its parameters and running statistics off their first values, in evaluation mode."""
    # With other seeds attention is now and then so sharp that float32 alone is 1e-5 off; here it is 3e-6 at most.
    torch.manual_seed(seed)
    model = build(classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
        for name, statistic in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.add_(0.5 * torch.rand_like(statistic))
    return model.eval()


def batches_for(name: str, batch_size: int) -> list[dict[str, Tensor]]:
    """16 examples, the same whatever the batch size; texts of 1 to 16 tokens with repeats and ragged padding."""
    kind = FAMILIES[name][1]
    batches = cases.batches_for(_SAME_DATA[kind], batch_size)
    if kind == "segments":
        for batch in batches:
            batch["token_type_ids"] = (batch["input_ids"] > 4).long()
    return batches


def uneven_batches_for(name: str) -> list[dict[str, Tensor]]:
    """The same 16 examples, one of them alone and then 15 together, of 15 and fewer tokens."""
    (batch,) = batches_for(name, 16)
    return [rows_of(batch, slice(0, 1)), rows_of(batch, slice(1, None))]


def language_batches(batch_size: int) -> list[dict[str, Tensor]]:
    """15 texts of 2 to 16 tokens, each its own labels: a language model says nothing about the first token."""
    (batch,) = batches_for("gpt2", 16)
    batch = rows_of(batch, batch["attention_mask"].sum(1) > 1)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return [rows_of(batch, slice(start, start + batch_size)) for start in range(0, 15, batch_size)]


def rows_of(batch: dict[str, Tensor], rows: slice | Tensor) -> dict[str, Tensor]:
    """Some examples of a batch, with no more padding than they need."""
    longest = int(batch["attention_mask"][rows].sum(1).max()) if "attention_mask" in batch else None
    return {name: value[rows] if longest is None else value[rows, :longest] for name, value in batch.items()}


def float64_throughout(name: str) -> AbstractContextManager[None]:
    """Where a double-precision model of this family computes every step in double precision."""
    return _double_for_float() if name in FLOAT32_INSIDE else nullcontext()


@contextmanager
def _double_for_float() -> Iterator[None]:
    # Not a TorchFunctionMode: that does not reach hooks of the backward pass.
    to = torch.Tensor.to

    def to_float64(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        args = [torch.float64 if value is torch.float32 else value for value in args]
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in kwargs.items()}
        return to(tensor, *args, **kwargs)

    with patch.object(torch.Tensor, "to", to_float64), patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield
