"""Two real fine-tuned checkpoints, SST-2 and MRPC, merged with every normalisation, beside all that they are compared with.

`python -m tests.benchmarks.real [FOLDER]` needs a folder with `minilm-sst2`, `minilm-mrpc`, `sst2` and `mrpc` (checkpoints and
tasks; by default `../shared/real`, and without it says so). The table is of `test`; which normalisation one would choose is said
by `validation`. Minutes on two cores.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from dataclasses import replace
from pathlib import Path

from merging.pipeline import evaluate, prepare
from merging.recipe import FisherSettings, ModelEntry, Recipe
from merging.scales import NORMALISATIONS

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
    means = {}
    for normalise in NORMALISATIONS:
        compare = recipe.compare if normalise == NORMALISATIONS[0] else ()
        own = replace(recipe, fisher=replace(recipe.fisher, normalise=normalise), compare=compare)
        for method, scores in evaluate(prepared, own).scores.items():
            name = f"Fisher, {normalise}" if method == "fisher" else method
            print(
                f"| {name} | " + " | ".join(f"{100 * score.value:.1f}" for score in scores.values()) + " |", flush=True
            )
        chosen_on = replace(own, evaluation=replace(own.evaluation, split="validation"), compare=())
        means[normalise] = evaluate(prepared, chosen_on).mean("fisher")
    shown = ", ".join(f"{name} {100 * mean:.1f}" for name, mean in means.items())
    print(f"Chosen on validation, where the means are {shown}: {max(means, key=means.get)}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
