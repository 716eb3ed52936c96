"""Per-example squared gradients: this engine and other libraries, in time, memory and error.

`python -m tests.benchmarks.fisher` prints one Markdown table; tests/benchmarks/peers.txt says how to install the others, and
one that is not installed or does not run is a row with its reason. Ratios are to the limit, one plain forward and backward of
the same batch to the gradients of all parameters, in turns with the method in one process, in CPU seconds (GPU: seconds).
Models are untrained Hugging Face ones without dropout, so that Opacus, which needs train(), computes the same as the others.
Memory is the peak above what was there before the method began. Errors are relative L2 against float64, one example and one
label at a time, on the first examples of the batch: over all parameters, and for the worst tensor.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TQDM_DISABLE", "1")

import argparse
import copy
import ctypes
import gc
import logging
import resource
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from tests.benchmarks.fisher_peers import PEERS, Peer

TRUTH_EXAMPLES = 4
# A tensor this much smaller than the largest is zero in mathematics (key biases): both sides are rounding noise.
NOISE = 1e-9
SHAPES = {
    "tiny": dict(model_type="bert", vocab_size=128, hidden_size=32, num_hidden_layers=2, intermediate_size=64),
    "small": dict(model_type="bert", hidden_size=256, num_hidden_layers=4, intermediate_size=1024),
    "base": dict(model_type="bert", hidden_size=768, num_hidden_layers=12, intermediate_size=3072),
    "gpt2": dict(model_type="gpt2"),
    # 64 patches and the class token.
    "vit": dict(model_type="vit", hidden_size=384, num_hidden_layers=6, intermediate_size=1536, patch_size=4),
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "embd_pdrop", "attn_pdrop", "resid_pdrop")
COLUMNS = ("method", "labels", "ratio, minimum", "ratio, median", "runs", "peak MB", "error", "worst tensor", "remarks")


def main() -> None:
    """Measures and prints Markdown, a row as soon as it is there."""
    options = _options()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    if options.device == "cpu":
        # What does not fit becomes a row with its reason instead of a killed process.
        free = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * free), resource.getrlimit(resource.RLIMIT_DATA)[1]))
    settings = {options.classes: (setting := Setting(options, options.classes))}
    print(_header(options) + "\n")
    _print(COLUMNS)
    _print(["---"] * len(COLUMNS))
    limit = f"{1000 * setting.limit_seconds:.1f} ms"
    _print(["limit: forward, backward", "one", "1", "1", "", f"{setting.limit_megabytes:.0f}", "", "", limit])
    for name, (peer, *kinds) in PEERS.items():
        if options.only and not any(part.lower() in name.lower() for part in options.only):
            continue
        for labels, classes in dict.fromkeys((labels, classes or options.classes) for labels, classes in kinds):
            if classes not in settings:
                settings[classes] = Setting(options, classes)
            title = (name, "one" if labels == "empirical" else f"{labels}, K={classes}")
            try:
                _print([*title, *settings[classes].measured(peer, labels)])
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                _print([*title, *["–"] * 6, f"{type(error).__name__}: {lines[0][:160]}".replace("|", "\\|")])


class Setting:
    """A model, a batch, the true squared gradients and the limit, for one number of classes."""

    def __init__(self, options: argparse.Namespace, classes: int) -> None:
        self.options = options
        self.model = _model(options.shape, classes).to(options.device, getattr(torch, options.dtype))
        self.inputs, self.targets = _batch(self.model, options, classes)
        self.few = {name: value[:TRUTH_EXAMPLES] for name, value in self.inputs.items()}
        self.truth = true_sums(self.model, self.few, self.targets[:TRUTH_EXAMPLES])
        self.limit_model = copy.deepcopy(self.model)
        self.limit()
        self.limit_model.zero_grad()
        # .grad stays allocated from here on, before any method's memory is measured.
        self.limit_megabytes = self._peak_megabytes(self.limit, self._megabytes())
        self.limit_seconds = min(self._seconds(self.limit) for _ in range(3))

    def limit(self) -> None:
        """One plain forward and backward."""
        F.cross_entropy(self.limit_model(**self.inputs).logits, self.targets).backward()

    def measured(self, peer: Peer, labels: str) -> list[str]:
        """The cells of a row, from two sessions of the method: one for the error, one for memory and time."""
        # The first ends in a function of its own: what it leaves behind must not count as there before the second.
        total, worst, remark = self._errors(peer, labels)
        model = copy.deepcopy(self.model)
        before = self._megabytes()
        with contextmanager(peer)(model, labels) as add:

            def method() -> None:
                add(self.inputs, self.targets)

            method()
            peak = self._peak_megabytes(method, before)
            limits, methods, started = [], [], time.perf_counter()
            while len(limits) < self.options.repeats and time.perf_counter() - started < self.options.seconds:
                limits.append(self._seconds(self.limit))
                methods.append(self._seconds(method))
        ratio = min(methods) / min(limits)
        middle = median(mine / plain for mine, plain in zip(methods, limits, strict=True))
        times = [f"{ratio:.2f}", f"{middle:.2f}", str(len(limits))]
        return [*times, f"{max(peak, 0):.0f}", f"{total:.1e}", f"{worst:.1e}", remark]

    def _errors(self, peer: Peer, labels: str) -> tuple[float, float, str]:
        with contextmanager(peer)(copy.deepcopy(self.model), labels) as add:
            total, worst, remark = errors(add(self.few, self.targets[:TRUTH_EXAMPLES]), self.truth[labels])
            return total, worst, getattr(add, "remark", "") or remark

    def _seconds(self, call: Callable[[], None]) -> float:
        on_cpu = self.options.device == "cpu"
        clock, wait = (time.process_time, lambda: None) if on_cpu else (time.perf_counter, torch.cuda.synchronize)
        wait()
        started = clock()
        call()
        wait()
        return clock() - started

    def _megabytes(self, key: str = "VmRSS:") -> float:
        gc.collect()
        if self.options.device == "cuda":
            return torch.cuda.memory_allocated() / 1e6
        ctypes.CDLL(None).malloc_trim(0)
        return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) * 1024 / 1e6

    def _peak_megabytes(self, call: Callable[[], None], before: float) -> float:
        self._megabytes()
        if self.options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            call()
            return torch.cuda.max_memory_allocated() / 1e6 - before
        Path("/proc/self/clear_refs").write_text("5")
        call()
        return self._megabytes("VmHWM:") - before


def true_sums(model: nn.Module, inputs: dict[str, Tensor], targets: Tensor) -> dict[str, dict[str, Tensor]]:
    """Σ_examples (∂ log p(y|x)/∂θ)² in float64 for the given labels, and its expectation over all labels."""
    model = copy.deepcopy(model).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    one, exact = ({name: torch.zeros_like(value) for name, value in model.named_parameters()} for _ in range(2))
    for index, target in enumerate(targets.tolist()):
        example = {name: value[index : index + 1] for name, value in inputs.items()}
        example = {name: value.double() if value.is_floating_point() else value for name, value in example.items()}
        logs = model(**example).logits.log_softmax(1)[0]
        for label, log in enumerate(logs):
            gradients = torch.autograd.grad(log, parameters, retain_graph=label + 1 < len(logs))
            for name, gradient in zip(names, gradients, strict=True):
                exact[name].addcmul_(gradient, gradient, value=log.exp().item())
                if label == target:
                    one[name].addcmul_(gradient, gradient)
    return {"empirical": one, "exact": exact, "rademacher": exact}


def errors(sums: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[float, float, str]:
    """Relative L2 over all parameters and of the worst tensor, and a remark on what is missing or wrong."""
    rms = {name: value.square().mean().sqrt().item() for name, value in truth.items()}
    kept = [name for name in truth if rms[name] > NOISE * max(rms.values())]
    missing = [name for name in kept if name not in sums]
    off, size = {}, {}
    for name in kept:
        off[name] = (
            (sums[name].to(truth[name]) - truth[name]).norm().item() if name in sums else truth[name].norm().item()
        )
        size[name] = truth[name].norm().item()
    worst = max(kept, key=lambda name: off[name] / size[name])
    total = sum(value**2 for value in off.values()) ** 0.5 / sum(value**2 for value in size.values()) ** 0.5
    remark = f"worst: {worst.removesuffix('.weight')}" if off[worst] > 0.01 * size[worst] else ""
    return total, off[worst] / size[worst], f"{len(missing)} tensors missing" if missing else remark


def _model(shape: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = SHAPES[shape] | dict(num_attention_heads=max(2, SHAPES[shape].get("hidden_size", 768) // 64), image_size=32)
    settings = dict(num_labels=classes, pad_token_id=0, use_cache=False, **dict.fromkeys(DROPOUTS, 0.0))
    config = transformers.AutoConfig.for_model(**sizes, **settings)
    auto = "AutoModelForImageClassification" if shape == "vit" else "AutoModelForSequenceClassification"
    model = getattr(transformers, auto).from_config(config, attn_implementation="sdpa").eval()
    # An untrained head gives equal probabilities, where FusionBench's formula vanishes; a trained one does not.
    list(model.children())[-1].weight.data.mul_(10)
    return model


def _batch(model: nn.Module, options: argparse.Namespace, classes: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    count, tokens = options.batch, options.tokens
    targets = torch.randint(classes, (count,), generator=generator).to(options.device)
    if options.shape == "vit":
        pixels = torch.randn(count, 3, 32, 32, generator=generator)
        return {"pixel_values": pixels.to(model.device, model.dtype)}, targets
    # Like words: the r-th most frequent id has frequency 1/r, so that ids repeat inside an example.
    frequencies = 1 / torch.arange(1, model.config.vocab_size, dtype=torch.float64)
    ids = 1 + torch.multinomial(frequencies, count * tokens, replacement=True, generator=generator).view(count, tokens)
    # Evenly spread, so that one draw is neither nearly full nor nearly empty by luck.
    lengths = torch.linspace(tokens // 2 if options.padding else tokens, tokens, count).round()
    mask = torch.arange(tokens) < lengths[torch.randperm(count, generator=generator), None]
    return {"input_ids": (ids * mask).to(model.device), "attention_mask": mask.long().to(model.device)}, targets


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of text; a vit has 65")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=30.0, help="a row that has taken this long is not run again")
    parser.add_argument("--no-padding", dest="padding", action="store_false")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows whose name contains one of these")
    return parser.parse_args()


def _header(options: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, threads: {options.threads}"
    tokens = "65 tokens" if options.shape == "vit" else f"{options.tokens} tokens{', padded' * options.padding}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}; {device}, {options.dtype}"
    checked = min(TRUTH_EXAMPLES, options.batch)
    return f"{versions}; {options.shape}, batch {options.batch}, {tokens}; errors on {checked} examples"


def _print(cells: list[str] | tuple[str, ...]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
