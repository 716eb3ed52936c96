"""Which rules merge: the page's own, those that stand beside it, and their settings. All applied live."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from components.form import texts
from components.formulas import formula
from components.rule_fields import BESIDE, LONGEST, NUMBERS, RULE, SCALE_LIMIT
from merging.rules import RULES
from merging.rules.settings import DEFAULTS, LIMITS


@dataclass(frozen=True)
class RulePicker:
    """The widgets, in the order of the form's last fields."""

    rule: gr.Dropdown
    beside: gr.Dropdown
    scale: gr.Slider
    damping: gr.Number
    shrinkage: gr.Number
    density: gr.Number
    prior: gr.Number
    layer_weights: gr.Textbox
    about: gr.HTML
    formula: gr.HTML
    settings: gr.Accordion

    def fields(self) -> list[gr.components.Component]:
        """What a recipe is read from."""
        return [self.rule, self.beside, self.scale, *self.numbers(), self.layer_weights]

    def numbers(self) -> list[gr.Number]:
        """The settings of single rules."""
        return [getattr(self, name) for name in NUMBERS]

    def explained(self) -> list[gr.components.Component]:
        """The outputs of `explained`."""
        return [self.about, self.formula, self.settings, *self.numbers()]


def create_formula() -> gr.HTML:
    """The rule's formula, over the sliders."""
    return gr.HTML(formula(RULE), elem_id="formula")


def create_rule_picker(formula_html: gr.HTML) -> RulePicker:
    """Two lists, a sentence for each chosen rule, and the settings, folded."""
    choices = [(rule.title, name) for name, rule in RULES.items()]
    with gr.Row():
        rule = gr.Dropdown(
            choices, value=RULE, label="Rule", info="what is merged and exported", elem_id="rule", min_width=230
        )
        beside = gr.Dropdown(
            choices,
            value=list(BESIDE),
            multiselect=True,
            label="Beside it",
            info="merged and scored with it; each costs its time",
            elem_id="beside",
            min_width=260,
        )
        scale = gr.Slider(
            0,
            SCALE_LIMIT,
            DEFAULTS.scale,
            step=0.05,
            label="Scale",
            info="θ₀ + s (merged − θ₀): needs the base; 1 is the merge",
            min_width=230,
        )
    about = gr.HTML(told(RULE, list(BESIDE)), elem_id="rules-about")
    limits = {name: (low, high) for name, low, high in LIMITS}
    with gr.Accordion("Settings of rules", open=False, visible=bool(_settings_of(RULE, BESIDE))) as settings, gr.Row():
        numbers = {
            name: gr.Number(
                getattr(DEFAULTS, name),
                label=name.capitalize(),
                info=info,
                minimum=limits[name][0],
                visible=name in _settings_of(RULE, BESIDE),
                min_width=150,
            )
            for name, info in NUMBERS.items()
        }
    with gr.Accordion("Other weights for some layers", open=False):
        layer_weights = gr.Textbox(
            "",  # a first value, so that programs may leave it out
            label="λ by layer",
            info="one layer per line, such as “layer 0: 0.8, 0.2”; “embedding” and “final” are layers, too",
            lines=3,
            max_length=LONGEST,
            elem_id="layer-weights",
        )
    shown = {"about": about, "formula": formula_html, "settings": settings}
    return RulePicker(rule, beside, scale, **numbers, layer_weights=layer_weights, **shown)


def explained(rule: str, beside: list[str]) -> list[object]:
    """What changes with the choice: the sentences, the formula, and which settings there are."""
    names = _settings_of(rule, beside)
    shown = [gr.update(visible=bool(names)), *(gr.update(visible=name in names) for name in NUMBERS)]
    return [told(rule, beside), formula(texts([rule])[0]), *shown]


def told(rule: str, beside: list[str]) -> str:
    """A sentence and the cost of each chosen rule."""
    rows = "".join(
        f'<li><b>{escape(RULES[name].title)}</b>: {escape(RULES[name].sentence)} <span class="cost">{_cost(name)}</span></li>'
        for name in _chosen(rule, beside)
    )
    return f'<ul class="studio-rules">{rows}</ul>'


def _cost(name: str) -> str:
    rule = RULES[name]
    needs = [rule.cost]
    if rule.needs_base:
        needs.append("needs the base")
    if rule.exactly:
        needs.append(f"{rule.exactly} models only")
    return escape(f"({'; '.join(needs)})")


def _chosen(rule: object, beside: object) -> list[str]:
    """The rules among what was chosen, each once; what arrives may be anything."""
    return [name for name in dict.fromkeys([*texts([rule]), *texts(beside)]) if name in RULES]


def _settings_of(rule: object, beside: object) -> set[str]:
    """The settings that have an effect on one of the chosen rules."""
    return {field for name in _chosen(rule, beside) for field in RULES[name].settings if field in NUMBERS}
