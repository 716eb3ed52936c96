"""PEFT adapters (LoRA and its kin) as checkpoints: merged into their base once, and kept in the cache."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from merging import hub
from merging.cache import cache_folder
from merging.cache_space import make_room, mark_used
from merging.errors import CacheError, CheckpointError, quoted
from merging.headers import (
    ADAPTER_CONFIG,
    PROCESSOR_FILES,
    Header,
    hub_header,
    is_adapter,
    is_on_hub,
    read_adapter_config,
    read_config,
    read_header,
    reason,
    resolve_folder,
    weight_files,
)
from merging.leftovers import held_folder

VERSION = 1  # raise it whenever merged adapters change
PREFIX = "base_model.model."  # of the adapter's own tensors' names
READERS = (*PROCESSOR_FILES, "README.md")  # what stands beside the weights


def whole_folder(reference: str) -> Path:
    """The local folder of a whole checkpoint: for an adapter, one in the cache with the adapter merged into its base.

    Raises: CheckpointError; CacheError if the cache cannot be written.
    """
    folder = resolve_folder(reference)
    if not is_adapter({path.name for path in folder.iterdir()}):
        return folder
    settings = _settings(folder, reference)
    base = resolve_base(settings, folder, reference)
    base_folder = hub.fetch(base) if _is_short_id(base) else resolve_folder(base)
    target = cache_folder() / "adapters" / _digest(folder, base_folder)
    if not (target / "config.json").is_file():
        _write(target, lambda temporary: _merge(folder, base_folder, settings, temporary, reference), reference)
    mark_used(target)
    return target


def whole_header(reference: str) -> Header:
    """A checkpoint's header; for an adapter that of its base, with the adapter's head and sizes.

    Raises: CheckpointError.
    """
    header = read_header(reference)
    if header.adapter is None:
        return header
    named = resolve_base(header.adapter, header.folder, reference)
    base = hub_header(named) if _is_short_id(named) else read_header(named)
    own = _head(header)
    count = next((stored.shape[0] for name, stored in own.items() if _is_last_head(name)), None)
    config = _labelled(base.config, header.config, count)
    architecture = _architecture(base.config, header.adapter, reference)
    return replace(
        header,
        config={**config, "architectures": [architecture]},
        tensors={**base.tensors, **own},
        card={**base.card, **header.card},
        size_bytes=base.size_bytes + header.size_bytes,
        download_bytes=base.download_bytes + header.download_bytes,
    )


def resolve_base(settings: Mapping[str, object], folder: Path | None, reference: str) -> str:
    """The reference of an adapter's base; a relative folder is one beside the adapter.

    Raises: CheckpointError if it names none, or if an adapter from the Hub names a folder.
    """
    named = str(settings.get("base_model_name_or_path") or "")
    if folder is not None and not is_on_hub(reference):
        for candidate in (folder / named, Path(named).expanduser()):
            if named and candidate.is_dir():
                return str(candidate)
    elif named.startswith(("/", ".", "~")):
        named = ""
    if not named or not (named.startswith("zoo:") or named.count("/") <= 1):
        raise CheckpointError(
            f'The adapter "{reference}" cannot be opened: expected a folder or a Hub id in its base_model_name_or_path, '
            f'got "{settings.get("base_model_name_or_path")}". Name the base there.'
        )
    revision = settings.get("revision")
    return f"{named}@{revision}" if revision and "@" not in named and not named.startswith("zoo:") else named


def _is_short_id(base: str) -> bool:
    """Whether it is a Hub id without an owner, such as roberta-base, which the Hub leads to its owner's."""
    return "/" not in base and not Path(base).is_dir()


def _settings(folder: Path, reference: str) -> dict[str, object]:
    settings = read_adapter_config(folder, reference)
    # peft imports whatever module the configuration names for it.
    if settings.get("megatron_config"):
        raise CheckpointError(
            f'The adapter "{reference}" cannot be opened: expected one of a Transformers model, got one of Megatron. '
            "Use an adapter that was trained with Transformers."
        )
    if not (folder / hub.ADAPTER).is_file():
        pickles = [path.name for path in folder.iterdir() if path.name.endswith(hub.PICKLES)]
        got = f"pickled weights ({quoted(pickles)})" if pickles else "no weights"
        raise CheckpointError(
            f'The adapter "{reference}" cannot be opened: expected {hub.ADAPTER}, got {got}. '
            "Pickles can run code and are never opened; save the adapter again with save_pretrained."
        )
    return settings


def _digest(folder: Path, base: Path) -> str:
    """SHA-256 over everything that decides the merged model."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    readers = [path for source in (folder, base) for pattern in READERS for path in sorted(source.glob(pattern))]
    configs = [folder / ADAPTER_CONFIG, folder / "config.json", base / "config.json"]
    for path in [*configs, folder / hub.ADAPTER, *weight_files(base), *readers]:
        if path.is_file():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:40]


def _merge(folder: Path, base: Path, settings: Mapping[str, object], target: Path, reference: str) -> None:
    """Writes base + adapter as a checkpoint in float32. Raises: CheckpointError."""
    import torch
    import transformers
    from peft import PeftModel
    from safetensors import safe_open

    architecture = _architecture(read_config(base, str(base)), settings, reference)
    with safe_open(folder / hub.ADAPTER, framework="pt") as file:
        names = {name.removeprefix(PREFIX): tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    count = next((shape[0] for name, shape in names.items() if _is_last_head(name)), None)
    labels = {} if count is None else {"num_labels": count}
    options = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32, "trust_remote_code": False}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = getattr(transformers, architecture).from_pretrained(base, **options, **labels)
    mismatched = [entry if isinstance(entry, str) else entry[0] for entry in report.get("mismatched_keys", ())]
    unfit = {*report["missing_keys"], *mismatched} - set(names)
    if unfit:
        raise CheckpointError(
            f'The adapter "{reference}" is incomplete: expected a head in it or in its base, got none for {quoted(unfit)}. '
            "Train it with the head among modules_to_save."
        )
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    own = read_config(folder, reference) if (folder / "config.json").is_file() else {}
    labelled = _labelled(merged.config.to_dict(), own, count)
    merged.config.id2label = {int(index): name for index, name in labelled["id2label"].items()}
    merged.config.label2id = {name: index for index, name in merged.config.id2label.items()}
    merged.float().save_pretrained(target)
    for source in (base, folder):
        for path in {path for pattern in READERS for path in source.glob(pattern)}:
            shutil.copyfile(path, target / path.name)


def _write(target: Path, write, reference: str) -> None:
    """Fills `target`, whole or not at all. Raises: CheckpointError if the adapter does not fit; CacheError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held_folder(target.parent, ".merging-") as temporary:
            whole = temporary / target.name
            whole.mkdir()
            write(whole)
            try:
                whole.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was quicker
                    raise
        make_room(cache_folder(), keep=target)
    except OSError as problem:
        raise CacheError(
            f'The adapter "{reference}" cannot be merged into its base: expected a cache folder with free space, got '
            f'"{reason(problem)}". Free some space, or set FISHER_CACHE_DIR to another folder.'
        ) from problem
    # peft says by these that an adapter names layers that the base lacks, or is of a kind that cannot be merged.
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError) as problem:
        raise CheckpointError(
            f'The adapter "{reference}" does not fit its base: expected one that peft can merge into it, got '
            f'"{reason(problem)}". Check its base_model_name_or_path and peft_type.'
        ) from problem


def _architecture(config: Mapping[str, object], settings: Mapping[str, object], reference: str) -> str:
    """The class that the adapter was trained on: the base's own, or its classifier where the adapter brings the head."""
    from transformers.models.auto import modeling_auto

    listed = config.get("architectures")
    own, kind = str(listed[0]) if listed else "", str(config.get("model_type"))
    if own.endswith(("ForSequenceClassification", "ForImageClassification")):
        return own
    if settings.get("task_type") == "SEQ_CLS":
        found = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(kind)
    elif own.startswith(("CLIP", "T5")):
        found = own
    else:
        found = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.get(kind)
    found = found[0] if isinstance(found, tuple | list) else found
    if not found:
        raise CheckpointError(
            f'The adapter "{reference}" cannot be opened: expected one for classification, got task_type '
            f'"{settings.get("task_type")}" on a base of type "{kind}". Use an adapter of a classifier.'
        )
    return str(found)


def _head(header: Header) -> Mapping[str, object]:
    """The adapter's tensors that replace the base's: those of modules_to_save, under the model's names."""
    own = {name.removeprefix(PREFIX): stored for name, stored in header.tensors.items()}
    saved = set(header.adapter.get("modules_to_save") or ()) | {"classifier", "score"}
    return {name: stored for name, stored in own.items() if saved & set(name.split(".")) and "lora_" not in name}


def _is_last_head(name: str) -> bool:
    return name in ("classifier.weight", "score.weight", "classifier.out_proj.weight")


def _labelled(config: Mapping[str, object], own: Mapping[str, object], count: int | None) -> dict[str, object]:
    """The base's configuration with the adapter's labels: its own names, else the base's if they are as many."""
    names = own.get("id2label") or config.get("id2label") or {}
    count = count or len(names) or 2
    if len(names) != count:
        names = {index: f"LABEL_{index}" for index in range(count)}
    return {**config, "id2label": {str(index): str(name) for index, name in names.items()}, "num_labels": count}
