"""Rows, splits, labels and shifts of the digits pool.

The 1,797 UCI handwritten digits of scikit-learn (8 x 8, values 0..16) become gray images 0..255. No image occurs
twice, which `split_digits` checks. A permutation by seed cuts them into `base` (600 rows, trains the base, not
written), `fisher` (600, trains the experts), `validation` (250) and `test` (347). Writers are not told apart in
scikit-learn's copy, so the same hand may appear in several splits.

Two tasks more are for the paper's uses with a target: `few` asks `remainder` of the first 30 rows of `fisher` alone, and
`rotated-remainder` asks it of rotated images, of which `rotated` has unasked ones to learn from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import yaml
from PIL import Image, ImageFilter

from merging.errors import PoolError

SPLIT_SIZES = {"base": 600, "fisher": 600, "validation": 250, "test": 347}
GRAY_PER_UNIT = 255 / 16  # scikit-learn counts dark pixels in 4 x 4 blocks: 0..16
TARGET = "remainder"  # the question of the tasks with little data or of another domain
FEW_ROWS = 30
DOMAIN = "rotated"


@dataclass(frozen=True)
class DigitRows:
    """Gray images (rows, 8, 8) as uint8 and the digit that each one shows (rows,)."""

    images: np.ndarray
    digits: np.ndarray


@dataclass(frozen=True)
class DigitTask:
    """A question about a digit: its label names, and the label of each of the digits 0 to 9."""

    title: str
    labels: tuple[str, ...]
    label_of_digit: tuple[int, ...]

    def labels_of(self, digits: np.ndarray) -> np.ndarray:
        """The label of each row."""
        return np.asarray(self.label_of_digit)[digits]


TASKS = {
    "digit": DigitTask("which digit", tuple("0123456789"), tuple(range(10))),
    "parity": DigitTask("odd or even", ("even", "odd"), tuple(digit % 2 for digit in range(10))),
    "large": DigitTask("five or more", ("below five", "five or more"), tuple(int(digit >= 5) for digit in range(10))),
    "loop": DigitTask(
        "has a loop", ("no loop", "has a loop"), tuple(int(digit in (0, 6, 8, 9)) for digit in range(10))
    ),
    "remainder": DigitTask(
        "remainder of a division by three",
        ("remainder 0", "remainder 1", "remainder 2"),
        tuple(digit % 3 for digit in range(10)),
    ),
}


def split_digits(seed: int) -> dict[str, DigitRows]:
    """Load the digits and cut them into disjoint splits by a permutation of the rows.

    Raises:
        PoolError: an image occurs twice, or the rows do not fill the splits.
    """
    from sklearn.datasets import load_digits  # only to rebuild: the app reads the written files

    source = load_digits()
    images = np.round(source.images * GRAY_PER_UNIT).astype(np.uint8)
    if len(np.unique(images.reshape(len(images), -1), axis=0)) != len(images):
        raise PoolError("The splits would overlap: expected every image once, got repeated images. Group them first.")
    if len(images) != sum(SPLIT_SIZES.values()):
        expected = sum(SPLIT_SIZES.values())
        raise PoolError(
            f"The splits do not fit: expected {expected} rows, got {len(images)}. Use another scikit-learn."
        )
    order = np.random.default_rng(seed).permutation(len(images))
    ends = np.cumsum(list(SPLIT_SIZES.values()))[:-1]
    return {
        split: DigitRows(images[rows], source.target[rows])
        for split, rows in zip(SPLIT_SIZES, np.split(order, ends), strict=True)
    }


def rotate(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turn left or right by 20 to 35 degrees."""
    angle_degrees = generator.uniform(20, 35) * generator.choice([-1, 1])
    return np.asarray(Image.fromarray(image).rotate(angle_degrees, resample=Image.Resampling.BICUBIC))


def invert(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Swap ink and paper."""
    return 255 - image


def add_noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise with a standard deviation of 64 of 255 gray levels."""
    return np.clip(np.round(image + generator.normal(0, 64, image.shape)), 0, 255).astype(np.uint8)


def blur(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur by a Gaussian with a radius of one of the eight pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.0)))


SHIFTS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "rotated": rotate,
    "inverted": invert,
    "noisy": add_noise,
    "blurred": blur,
}


def shift_rows(rows: DigitRows, shift: str, *, seed: list[int]) -> DigitRows:
    """The same rows in the same order, every image shifted by its own draw."""
    generator = np.random.default_rng(seed)
    return DigitRows(np.stack([SHIFTS[shift](image, generator) for image in rows.images]), rows.digits)


def write_data(folder: Path, splits: Mapping[str, DigitRows], *, seed: int) -> None:
    """Write the data and the tasks of the pool: `data/NAME/SPLIT.parquet` and `tasks/NAME/task.yaml`."""
    for split in ("fisher", "validation", "test"):
        write_rows(folder / "data" / "digits" / f"{split}.parquet", splits[split], labels=tuple(TASKS))
    for name, task in TASKS.items():
        write_task(folder / "tasks" / name, task, data="digits", label=name)
    for split in ("fisher", "validation", "test"):
        rows = few_rows(splits) if split == "fisher" else splits[split]
        write_rows(folder / "data" / "few" / f"{split}.parquet", rows, labels=(TARGET,))
    write_task(folder / "tasks" / "few", few_task(), data="few", label=TARGET)
    for shift_index, shift in enumerate(SHIFTS):
        is_domain = shift == DOMAIN
        for split_index, split in enumerate(("validation", "test", "fisher") if is_domain else ("validation", "test")):
            shifted = shift_rows(splits[split], shift, seed=[seed, shift_index, split_index])
            labels = ("digit", TARGET) if is_domain else ("digit",)
            write_rows(folder / "data" / shift / f"{split}.parquet", shifted, labels=labels)
        task = replace(TASKS["digit"], title=f"{TASKS['digit'].title}, {shift} images")
        write_task(folder / "tasks" / shift, task, data=shift, label="digit")
    task = replace(TASKS[TARGET], title=f"{TASKS[TARGET].title}, {DOMAIN} images")
    write_task(folder / "tasks" / f"{DOMAIN}-{TARGET}", task, data=DOMAIN, label=TARGET)


def few_rows(splits: Mapping[str, DigitRows]) -> DigitRows:
    """The rows of the target with little data."""
    return DigitRows(splits["fisher"].images[:FEW_ROWS], splits["fisher"].digits[:FEW_ROWS])


def few_task() -> DigitTask:
    """The target with little data: the same question, by its own name."""
    return replace(TASKS[TARGET], title=f"{TASKS[TARGET].title}, {FEW_ROWS} images to learn from")


def domain_rows(splits: Mapping[str, DigitRows], *, seed: int) -> DigitRows:
    """The rows of `fisher` as the domain shows them: those that `write_data` writes."""
    return shift_rows(splits["fisher"], DOMAIN, seed=[seed, list(SHIFTS).index(DOMAIN), 2])


def write_rows(path: Path, rows: DigitRows, *, labels: tuple[str, ...]) -> None:
    """Write one split as parquet: PNG images, and one integer column for each of `labels`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: TASKS[name].labels_of(rows.digits).tolist() for name in labels}
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Value("int64") for name in labels}})
    images = [Image.fromarray(image) for image in rows.images]
    datasets.Dataset.from_dict({"image": images, **columns}, features=features).to_parquet(path)


def write_task(folder: Path, task: DigitTask, *, data: str, label: str) -> None:
    """Write task.yaml, which finds the data relative to its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "title": task.title,
        "data": f"../../data/{data}",
        "image": "image",
        "label": label,
        "labels": list(task.labels),
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=120))
