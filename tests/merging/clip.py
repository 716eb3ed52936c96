"""A tiny random CLIP with its words on disk, and vision towers that were changed from it, with a task of images."""

import shutil
from pathlib import Path

import numpy
import torch
import transformers as hf
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from merging.zoo.clip_captions import create_tokenizer
from merging.zoo.clip_training import PROCESSOR

TEMPLATES = ("a photo of the digit {}", "a drawing of an inverted number {} .", "{}")
LABELS = ("three", "four", "five")


def clip(width: int = 16, seed: int = 0) -> hf.CLIPModel:
    """A random CLIP whose towers and projections are all of different sizes."""
    tokenizer = create_tokenizer()
    vision = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    vision |= {"image_size": 16, "patch_size": 8, "num_channels": 1, "projection_dim": 10}
    text = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_dim": 10}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    torch.manual_seed(seed)
    model = hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=10))
    return moved(model, seed)


def moved(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The same model with every parameter off its value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def write_base(folder: Path, **settings: int) -> Path:
    """The CLIP as a checkpoint with tokenizer and image processor."""
    clip(**settings).save_pretrained(folder)
    create_tokenizer().save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def write_tower(folder: Path, base: Path, seed: int, kind: type = hf.CLIPVisionModel) -> Path:
    """A tower as the Hub's are: `CLIPVisionModel` without an image processor."""
    moved(kind.from_pretrained(base), seed).save_pretrained(folder)
    return folder


def write_newer_tower(folder: Path, tower: Path) -> Path:
    """The same tower with names as Transformers 5 writes them; older files, and what is opened from them, say more."""
    shutil.copytree(tower, folder)
    tensors = load_file(tower / "model.safetensors")
    assert all(name.startswith("vision_model.") for name in tensors)
    renamed = {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_task(folder: Path, *, kind: str = "numbers", **fields: object) -> Path:
    """24 images of noise in every split; labels are numbers, `named` numbers, or `words`; `fields` change task.yaml."""
    import datasets

    folder.mkdir(parents=True)
    types = {"numbers": datasets.Value("int64"), "named": datasets.ClassLabel(names=list(LABELS))}
    for number, split in enumerate(("fisher", "validation", "test")):
        noise = numpy.random.default_rng(number).integers(0, 255, (24, 16, 16), dtype=numpy.uint8)
        labels = [LABELS[index % 3] if kind == "words" else index % 3 for index in range(24)]
        columns = {"image": [Image.fromarray(image) for image in noise], "label": labels}
        features = datasets.Features({"image": datasets.Image(), "label": types.get(kind, datasets.Value("string"))})
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    about = {"labels": list(LABELS), "templates": list(TEMPLATES), **fields}
    about = {name: value for name, value in about.items() if value is not None}
    (folder / "task.yaml").write_text(yaml.safe_dump(about))
    return folder


def recipe(base: Path | None, towers: list[Path], task: Path, **settings: object) -> dict[str, object]:
    """A recipe with equal weights and 8 examples per Fisher."""
    fields: dict[str, object] = {
        "version": 1,
        "models": [{"checkpoint": str(tower), "task": str(task), "weight": 1.0} for tower in towers],
        "fisher": {"examples": 8},
        "device": "cpu",
    }
    return {**fields, **({"base": str(base)} if base else {}), **settings}
