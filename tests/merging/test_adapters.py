"""PEFT adapters as checkpoints: the base with the adapter merged into it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

import merging
from merging import open_checkpoint
from merging.adapters import whole_header
from merging.errors import CheckpointError
from merging.preflight import preflight
from merging.zoo import ZOO_FOLDER
from tests import cases
from tests.loopback_hub import connect, loopback_hub

BASE = ZOO_FOLDER / "digits" / "checkpoints" / "base"


@pytest.fixture(autouse=True)
def _own_cache(fresh_cache):
    """Merged adapters go into the test's own cache."""


def bert(folder, *, labels=None, seed=0):
    """A saved BERT, as a body alone or as a classifier."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=cases.VOCABULARY, max_position_embeddings=20, num_labels=labels or 2, **cases.TEXT
    )
    kind = transformers.BertForSequenceClassification if labels else transformers.BertModel
    kind(config).save_pretrained(folder)
    return folder


def adapter(folder, base, *, labels=3, named=None, head=True, seed=1):
    """A saved LoRA on a BERT classifier with its own head, every number of it random; returns the live model."""
    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification.from_pretrained(
        base, num_labels=labels, ignore_mismatched_sizes=True
    )
    settings = {"task_type": "SEQ_CLS"} if head else {}
    live = get_peft_model(model, LoraConfig(r=2, target_modules=["query", "value"], **settings))
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    live.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(named or base)}))
    return live.eval()


TOKENS = torch.tensor([[1, 4, 7, 2, 9], [3, 3, 8, 1, 5]])


def test_an_adapter_gives_the_logits_that_peft_gives(tmp_path):
    live = adapter(tmp_path / "lora", bert(tmp_path / "base"))
    checkpoint = open_checkpoint(str(tmp_path / "lora"))
    assert checkpoint.name == "lora"
    assert checkpoint.architecture == "BertForSequenceClassification"
    assert checkpoint.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.model()(TOKENS).logits, live(TOKENS).logits, rtol=0, atol=1e-6)


def test_its_shapes_are_the_bases_with_its_head(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base", labels=2), labels=5)
    checkpoint, header = open_checkpoint(str(tmp_path / "lora")), whole_header(str(tmp_path / "lora"))
    whole = transformers.BertForSequenceClassification(checkpoint.model().config)
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in whole.state_dict().items()}
    assert {name: stored.shape for name, stored in header.tensors.items()} == checkpoint.shapes
    assert header.label_names == checkpoint.label_names
    assert len(header.label_names) == 5


@pytest.mark.parametrize("named", ["../base", None])
def test_the_base_is_a_folder_beside_the_adapter_or_anywhere(tmp_path, named):
    adapter(tmp_path / "lora", bert(tmp_path / "base"), named=named)
    assert open_checkpoint(str(tmp_path / "lora")).parameter_count > 0


def test_the_hash_covers_adapter_and_base(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    first = open_checkpoint(str(tmp_path / "lora")).hash
    assert open_checkpoint(str(tmp_path / "lora")).hash == first
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, weights)
    second = open_checkpoint(str(tmp_path / "lora")).hash
    bert(tmp_path / "base", seed=5)
    assert len({first, second, open_checkpoint(str(tmp_path / "lora")).hash}) == 3


def test_it_is_merged_into_its_base_once(tmp_path, monkeypatch):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    folder = open_checkpoint(str(tmp_path / "lora")).folder
    monkeypatch.setattr("peft.PeftModel.from_pretrained", None)
    assert open_checkpoint(str(tmp_path / "lora")).folder == folder


def test_its_own_label_names_are_kept(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"), labels=2)
    (tmp_path / "lora" / "config.json").write_text(json.dumps({"id2label": {"0": "no", "1": "yes"}}))
    assert open_checkpoint(str(tmp_path / "lora")).label_names == ("no", "yes")
    assert whole_header(str(tmp_path / "lora")).label_names == ("no", "yes")


def test_an_adapter_merges_with_a_full_checkpoint_of_its_base(tmp_path):
    """A LoRA on the digits' base beside a full fine-tuning of it: the isotropic merge is the mean of the whole models."""
    model = transformers.AutoModelForImageClassification.from_pretrained(
        BASE, num_labels=2, ignore_mismatched_sizes=True
    )
    torch.manual_seed(0)
    live = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "query", "value"], modules_to_save=["classifier"])
    )
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
    live.save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "zoo:digits/base"}))
    recipe = cases.two_tasks(rule="isotropic")
    task = recipe.models[1].task
    models = (recipe.models[0], replace(recipe.models[1], checkpoint=str(tmp_path / "lora"), task=task))
    recipe = replace(recipe, models=models)
    assert not preflight(recipe).problems
    result = merging.run(recipe)
    whole = live.merge_and_unload().state_dict()
    first = open_checkpoint(recipe.models[0].checkpoint).model().state_dict()
    for name, tensor in result.merged.items():
        torch.testing.assert_close(tensor, (first[name] + whole[name]) / 2, rtol=0, atol=1e-6)


def test_adapter_and_base_come_from_the_hub(tmp_path, monkeypatch):
    live = adapter(tmp_path / "lora", bert(tmp_path / "base"), named="lab/base")
    with loopback_hub(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        hub.add("lab/base", tmp_path / "base")
        hub.add("lab/lora", tmp_path / "lora")
        header = whole_header("lab/lora")
        assert header.architecture == "BertForSequenceClassification"
        assert header.download_bytes > header.size_bytes > (tmp_path / "base" / "model.safetensors").stat().st_size
        assert all(
            hub.downloads(name) == ["bytes=0-100000"] for name in ("model.safetensors", "adapter_model.safetensors")
        )
        checkpoint = open_checkpoint("lab/lora")
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.model()(TOKENS).logits, live(TOKENS).logits, rtol=0, atol=1e-6)


def test_a_base_without_an_owner_is_led_to_it(tmp_path, monkeypatch):
    adapter(tmp_path / "lora", bert(tmp_path / "base"), named="tiny-base")
    with loopback_hub(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        hub.add("lab/tiny-base", tmp_path / "base")
        hub.moved["tiny-base"] = "lab/tiny-base"
        assert len(whole_header(str(tmp_path / "lora")).label_names) == 3
        assert open_checkpoint(str(tmp_path / "lora")).model()(TOKENS).logits.shape == (2, 3)


def test_an_adapter_that_would_import_a_module_is_refused(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "megatron_config": {"a": 1}, "megatron_core": "this"}))
    with pytest.raises(CheckpointError, match="got one of Megatron"):
        open_checkpoint(str(tmp_path / "lora"))


def test_a_hub_adapter_cannot_name_a_folder_of_this_machine(tmp_path, monkeypatch):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    with loopback_hub(tmp_path / "hub") as hub:
        connect(monkeypatch, hub, tmp_path / "home")
        hub.add("lab/lora", tmp_path / "lora")
        for read in (whole_header, open_checkpoint):
            with pytest.raises(CheckpointError, match=r"expected a folder or a Hub id in its base_model_name_or_path"):
                read("lab/lora")


def test_pickled_adapters_are_refused(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    (tmp_path / "lora" / "adapter_model.safetensors").rename(tmp_path / "lora" / "adapter_model.bin")
    for read in (whole_header, open_checkpoint):
        with pytest.raises(CheckpointError, match=r'got pickled weights \("adapter_model.bin"\)'):
            read(str(tmp_path / "lora"))


def test_an_adapter_without_a_head_on_a_body_is_refused(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"), head=False)
    for change in ({}, {"task_type": "SEQ_CLS"}):
        path = tmp_path / "lora" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(CheckpointError, match=r"expected (one for classification|a head in it or in its base)"):
            open_checkpoint(str(tmp_path / "lora"))


def test_an_adapter_that_does_not_fit_its_base_is_refused(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    shutil.rmtree(tmp_path / "base")
    cases.distilbert(3).save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"does not fit its base|is incomplete"):
        open_checkpoint(str(tmp_path / "lora"))


def test_an_adapter_that_cannot_be_merged_into_weights_is_refused(tmp_path):
    model = transformers.BertForSequenceClassification.from_pretrained(bert(tmp_path / "base", labels=2))
    live = get_peft_model(model, PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    live.save_pretrained(tmp_path / "prefix")
    with pytest.raises(CheckpointError, match=r"does not fit its base: expected one that peft can merge"):
        open_checkpoint(str(tmp_path / "prefix"))


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_configuration_says_so(tmp_path, content):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    (tmp_path / "lora" / "adapter_config.json").write_text(content)
    for read in (whole_header, open_checkpoint):
        with pytest.raises(CheckpointError, match=r"is damaged: expected fields in JSON in adapter_config.json"):
            read(str(tmp_path / "lora"))


def test_a_missing_base_says_so(tmp_path):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"expected a folder or a Hub id in its base_model_name_or_path, got"):
        open_checkpoint(str(tmp_path / "lora"))


def test_nothing_half_merged_is_left(tmp_path, fresh_cache, monkeypatch):
    adapter(tmp_path / "lora", bert(tmp_path / "base"))
    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", _full)
    with pytest.raises(merging.errors.CacheError, match="No space left"):
        open_checkpoint(str(tmp_path / "lora"))
    assert not list((fresh_cache / "adapters").iterdir())


def _full(*arguments, **settings):
    raise OSError(28, "No space left on device")
