"""The embedded digits pool is what it says it is, and its builder makes it again."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from merging.zoo import ZOO_FOLDER, names
from merging.zoo.build_digits import DigitsSettings, build
from merging.zoo.digits_data import DOMAIN, FEW_ROWS, SHIFTS, SPLIT_SIZES, shift_rows, split_digits, write_data

POOL_FOLDER = ZOO_FOLDER / "digits"
POOL = yaml.safe_load((POOL_FOLDER / "pool.yaml").read_text(encoding="utf-8"))
MODELS = {model["name"]: model["task"] for model in POOL["models"]}
CHECKPOINTS = {POOL["base"]: "digit", **MODELS}
WRITTEN_SPLITS = ("fisher", "validation", "test")
FOLDER_SIZE_LIMIT_BYTES = 1_000_000
USES = ("few", "rotated")  # a target with 30 rows to learn from, and a domain that is hard to read


def read_split(folder: Path, data: str, split: str) -> datasets.Dataset:
    """One split as a reader of parquet files sees it, without leaving a cache behind."""
    return datasets.Dataset.from_parquet(str(folder / "data" / data / f"{split}.parquet"), keep_in_memory=True)


def images_of(rows: datasets.Dataset) -> np.ndarray:
    """The images of a split (rows, 8, 8)."""
    return np.stack([np.asarray(image) for image in rows["image"]])


def task_fields(name: str) -> dict:
    """The content of a task.yaml."""
    return yaml.safe_load((POOL_FOLDER / "tasks" / name / "task.yaml").read_text(encoding="utf-8"))


@torch.no_grad()
def accuracy_of(checkpoint: str, task: str, split: str) -> float:
    """Accuracy through the saved processor, as a user of the checkpoint measures it."""
    folder = POOL_FOLDER / "checkpoints" / checkpoint
    fields = task_fields(task)
    rows = read_split(POOL_FOLDER, Path(fields["data"]).name, split)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    logits = model(**processor(list(rows["image"]), return_tensors="pt")).logits
    return float((logits.argmax(dim=-1) == torch.as_tensor(rows[fields["label"]])).float().mean())


def test_digits_is_an_embedded_pool():
    assert "digits" in names()


def test_presets_name_models_and_tasks_of_the_pool():
    for preset in POOL["presets"]:
        assert set(preset["models"]) <= set(MODELS)
        assert all((POOL_FOLDER / "tasks" / task / "task.yaml").is_file() for task in preset["evaluate"])


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
def test_a_split_has_its_size_and_holds_gray_images(split: str):
    rows = read_split(POOL_FOLDER, "digits", split)
    assert len(rows) == SPLIT_SIZES[split]
    assert {(image.mode, image.size) for image in rows["image"]} == {("L", (8, 8))}


def test_no_image_occurs_in_two_splits_nor_among_the_rows_of_the_base():
    images = [images_of(read_split(POOL_FOLDER, "digits", split)) for split in WRITTEN_SPLITS]
    every_image = np.concatenate([split_digits(seed=0)["base"].images, *images])
    assert len({image.tobytes() for image in every_image}) == sum(SPLIT_SIZES.values())


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
def test_label_columns_follow_from_the_digit(split: str):
    rows = read_split(POOL_FOLDER, "digits", split)
    digits = np.asarray(rows["digit"])
    expected = {
        "parity": digits % 2,
        "large": digits >= 5,
        "loop": np.isin(digits, [0, 6, 8, 9]),
        "remainder": digits % 3,
    }
    for column, labels in expected.items():
        np.testing.assert_array_equal(rows[column], labels)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_shifted_rows_are_the_clean_rows_with_other_images(shift: str, split: str):
    clean, shifted = read_split(POOL_FOLDER, "digits", split), read_split(POOL_FOLDER, shift, split)
    assert shifted["digit"] == clean["digit"]
    assert (images_of(shifted) != images_of(clean)).any(axis=(1, 2)).all()


@pytest.mark.parametrize(("checkpoint", "task"), CHECKPOINTS.items())
def test_a_checkpoint_is_small_safe_and_speaks_the_labels_of_its_task(checkpoint: str, task: str):
    folder = POOL_FOLDER / "checkpoints" / checkpoint
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert sum(files.values()) <= FOLDER_SIZE_LIMIT_BYTES
    assert "_name_or_path" not in (folder / "config.json").read_text(encoding="utf-8")
    config = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).config
    labels = task_fields(task)["labels"]
    assert [config.id2label[index] for index in range(config.num_labels)] == labels
    assert config.label2id == {label: index for index, label in enumerate(labels)}


@pytest.mark.parametrize(("expert", "task"), [pair for pair in MODELS.items() if pair[0] not in USES])
def test_an_expert_is_right_on_95_of_100_rows_of_its_own_test_split(expert: str, task: str):
    assert accuracy_of(expert, task, "test") >= 0.95


def test_the_robust_model_stands_the_shifts_better_and_the_narrow_one_clean_images_as_well():
    robust, narrow = ([accuracy_of(name, shift, "test") for shift in SHIFTS] for name in ("robust", "narrow"))
    assert np.mean(robust) > np.mean(narrow) + 0.1
    assert accuracy_of("narrow", "digit", "test") >= accuracy_of("robust", "digit", "test")


def test_the_target_with_little_data_is_better_than_guessing_and_worse_than_the_expert():
    few, expert = accuracy_of("few", "few", "test"), accuracy_of("remainder", "remainder", "test")
    assert 0.8 < few < expert - 0.05


def test_the_target_with_little_data_has_the_first_rows_of_the_split_that_the_experts_learn_from():
    few, whole = (read_split(POOL_FOLDER, data, "fisher") for data in ("few", "digits"))
    assert len(few) == FEW_ROWS
    np.testing.assert_array_equal(images_of(few), images_of(whole)[:FEW_ROWS])
    assert few["remainder"] == whole["remainder"][:FEW_ROWS]


def test_the_domains_model_reads_rotated_images_better_than_the_seeds_and_its_rows_are_shifted_ones():
    assert accuracy_of("rotated", "rotated", "test") > accuracy_of("seed-0", "rotated", "test") + 0.01
    clean, shifted = (read_split(POOL_FOLDER, data, "fisher") for data in ("digits", DOMAIN))
    assert shifted["digit"] == clean["digit"]
    assert (images_of(shifted) != images_of(clean)).any(axis=(1, 2)).all()


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
def test_the_targets_question_is_asked_of_the_domains_images(split: str):
    rows = read_split(POOL_FOLDER, DOMAIN, split)
    np.testing.assert_array_equal(rows["remainder"], np.asarray(rows["digit"]) % 3)


def test_the_pool_is_small():
    sizes = (path.stat().st_size for path in POOL_FOLDER.rglob("*") if path.is_file())
    assert sum(sizes) < 10_000_000


def test_the_five_seeds_differ():
    bodies = [load_file(POOL_FOLDER / "checkpoints" / name / "model.safetensors") for name in MODELS if "seed" in name]
    name = "vit.layernorm.weight"
    assert all(not torch.equal(bodies[0][name], other[name]) for other in bodies[1:])


def test_rebuilt_data_is_identical(tmp_path: Path):
    write_data(tmp_path, split_digits(seed=0), seed=0)
    committed = sorted(path.relative_to(POOL_FOLDER) for path in POOL_FOLDER.glob("data/*/*.parquet"))
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.glob("data/*/*.parquet")) == committed
    for path in committed:
        rebuilt, kept = (read_split(folder, path.parent.name, path.stem) for folder in (tmp_path, POOL_FOLDER))
        assert rebuilt.features == kept.features
        np.testing.assert_array_equal(images_of(rebuilt), images_of(kept))
        assert rebuilt.remove_columns("image").to_dict() == kept.remove_columns("image").to_dict()


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_follows_from_its_seed(shift: str):
    rows = split_digits(seed=0)["validation"]
    first, second = (shift_rows(rows, shift, seed=[3, 1]) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)


def test_the_splits_of_another_seed_are_other_rows():
    first, second = split_digits(seed=0), split_digits(seed=1)
    assert all(not np.array_equal(first[split].digits, second[split].digits) for split in SPLIT_SIZES)


SHORT = DigitsSettings(
    base_epochs=1,
    expert_epochs=1,
    seed_epochs=1,
    robust_epochs=1,
    narrow_epochs=1,
    few_epochs=1,
    rotated_epochs=1,
)


def test_a_short_build_is_openable_twice_the_same_and_leaves_the_global_generator_alone(tmp_path: Path):
    state = torch.get_rng_state()
    for attempt in ("first", "second"):
        for stage in ("base", "parity", "robust", "few", "rotated"):
            build(tmp_path / attempt, seed=5, only=stage, settings=SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    for stage in ("base", "parity", "robust", "few", "rotated"):
        folders = [tmp_path / attempt / "checkpoints" / stage for attempt in ("first", "second")]
        first, second = (load_file(folder / "model.safetensors") for folder in folders)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        AutoModelForImageClassification.from_pretrained(folders[0], local_files_only=True)
        AutoImageProcessor.from_pretrained(folders[0], local_files_only=True)


def test_an_expert_keeps_the_structure_of_the_base_but_not_its_head():
    base, parity = (load_file(POOL_FOLDER / "checkpoints" / name / "model.safetensors") for name in ("base", "parity"))
    assert base.keys() == parity.keys()
    assert base["classifier.weight"].shape == (10, 64)
    assert parity["classifier.weight"].shape == (2, 64)
    assert all(base[name].shape == parity[name].shape for name in base if name.startswith("vit."))
