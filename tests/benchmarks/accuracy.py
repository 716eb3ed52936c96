"""Accuracy on the digits pool over three build seeds: every normalisation, isotropic, ensemble, experts.

`python -m tests.benchmarks.accuracy` rebuilds the pool from seeds 0, 1 and 2 into `--folder` (kept and reused), and
prints one table per preset: mean accuracy in % over the preset's tasks on `test`, per seed and averaged. Weights are equal.
The row `Fisher, chosen` takes, for each seed, the normalisation that is best on `validation` and reports it on `test`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.recipe import preset_recipe
from merging.scales import NORMALISATIONS

SEEDS = (0, 1, 2)
METHODS = ("experts", "isotropic", *[f"Fisher, {name}" for name in NORMALISATIONS], "Fisher, chosen", "ensemble")


def main() -> None:
    """Builds what is not built yet, measures and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fisher-merge-studio-digits")
    parser.add_argument("--presets", nargs="+", default=["four-tasks", "five-seeds", "robust"])
    options = parser.parse_args()
    pools = [_built(options.folder / f"seed-{seed}" / "digits", seed) for seed in SEEDS]
    for preset in options.presets:
        columns = [_means(pool, preset) for pool in pools]
        print(f"\n{preset}, accuracy in % on `test`\n")
        print("| method | " + " | ".join(f"build seed {seed}" for seed in SEEDS) + " | mean |")
        print("|---" * (len(SEEDS) + 2) + "|")
        for method in METHODS:
            values = [column[method] for column in columns]
            cells = " | ".join(f"{100 * value:.1f}" for value in values)
            print(f"| {method} | {cells} | {100 * sum(values) / len(values):.1f} |", flush=True)


def _built(folder: Path, seed: int) -> Path:
    if not (folder / "pool.yaml").is_file():
        command = [sys.executable, "-m", "merging.zoo.build", "digits", "--seed", str(seed), "--output", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def _means(folder: Path, preset: str) -> dict[str, float]:
    recipe = preset_recipe(open_pool(str(folder)), preset)
    prepared = prepare(recipe)
    means, on_validation = {}, {}
    for normalise in NORMALISATIONS:
        own = replace(recipe, fisher=replace(recipe.fisher, normalise=normalise))
        result = evaluate(prepared, own)
        means[f"Fisher, {normalise}"] = result.mean("fisher")
        validation = replace(own, evaluation=replace(own.evaluation, split="validation"))
        on_validation[normalise] = evaluate(prepared, validation).mean("fisher")
    chosen = max(on_validation, key=on_validation.get)
    means["Fisher, chosen"] = means[f"Fisher, {chosen}"]
    return means | {method: result.mean(method) for method in ("experts", "isotropic", "ensemble")}


if __name__ == "__main__":
    main()
