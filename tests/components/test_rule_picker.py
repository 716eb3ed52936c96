"""The rule picker's texts: a sentence, a cost and a formula for every rule, settings where they count."""

import re
from html import escape

import pytest

from components.formulas import formula
from components.rule_fields import NUMBERS, layer_weights_of, layer_weights_text
from components.rule_picker import explained
from merging.errors import RecipeError
from merging.rules import RULES


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_sentence_cost_and_formula(rule):
    told, shown, *_ = explained(rule, [])
    for text in (RULES[rule].title, RULES[rule].sentence, RULES[rule].cost):
        assert escape(text) in told
    assert escape(RULES[rule].sentence) in shown
    assert len(re.sub(r"<[^>]+>", "", shown)) > 10
    assert ("needs the base" in told) == RULES[rule].needs_base
    assert ("2 models only" in told) == (rule == "slerp")


@pytest.mark.parametrize("rule", RULES)
def test_settings_show_where_they_have_an_effect(rule):
    for chosen in ((rule, ["isotropic"]), ("isotropic", [rule])):
        _, _, accordion, *numbers = explained(*chosen)
        visible = {name for name, update in zip(NUMBERS, numbers, strict=True) if update["visible"]}
        assert visible == set(RULES[rule].settings) & set(NUMBERS)
        assert accordion["visible"] == bool(visible)


def test_formulas_are_different_and_there_is_none_of_what_is_no_rule():
    assert len({re.sub(r'aria-label="[^"]*"', "", formula(rule)) for rule in RULES}) == len(RULES)
    assert formula("<b>") == ""


def test_weights_of_layers_come_back_as_they_were_written():
    text = "layer 0: 0.8, 0.2\nembedding: 1, 0"
    assert layer_weights_of(text) == {"layer 0": (0.8, 0.2), "embedding": (1.0, 0.0)}
    assert layer_weights_text(layer_weights_of(f"\n {text} \n\n")) == text
    assert layer_weights_of(None) == {}
    for slip in ("layer 0", "layer 0:", ": 1, 2", "layer 0: a, b", "layer 0 = 1, 2"):
        with pytest.raises(RecipeError, match="expected a layer, a colon and one weight for each model"):
            layer_weights_of(slip)
