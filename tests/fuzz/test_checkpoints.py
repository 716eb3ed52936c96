"""Damaged checkpoints: cut short, with bits turned, with any configuration, with weights that are no numbers."""

import json
import shutil
import struct
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from merging.checkpoints import open_checkpoint
from merging.errors import MergingError
from merging.headers import read_header
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.preflight import preflight
from merging.recipe import ModelEntry, Recipe, preset_recipe
from merging.zoo import ZOO_FOLDER
from tests.fuzz.strategies import budget, changed, mild, numbers, values

SOURCE = ZOO_FOLDER / "digits" / "checkpoints" / "parity"
WEIGHTS = (SOURCE / "model.safetensors").read_bytes()
HEADER_BYTES = 8 + struct.unpack("<Q", WEIGHTS[:8])[0]
CONFIG = json.loads((SOURCE / "config.json").read_text(encoding="utf-8"))
PROCESSOR = json.loads((SOURCE / "preprocessor_config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of a checkpoint, whose files the tests damage and write back."""
    return Path(shutil.copytree(SOURCE, tmp_path_factory.mktemp("fuzz") / "parity"))


def opened(folder: Path, *, with_model: bool = True) -> None:
    """All that the program does with one checkpoint, each step of which may refuse it."""
    mild(read_header, str(folder))
    checkpoint = mild(open_checkpoint, str(folder))
    if checkpoint is not None:
        mild(checkpoint.parameters)
        if with_model and (model := mild(checkpoint.model)) is not None:
            assert sum(one.numel() for one in model.parameters()) < 100 * checkpoint.parameter_count


@given(at=st.integers(0, len(WEIGHTS) - 1))
@budget(60)
def test_weights_that_are_cut_short_anywhere(folder, at):
    (folder / "model.safetensors").write_bytes(WEIGHTS[:at])
    with pytest.raises(MergingError, match="damaged"):
        open_checkpoint(str(folder)).parameters()


@given(flips=st.lists(st.tuples(st.integers(0, HEADER_BYTES - 1), st.integers(0, 7)), min_size=1, max_size=4))
@budget(120)
def test_bits_turned_in_the_header(folder, flips):
    content = bytearray(WEIGHTS)
    for at, bit in flips:
        content[at] ^= 1 << bit
    (folder / "model.safetensors").write_bytes(content)
    opened(folder, with_model=False)


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 2**64 - 1)))
@budget(150)
def test_any_bytes_in_place_of_weights(folder, content, length):
    head = struct.pack("<Q", len(content) if length is None else length)
    (folder / "model.safetensors").write_bytes(head + content)
    opened(folder)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@given(changed({"a": ENTRY, "b": {**ENTRY, "data_offsets": [16, 32]}, "__metadata__": {"format": "pt"}}))
@budget(150)
def test_any_header_over_sound_bytes(folder, header):
    try:
        text = json.dumps(header).encode()
    except ValueError:  # whole numbers of thousands of digits
        return
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(32))
    opened(folder)


@given(changed(CONFIG, st.one_of(numbers, values)))
@budget(80)
def test_any_configuration(folder, content):
    try:
        (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    except ValueError:
        return
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    opened(folder)
    entries = (ModelEntry(str(folder), "zoo:digits/parity"), ModelEntry(str(folder), "zoo:digits/loop"))
    mild(preflight, Recipe(entries))


@given(st.one_of(changed(PROCESSOR), values))
@budget(100)
def test_any_image_processor(folder, content):
    try:
        (folder / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    except ValueError:
        return
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    mild(open_checkpoint(str(folder)).processor)


@pytest.mark.parametrize(
    "text", ["", "[" * 200_000, '{"a":' * 100_000, "\ud800", "NaN", "null", "[]", '"x"', "9" * 10_000]
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "adapter_config.json"])
def test_a_file_beside_the_weights_that_holds_anything(folder, name, text):
    before = (folder / name).read_bytes() if (folder / name).exists() else None
    (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        opened(folder)
    finally:
        (folder / name).unlink() if before is None else (folder / name).write_bytes(before)


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/hostname", "a/b", "..", "", 5, None, [], "\0", "x" * 300]
)
def test_an_index_leads_nowhere_outside_its_folder(tmp_path, name):
    copy = shutil.copytree(SOURCE, tmp_path / "copy")
    shutil.copytree(SOURCE, tmp_path / "other")
    (copy / "model.safetensors").rename(copy / "model-1.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": name, "b": "model-1.safetensors"}})
    )
    with pytest.raises(MergingError, match="expected"):
        open_checkpoint(str(copy))


LIES = {"num_hidden_layers": 10**9, "hidden_size": 10**6, "intermediate_size": 10**8, "image_size": 10**6}
LIES |= {"num_labels": 10**9, "id2label": {str(2**70): "a"}, "depths": [10**6] * 3}


@pytest.mark.parametrize("field", LIES)
def test_a_configuration_that_asks_for_more_than_is_stored_takes_no_memory(tmp_path, field):
    copy = shutil.copytree(SOURCE, tmp_path / "copy")
    changes = {field: LIES[field]} if field != "num_labels" else {field: LIES[field], "id2label": None}
    (copy / "config.json").write_text(json.dumps({**CONFIG, **changes}), encoding="utf-8")
    opened(copy)
    entries = (ModelEntry(str(copy), "zoo:digits/parity"), ModelEntry(str(copy), "zoo:digits/loop"))
    mild(preflight, Recipe(entries))


def test_a_class_that_could_be_led_to_code_in_the_folder_is_refused(tmp_path):
    copy = shutil.copytree(SOURCE, tmp_path / "copy")
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    auto = {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model", "AutoImageProcessor": "own.P"}
    for changes in ({"architectures": ["AutoModelForImageClassification"]}, {}, {"model_type": "own"}):
        (copy / "config.json").write_text(json.dumps({**CONFIG, "auto_map": auto, **changes}), encoding="utf-8")
        (copy / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "auto_map": auto}), encoding="utf-8")
        opened(copy)
        mild(lambda: open_checkpoint(str(copy)).processor())
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrong", [numpy.nan, numpy.inf, -numpy.inf, 3e38])
def test_weights_that_are_no_numbers_end_in_a_message_or_in_scores(tmp_path, fresh_cache, wrong):
    copy = shutil.copytree(SOURCE, tmp_path / "parity")
    tensors = load_file(copy / "model.safetensors")
    name = sorted(name for name in tensors if name.endswith("weight"))[3]
    tensors[name].view(-1)[0] = wrong
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    recipe = preset_recipe(open_pool("digits"), "four-tasks")
    models = (ModelEntry(str(copy), recipe.models[0].task), recipe.models[1])
    fisher = {"labels": "exact", "examples": 16}
    result = mild(
        lambda: _merged(Recipe.of({"models": [vars(one) for one in models], "fisher": fisher, "device": "cpu"}))
    )
    if result is not None:
        scores = [score.value for own in result.scores.values() for score in own.values()]
        assert all(0 <= value <= 1 for value in scores)


def _merged(recipe: Recipe):
    with torch.no_grad():
        return evaluate(prepare(recipe), recipe)
