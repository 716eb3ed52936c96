"""Two real fine-tuned checkpoints, SST-2 and MRPC, merged with every normalisation, beside all that they are compared with.

`python -m tests.benchmarks.real [FOLDER]` needs a folder with `minilm-sst2`, `minilm-mrpc`, `sst2` and `mrpc` (checkpoints and
tasks; by default `../shared/real`, and without it says so). Minutes on two cores.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import replace
from pathlib import Path

from merging.merge import NORMALISATIONS
from merging.pipeline import evaluate, prepare
from merging.recipe import FisherSettings, ModelEntry, Recipe

EXAMPLES = 128


def main(folder: str = "../shared/real") -> None:
    """Measures and prints Markdown."""
    if not Path(folder, "minilm-sst2").is_dir():
        print(f'Nothing measured: expected checkpoints in "{folder}", got none.')
        return
    models = tuple(ModelEntry(f"{folder}/minilm-{name}", f"{folder}/{name}", 0.5) for name in ("sst2", "mrpc"))
    recipe = Recipe(models=models, fisher=FisherSettings(examples=EXAMPLES))
    prepared = prepare(recipe)
    print("| method | sst2 | mrpc |\n|---|---|---|")
    for normalise in NORMALISATIONS:
        compare = recipe.compare if normalise == NORMALISATIONS[0] else ()
        own = replace(recipe, fisher=replace(recipe.fisher, normalise=normalise), compare=compare)
        for method, scores in evaluate(prepared, own).scores.items():
            name = f"Fisher, {normalise}" if method == "fisher" else method
            print(
                f"| {name} | " + " | ".join(f"{100 * score.value:.1f}" for score in scores.values()) + " |", flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
