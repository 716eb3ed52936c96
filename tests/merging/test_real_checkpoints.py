"""Real fine-tuned BERTs, where they lie beside the checkout: Fisher and merge against the slow references."""

from pathlib import Path

import numpy
import pytest
import torch

import merging
from merging.recipe import EvaluationSettings, FisherSettings, ModelEntry, Recipe
from tests.references import slow_fisher, slow_merge, slow_predict

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
TASKS = ("sst2", "mrpc")
# Half of all parameters, and nearly all of their Fisher is zero: left out of the slow reference.
WORDS = "bert.embeddings.word_embeddings.weight"

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real checkpoints at {REAL}")


def test_real_checkpoints_merge_as_the_slow_references_do():
    entries = tuple(ModelEntry(str(REAL / f"minilm-{task}"), str(REAL / task)) for task in TASKS)
    settings = FisherSettings(examples=16, normalise="none")
    recipe = Recipe(entries, fisher=settings, evaluation=EvaluationSettings(examples=100), device="cpu", compare=())
    result = merging.run(recipe)
    prepared = result.prepared

    fishers = []
    for task, checkpoint, module, own in zip(
        TASKS, prepared.checkpoints, prepared.modules, prepared.fishers, strict=True
    ):
        rows = merging.open_task(str(REAL / task)).batches("fisher", checkpoint, examples=16)
        used = torch.unique(torch.cat([batch["input_ids"].flatten() for batch in rows]))
        assert set(own[WORDS].amax(1).nonzero().flatten().tolist()) <= set(used.tolist())
        fisher = slow_fisher(module, rows, without=[WORDS])
        rms = {name: float(tensor.square().mean().sqrt()) for name, tensor in fisher.items()}
        for name, expected in fisher.items():
            error = float((own[name].double() - expected).square().mean().sqrt())
            # A key bias is zero but for rounding.
            assert error <= max(1e-5 * rms[name], 1e-10 * max(rms.values())), name
        fishers.append({**fisher, WORDS: own[WORDS].double()})

    parameters = prepared.parameters()
    chosen = ["bert.embeddings.LayerNorm.weight", "bert.encoder.layer.3.output.dense.bias", "bert.pooler.dense.bias"]
    merged = slow_merge([{n: own[n] for n in chosen} for own in parameters], [0.5, 0.5], fishers)
    for name in chosen:
        numpy.testing.assert_allclose(result.merged[name], merged[name], rtol=1e-4, atol=1e-6)
    for index, task in enumerate(TASKS):
        module = prepared.checkpoints[index].model()
        module.load_state_dict(result.merged, strict=False)
        rows = merging.open_task(str(REAL / task)).batches("test", prepared.checkpoints[index], examples=100)
        first = [{name: value[:20] for name, value in rows[0].items()}]
        found = result.predictions["fisher"][task].probabilities
        assert found.shape == (100, 2)
        numpy.testing.assert_allclose(found[:20], slow_predict(module, first), atol=1e-4)
