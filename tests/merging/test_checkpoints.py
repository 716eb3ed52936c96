"""Opening checkpoints: what is read, what is refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import merging
from merging import open_checkpoint
from merging.checkpoints import body_prefix
from merging.errors import CheckpointError, StructureError
from tests import cases


@pytest.fixture
def folder(tmp_path):
    cases.model_case("vit-2").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_holds_what_was_saved(folder):
    checkpoint, model = open_checkpoint(str(folder)), cases.model_case("vit-2")
    assert checkpoint.architecture == "ViTForImageClassification"
    assert checkpoint.label_names == ("LABEL_0", "LABEL_1")
    assert checkpoint.name == "model"
    assert checkpoint.shapes == {name: tuple(tensor.shape) for name, tensor in load_file(_weights(folder)).items()}
    assert checkpoint.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    opened = checkpoint.model()
    assert not opened.training
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_is_opened_in_float32(tmp_path, dtype):
    cases.model_case("vit-2").to(dtype).save_pretrained(tmp_path)
    opened = open_checkpoint(str(tmp_path)).model()
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_merged_in_float32(tmp_path, dtype):
    recipe, models = cases.two_tasks(rule="isotropic"), []
    for index, entry in enumerate(recipe.models):
        folder = shutil.copytree(open_checkpoint(entry.checkpoint).folder, tmp_path / str(index))
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(_weights(folder)).items()}
        save_file(tensors, _weights(folder), metadata={"format": "pt"})
        models.append(replace(entry, checkpoint=str(folder)))
    merged = merging.run(replace(recipe, models=tuple(models))).merged
    first, second = (open_checkpoint(entry.checkpoint).model().state_dict() for entry in models)
    for name, tensor in merged.items():
        assert tensor.dtype == torch.float32
        expected = (first[name].double() + second[name].double()) / 2
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-7, atol=1e-9)


def test_tied_weights_are_stored_once_and_opened_tied(tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": cases.VOCABULARY}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    opened = checkpoint.model()
    assert len([name for name, shape in checkpoint.shapes.items() if shape == (cases.VOCABULARY, 16)]) == 1
    assert opened.encoder.embed_tokens.weight is opened.shared.weight is opened.decoder.embed_tokens.weight
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())


def test_buffers_of_integers_in_the_file_are_no_parameters(tmp_path):
    model = cases.model_case("bert-2")
    model.save_pretrained(tmp_path)
    ids = {"bert.embeddings.position_ids": torch.arange(20)[None]}
    save_file({**load_file(_weights(tmp_path)), **ids}, _weights(tmp_path), metadata={"format": "pt"})
    opened = open_checkpoint(str(tmp_path)).model()
    assert all(parameter.is_floating_point() for parameter in opened.parameters())
    assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_sharded_checkpoint_is_whole(tmp_path):
    model = cases.model_case("bert-10")
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    opened = open_checkpoint(str(tmp_path)).model()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())


@pytest.mark.parametrize("damage", ["missing shard", "no JSON", "no weight_map", "a list"])
def test_a_sharded_checkpoint_that_is_not_whole_is_refused(tmp_path, damage):
    cases.model_case("bert-10").save_pretrained(tmp_path, max_shard_size="8KB")
    index = tmp_path / "model.safetensors.index.json"
    if damage == "missing shard":
        sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    else:
        index.write_text({"no JSON": "{", "no weight_map": "{}", "a list": "[]"}[damage])
    with pytest.raises(
        CheckpointError, match=r"is (incomplete: .* got none of \"model-00002|damaged: expected complete)"
    ):
        open_checkpoint(str(tmp_path))


def test_the_hash_is_that_of_the_content(folder, tmp_path):
    original = open_checkpoint(str(folder)).hash
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_checkpoint(str(copy)).hash == original
    tensors = load_file(_weights(copy))
    tensors["classifier.bias"][0] += 1e-6
    save_file(tensors, _weights(copy), metadata={"format": "pt"})
    assert open_checkpoint(str(copy)).hash != original


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json", "vocab.txt"])
def test_the_hash_covers_everything_that_decides_the_logits(folder, file):
    before = open_checkpoint(str(folder)).hash
    content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**content, "added": 1}))
    assert open_checkpoint(str(folder)).hash != before


@pytest.mark.parametrize("name", cases.HUGGING_FACE)
def test_body_and_head_are_told_apart(name):
    model = cases.model_case(name)
    prefix = body_prefix(model)
    head = {parameter.split(".")[0] for parameter, _ in model.named_parameters() if not parameter.startswith(prefix)}
    assert head <= {"classifier", "pre_classifier", "score"}
    assert head
    with pytest.raises(StructureError, match=r"has no head"):
        body_prefix(model.base_model)


def test_a_pickled_checkpoint_is_never_opened(folder):
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    _weights(folder).unlink()
    with pytest.raises(CheckpointError, match=r'expected weights in safetensors, got pickled weights \("pytorch_model'):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(folder, keep):
    content = _weights(folder).read_bytes()
    _weights(folder).write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"expected complete safetensors files, got .*Download or save"):
        open_checkpoint(str(folder))


def test_weights_that_lack_a_parameter_are_refused_and_named(folder):
    tensors = load_file(_weights(folder))
    del tensors["classifier.bias"]
    save_file(tensors, _weights(folder), metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r'is incomplete: .* got none that fit for "classifier.bias"'):
        open_checkpoint(str(folder)).model()
    of_base = open_checkpoint(str(folder), is_base=True).parameters_as_base_of("ViTForImageClassification")
    # What transformers fills in at random is no base's.
    assert "classifier.bias" not in of_base
    assert len(of_base) == len(tensors)


def test_weights_of_another_shape_are_refused_and_named(folder):
    tensors = load_file(_weights(folder))
    tensors["vit.layernorm.bias"] = torch.zeros(3)
    save_file(tensors, _weights(folder), metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layernorm.bias"):
        open_checkpoint(str(folder)).model()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file config.json, got No such file"),
        ("{", "expected JSON in config.json"),
        (b"\xff\xfe\x00", "expected JSON in config.json"),
        ("[1]", "expected a classifier"),
        ('{"id2label": ["a"]}', "expected numbers with names under id2label"),
        ('{"id2label": {"a": "b"}}', "expected numbers with names under id2label"),
        ('{"architectures": null}', 'expected a classifier .* got "none"'),
        ('{"architectures": ["LlamaForCausalLM"]}', 'got "LlamaForCausalLM"'),
        ('{"architectures": ["NoSuchForImageClassification"]}', 'got "NoSuchForImageClassification"'),
    ],
)
def test_a_configuration_that_is_no_classifiers_is_refused(folder, content, message):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def test_a_checkpoint_without_an_image_processor_says_so(folder):
    with pytest.raises(CheckpointError, match=r"expected an image processor in its folder"):
        open_checkpoint(str(folder)).processor()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("zoo:digits/parit", 'Unknown checkpoint: .* got "parit". Did you mean "parity"'),
        ("zoo:digit/parity", 'Unknown pool: .* Did you mean "digits"'),
        ("zoo:digits", "Unknown checkpoint"),
        ("/nowhere/at/all", "got a path that is no folder"),
        ("nothing", "expected zoo:POOL/NAME, a folder, or a Hub id"),
        ("someone/something", "cannot be had: .* got offline mode. Check the connection"),
    ],
)
def test_a_reference_to_nothing_says_what_was_expected(reference, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(reference)


def test_a_misspelt_folder_offers_its_sibling(folder):
    with pytest.raises(CheckpointError, match=r'Did you mean "model"'):
        open_checkpoint(str(folder.with_name("modle")))


def _weights(folder):
    return folder / "model.safetensors"
