"""The streaming Fisher merge beside mergekit's linear merge: private memory, CPU seconds and error.

`python -m tests.benchmarks.merge --mergekit PYTHON` makes two random float32 checkpoints of BERT's shape with Fishers for
each size, in a temporary folder (14 GB for the largest), and merges them in turns, each time in a process of its own with one
thread; tests/benchmarks/peers.txt says how to install mergekit, and without it its rows are dashes. Memory is the peak of
Private_Clean + Private_Dirty in smaps_rollup, read every 5 ms, above what it was after the imports. CPU seconds are user +
system, the least of the runs; `in all` counts the start and imports of the program. The Fisher merge reads twice as many files as the
linear one. Errors are those of 1000 numbers of every tensor against float64, in units in the last place.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "20 M": dict(
        vocab_size=24_000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536
    ),
    "110 M": dict(),
    "440 M": dict(
        vocab_size=34_000, hidden_size=1024, num_hidden_layers=32, num_attention_heads=16, intermediate_size=4096
    ),
}
WEIGHTS = (0.3, 0.7)
SAMPLED = 1000
COLUMNS = (
    "parameters",
    "merge",
    "private MB",
    "CPU s",
    "ratio",
    "CPU s in all",
    "ratio in all",
    "wall s",
    "error, ulp",
)


def main() -> None:
    """Measures and prints Markdown, two rows for each size as soon as they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit", metavar="PYTHON", help="the interpreter of mergekit's environment")
    parser.add_argument("--sizes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    programs = {"ours": sys.executable, "mergekit": options.mergekit}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            count = _make(Path(folder), SHAPES[size])
            runs = {name: [] for name in programs}
            for _ in range(options.runs):
                for name, python in programs.items():
                    runs[name] += [_run(python, name, folder)] if python else []
            _print_rows(count, runs, _worst_error(Path(folder)))


def _print_rows(count: int, runs: dict[str, list[dict]], error: float) -> None:
    least = {
        name: {key: min(run[key] for run in own) for key in ("cpu_s", "cpu_in_all_s", "wall_s")}
        | {"private_mb": max(run["private_mb"] for run in own)}
        for name, own in runs.items()
        if own
    }
    for name, title in (("ours", "Fisher, streaming"), ("mergekit", "linear, mergekit")):
        found, other = least.get(name), least.get("mergekit")
        cells = [f"{count / 1e6:.0f} M", title]
        if found:
            ratios = [f"{found[key] / other[key]:.2f}" if other else "-" for key in ("cpu_s", "cpu_in_all_s")]
            cells += [f"{found['private_mb']:.0f}", f"{found['cpu_s']:.2f}", ratios[0]]
            cells += [f"{found['cpu_in_all_s']:.2f}", ratios[1], f"{found['wall_s']:.1f}"]
            cells += [f"{error:.2f}" if name == "ours" else "-"]
        print("| " + " | ".join(cells + ["-"] * (len(COLUMNS) - len(cells))) + " |", flush=True)


def _make(folder: Path, shape: dict) -> int:
    """Writes checkpoints `0` and `1` with Fishers beside them; returns their number of parameters."""
    import torch
    import transformers
    from safetensors.torch import save_file

    sys.path.insert(0, str(ROOT))
    from merging.fisher import Fisher

    config = transformers.BertConfig(num_labels=2, **shape)
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(config)
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    for index in (0, 1):
        generator = torch.Generator().manual_seed(index)
        own = {name: torch.randn(shape, generator=generator).mul_(0.02) for name, shape in shapes.items()}
        (folder / str(index)).mkdir()
        config.architectures = ["BertForSequenceClassification"]
        config.save_pretrained(folder / str(index))
        save_file(own, folder / str(index) / "model.safetensors", metadata={"format": "pt"})
        for tensor in own.values():
            tensor.normal_(generator=generator).square_().mul_(1e-6)
        Fisher(own, examples=1, labels="exact", seed=0).save(folder / f"fisher-{index}.safetensors")
    return sum(shape.numel() for shape in shapes.values())


def _run(python: str, name: str, folder: str) -> dict[str, float]:
    shutil.rmtree(Path(folder, name), ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [python, str(Path(__file__).resolve()), name, folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, folder: Path) -> None:
    """In a process of its own: one merge, and a line of JSON about it."""
    merge = {"ours": _ours, "mergekit": _mergekit}[name](folder)
    floor, before, started = _private_bytes(), _cpu_s(), time.perf_counter()
    peak, done = [floor], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], _private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    merge()
    done.set()
    watcher.join()
    wall, after = time.perf_counter() - started, _cpu_s()
    about = {"cpu_s": after - before, "cpu_in_all_s": after, "wall_s": wall}
    print(json.dumps({**about, "private_mb": (peak[0] - floor) / 1e6}))


def _ours(folder: Path) -> object:
    sys.path.insert(0, str(ROOT))
    from merging.streaming import merge_files

    models, fishers = [folder / "0", folder / "1"], [folder / f"fisher-{index}.safetensors" for index in (0, 1)]
    return lambda: merge_files(models, folder / "ours", weights=WEIGHTS, fishers=fishers)


def _mergekit(folder: Path) -> object:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    entries = [{"model": str(folder / str(i)), "parameters": {"weight": weight}} for i, weight in enumerate(WEIGHTS)]
    config = MergeConfiguration.model_validate({"merge_method": "linear", "dtype": "float32", "models": entries})
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    return lambda: run_merge(config, str(folder / "mergekit"), options=options)


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _worst_error(folder: Path) -> float:
    """Of our merge against Σ λFθ / Σ λF with F over its trace, in float64 by NumPy."""
    import numpy
    from safetensors import safe_open

    def opened(path: Path) -> object:
        return safe_open(folder / path, "np")

    models, fishers = (
        [opened(f"{i}/model.safetensors") for i in (0, 1)],
        [opened(f"fisher-{i}.safetensors") for i in (0, 1)],
    )
    merged, generator, worst = opened("ours/model.safetensors"), numpy.random.default_rng(0), 0.0
    names = list(merged.keys())
    traces = [sum(one.get_tensor(name).sum(dtype="f8") for name in names) for one in fishers]
    for name in names:
        found = merged.get_tensor(name).ravel()
        chosen = generator.integers(0, found.size, min(found.size, SAMPLED))
        values = [one.get_tensor(name).ravel()[chosen].astype("f8") for one in models]
        curved = [one.get_tensor(name).ravel()[chosen].astype("f8") for one in fishers]
        shares = [weight / trace * own for weight, trace, own in zip(WEIGHTS, traces, curved, strict=True)]
        expected = sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)
        errors = numpy.abs(found[chosen] - expected) / numpy.spacing(numpy.abs(expected).astype("f4"))
        worst = max(worst, float(errors.max()))
    return worst


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in ("ours", "mergekit"):
        measured(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
