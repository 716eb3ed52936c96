"""Where a parameter stands in its network, and whether models fit together."""

import pytest
import torch

from merging.errors import StructureError
from merging.parameters import KINDS, Place, check_same_structure, layers_of, place_of
from tests import cases


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("bert.embeddings.word_embeddings.weight", "embedding", "embedding"),
        ("bert.embeddings.LayerNorm.weight", "embedding", "norm"),
        ("bert.encoder.layer.11.attention.self.key.bias", "layer 11", "k"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "layer 0", "o"),
        ("bert.encoder.layer.0.attention.output.LayerNorm.bias", "layer 0", "norm"),
        ("bert.encoder.layer.0.intermediate.dense.weight", "layer 0", "up"),
        ("bert.encoder.layer.0.output.dense.weight", "layer 0", "down"),
        ("bert.pooler.dense.weight", "final", "other"),
        ("distilbert.transformer.layer.1.attention.q_lin.weight", "layer 1", "q"),
        ("distilbert.transformer.layer.1.attention.out_lin.weight", "layer 1", "o"),
        ("distilbert.transformer.layer.1.ffn.lin1.weight", "layer 1", "up"),
        ("distilbert.transformer.layer.1.ffn.lin2.weight", "layer 1", "down"),
        ("distilbert.transformer.layer.1.sa_layer_norm.weight", "layer 1", "norm"),
        ("albert.encoder.embedding_hidden_mapping_in.weight", "embedding", "embedding"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight", "layer 0", "q"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense.weight", "layer 0", "o"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", "layer 0", "up"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight", "layer 0", "down"),
        ("transformer.wte.weight", "embedding", "embedding"),
        ("transformer.h.3.attn.c_attn.weight", "layer 3", "qkv"),
        ("transformer.h.3.attn.c_proj.weight", "layer 3", "o"),
        ("transformer.h.3.mlp.c_fc.weight", "layer 3", "up"),
        ("transformer.h.3.mlp.c_proj.weight", "layer 3", "down"),
        ("transformer.h.3.ln_1.weight", "layer 3", "norm"),
        ("transformer.ln_f.weight", "final", "norm"),
        ("vit.embeddings.cls_token", "embedding", "embedding"),
        ("vit.encoder.layer.3.attention.attention.query.weight", "layer 3", "q"),
        ("vit.layers.3.attention.v_proj.weight", "layer 3", "v"),
        ("vit.layers.3.attention.o_proj.weight", "layer 3", "o"),
        ("vit.layers.3.mlp.fc2.weight", "layer 3", "down"),
        ("vit.layers.3.layernorm_before.weight", "layer 3", "norm"),
        ("vit.layernorm.bias", "final", "norm"),
        ("classifier.weight", "final", "other"),
    ],
)
def test_a_hugging_face_name_tells_layer_and_kind(name, layer, kind):
    assert place_of(name) == Place(layer, kind)


@pytest.mark.parametrize("name", cases.HUGGING_FACE)
def test_every_body_parameter_of_a_transformer_has_a_kind_of_its_own(name):
    model = cases.model_case(name)
    body = [f"{model.base_model_prefix}.{parameter}" for parameter, _ in model.base_model.named_parameters()]
    places = {parameter: place_of(parameter) for parameter in body}
    assert {place.kind for place in places.values()} <= set(KINDS)
    others = [parameter for parameter, place in places.items() if place.kind == "other" and "pooler" not in parameter]
    assert not others
    assert layers_of(body)[:2] == ["embedding", "layer 0"]


def test_layers_are_ordered_from_input_to_output():
    names = [f"transformer.h.{index}.ln_1.weight" for index in (10, 9, 0)]
    names += ["transformer.ln_f.bias", "transformer.wte.weight"]
    assert layers_of(names) == ["embedding", "layer 0", "layer 9", "layer 10", "final"]


def test_models_of_one_structure_share_the_first_ones_order():
    first = {"b": torch.zeros(2), "a": torch.zeros(3)}
    assert check_same_structure([first, dict(reversed(first.items()))]) == ["b", "a"]


def test_a_missing_tensor_is_named():
    with pytest.raises(StructureError, match=r'expected "two" .* as "one", got "a" missing and "c" in addition'):
        check_same_structure([{"a": torch.zeros(1)}, {"c": torch.zeros(1)}], ["one", "two"])


def test_a_tensor_of_another_shape_is_named_with_both_shapes():
    with pytest.raises(StructureError, match=r'"a" is \[2, 3\] in model 1 and \[3, 2\] in model 2'):
        check_same_structure([{"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}])
