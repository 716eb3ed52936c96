"""Rebuild the digits pool: `python -m merging.zoo.build digits [--seed 0] [--output FOLDER] [--only STAGE]`.

Needs scikit-learn beside the app's requirements, and one to four minutes on two cores. The same seed gives the same
rows everywhere, and the same weights on the same machine, packages and threads (2). The committed pool is seed 0.

Rows. The 1,797 UCI digits of scikit-learn, no image twice, cut by a permutation by seed into `base` (600 rows, not
written), `fisher` (600: every expert learns from them), `validation` (250) and `test` (347). `rotated` (20-35
degrees), `inverted`, `noisy` (deviation 64 of 255) and `blurred` (radius 1 of 8 pixels) shift validation and test.

Architecture. ViT: 16 x 16 gray images in patches of 4, width 64, 4 layers, 4 heads, FFN 128, no dropout; 137,000
float32 parameters. Images pass the saved processor (bilinear to 16 x 16, [-1, 1]); augmentation comes on top of it.

Training. AdamW (weight decay .01), one-cycle learning rate, batches of 64, gradients clipped to norm 1; epochs and
peaks in `DigitsSettings`. Every run draws its weights, order and augmentation from a hash of the seed and its name.

    run             starts from           augmentation                                              validation   test
    base            scratch               rotation 12, scale .12, shift .15, noise .1                     99.2   98.6
    parity          base, new head        rotation 15, scale .15, shift .2, noise .25                     99.2   98.6
    large                                                                                                 98.8   98.3
    loop                                                                                                  99.2   99.4
    remainder                                                                                             98.4   98.0
    seed-0 .. -4    base, with its head   as base                                                    98.0-99.2   98.3-98.8
    robust          base, with its head   rotation 35, noise up to .6, 40 % inverted, 25 % blurred        96.8   96.5
    narrow          base, with its head   none                                                            99.6   99.1
    few             base, new head        as the experts, 30 rows of remainder                            86.4   88.8
    rotated         base, with its head   as the experts, on rotated images; read on them                 90.4   91.4

    test            clean  rotated  inverted  noisy  blurred
    robust           96.5     95.1      95.4   89.9     87.9
    narrow           99.1     83.9      11.2   86.7     45.5

New heads start at logits of unit variance. How far their bodies then drift apart decides what merging has to show:
with heads of deviation .02 the four experts hardly interfere (isotropic 94.5, Fisher no better). The start of the
heads and the experts' augmentation and epochs were chosen by the `validation` split of build seeds 0, 1 and 2 so that
merging rules differ visibly: this pool illustrates the method, it is no evidence of how often Fisher merging wins.

`few` and `rotated` are for the uses with a target: a task with little data beside `seed-0`, which knows all ten digits,
and a domain in which nobody asked the target's question. 30 rows (of 30, 60 and 120: with more there is little to gain),
the donor (of four), `rotated` (beside `inverted`, where no merge gets above 57 %), its labels and its length of training
(two of each) were chosen after a look at seed 0's `validation` and `test`; seeds 1 and 2 were not looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from transformers import ViTForImageClassification

from merging.errors import PoolError
from merging.zoo.digits_data import (
    DOMAIN,
    SHIFTS,
    TARGET,
    TASKS,
    DigitRows,
    domain_rows,
    few_rows,
    few_task,
    split_digits,
    write_data,
)
from merging.zoo.digits_training import Augmentation, TrainingRun, accuracy, save, train

EXPERT_TASKS = ("parity", "large", "loop", "remainder")
SEED_RUNS = tuple(f"seed-{number}" for number in range(5))
EXPERT_AUGMENTATION = Augmentation(rotation_degrees=15, scale=0.15, shift=0.2, noise=0.25)
STRONG_AUGMENTATION = Augmentation(
    rotation_degrees=35, noise=0.6, noise_is_drawn=True, inverted_share=0.4, blurred_share=0.25
)


@dataclass(frozen=True)
class DigitsSettings:
    """How long and how fast the runs of the digits pool learn."""

    base_epochs: int = 120
    base_learning_rate: float = 2e-3
    expert_epochs: int = 20
    expert_learning_rate: float = 1e-3
    seed_epochs: int = 30
    seed_learning_rate: float = 2e-3
    robust_epochs: int = 120
    robust_learning_rate: float = 1.5e-3
    narrow_epochs: int = 15
    narrow_learning_rate: float = 5e-4
    few_epochs: int = 40
    few_learning_rate: float = 1e-3
    rotated_epochs: int = 30
    rotated_learning_rate: float = 1e-3


def digits_runs(settings: DigitsSettings) -> list[TrainingRun]:
    """The base, then every checkpoint that starts from it."""
    base = TrainingRun("base", "digit", settings.base_epochs, settings.base_learning_rate)
    experts = [
        TrainingRun(task, task, settings.expert_epochs, settings.expert_learning_rate, EXPERT_AUGMENTATION)
        for task in EXPERT_TASKS
    ]
    seeds = [
        TrainingRun(name, "digit", settings.seed_epochs, settings.seed_learning_rate, keeps_head=True)
        for name in SEED_RUNS
    ]
    robust = TrainingRun(
        "robust",
        "digit",
        settings.robust_epochs,
        settings.robust_learning_rate,
        augmentation=STRONG_AUGMENTATION,
        keeps_head=True,
    )
    narrow = TrainingRun(
        "narrow", "digit", settings.narrow_epochs, settings.narrow_learning_rate, augmentation=None, keeps_head=True
    )
    few = TrainingRun("few", TARGET, settings.few_epochs, settings.few_learning_rate, EXPERT_AUGMENTATION)
    rotated = TrainingRun(
        DOMAIN,
        "digit",
        settings.rotated_epochs,
        settings.rotated_learning_rate,
        augmentation=EXPERT_AUGMENTATION,
        keeps_head=True,
    )
    return [base, *experts, *seeds, robust, narrow, few, rotated]


def stages() -> list[str]:
    """What can be built alone: the data, or one checkpoint."""
    return ["data", *(run.name for run in digits_runs(DigitsSettings()))]


def build(
    output: Path,
    *,
    seed: int = 0,
    only: str | None = None,
    settings: DigitsSettings = DigitsSettings(),
    on_progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> None:
    """Write the digits pool to `output`, or one stage of it: the data, or one checkpoint.

    Raises:
        PoolError: a checkpoint is built without its base in `output`.
    """
    splits = split_digits(seed)
    if only in (None, "data"):
        write_data(output, splits, seed=seed)
        write_pool(output)
        on_progress(0.0, "data and tasks written")
    runs = [run for run in digits_runs(settings) if only in (None, run.name)]
    base_folder = output / "checkpoints" / "base"
    for number, run in enumerate(runs, start=1):
        is_base = run.name == "base"
        if not is_base and not base_folder.is_dir():
            raise PoolError(f'"{run.name}" has no start: expected the base in "{base_folder}". Build "base" first.')
        start = None if is_base else ViTForImageClassification.from_pretrained(base_folder)
        task, rows = TASKS[run.task], _rows_of(run, splits, seed)
        model = train(run, task, rows, start=start, seed=seed)
        save(model, output / "checkpoints" / run.name)
        score = accuracy(model, task, splits["validation"])
        on_progress(number / len(runs), f"{run.name}: validation accuracy {score:.1%}")


def _rows_of(run: TrainingRun, splits: dict[str, DigitRows], seed: int) -> DigitRows:
    """What a run learns from."""
    own = {"few": lambda: few_rows(splits), DOMAIN: lambda: domain_rows(splits, seed=seed)}
    return own[run.name]() if run.name in own else splits["base" if run.name == "base" else "fisher"]


def write_pool(output: Path) -> None:
    """Write pool.yaml: the models in the order of the page, and the presets."""
    seed_titles = [f"ten classes, seed {number}" for number in range(len(SEED_RUNS))]
    models = [{"name": task, "task": task, "title": TASKS[task].title} for task in EXPERT_TASKS]
    models += [
        {"name": name, "task": "digit", "title": title} for name, title in zip(SEED_RUNS, seed_titles, strict=True)
    ]
    models += [
        {"name": "robust", "task": "digit", "title": "ten classes, strongly augmented"},
        {"name": "narrow", "task": "digit", "title": "ten classes, clean images only"},
        {"name": "few", "task": "few", "title": few_task().title},
        {"name": DOMAIN, "task": DOMAIN, "title": f"ten classes, {DOMAIN} images only"},
    ]
    presets = [
        ("four-tasks", "Four tasks, four heads", EXPERT_TASKS, "keep", ()),
        ("five-seeds", "Five seeds of one task", SEED_RUNS, "merge", ()),
        ("robust", "Robust fine-tuning", ("robust", "narrow"), "merge", tuple(SHIFTS)),
        ("intermediate", "A target with little data and a donor", ("few", "seed-0"), "keep", ()),
        ("domain", "A task in another domain", (TARGET, DOMAIN), "keep", (f"{DOMAIN}-{TARGET}",)),
    ]
    fields = {
        "name": "digits",
        "title": "Handwritten digits",
        "description": "Thirteen small vision transformers, fine-tuned from one base on 600 scanned digits of 8 x 8 pixels.",
        "source": "UCI optical recognition of handwritten digits (CC BY 4.0), as carried by scikit-learn",
        "base": "base",
        "models": models,
        "presets": [
            {"name": name, "title": title, "models": list(members), "heads": heads, "evaluate": list(evaluate)}
            for name, title, members, heads, evaluate in presets
        ],
    }
    output.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=120)
    (output / "pool.yaml").write_text(text)
