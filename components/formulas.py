"""What each rule does, as the formula over the sliders; its sentence is what screen readers read."""

from html import escape

from merging.rules import RULES


def formula(rule: str) -> str:
    """A rule's formula as HTML; nothing for what is no rule."""
    if rule not in RULES:
        return ""
    own = RULES[rule]
    label = escape(f"{own.title}: {own.sentence}")
    return f'<div class="studio-formula" role="img" aria-label="{label}">{_FORMULAS[rule]}</div>'


def _over(top: str, bottom: str) -> str:
    return f'<span class="fraction"><span>{top}</span><span>{bottom}</span></span>'


_LAMBDA, _FISHER, _MODEL, _BASE = "λ<sub>i</sub>", "F<sub>i</sub>", "θ<sub>i</sub>", "θ<sub>0</sub>"
_SUM, _TASK = f"Σ<sub>i</sub> {_LAMBDA}", f"({_MODEL} − {_BASE})"
_REGMEAN = (
    f"W* = ({_SUM} W<sub>i</sub> A<sub>i</sub>) ({_SUM} A<sub>i</sub>)<sup>−1</sup>, &nbsp; A<sub>i</sub> = mean of "
)
_AGREE = "Σ<sub>i ∈ A</sub>"
_FORMULAS = {
    "isotropic": f"θ* = {_SUM} {_MODEL}",
    "fisher": f"θ* = {_over(f'{_SUM} {_FISHER} {_MODEL}', f'{_SUM} {_FISHER}')}",
    "row": f"θ* = {_over(f'{_SUM} f<sub>i</sub> {_MODEL}', f'{_SUM} f<sub>i</sub>')}, &nbsp; f<sub>i</sub> = Σ<sub>row</sub> {_FISHER}",
    "kfac": f"{_SUM} G<sub>i</sub> (W* − W<sub>i</sub>) A<sub>i</sub> = 0, &nbsp; F<sub>i</sub> ≈ A<sub>i</sub> ⊗ G<sub>i</sub>",
    "regmean": f"{_REGMEAN}a a<sup>⊤</sup>",
    "regmean_weighted": f"{_REGMEAN}‖g‖² a a<sup>⊤</sup>",
    "ugm": f"θ* = {_BASE} + {_over(f'{_SUM} (H<sub>0</sub> + {_FISHER}) {_TASK}', f'H<sub>0</sub> + {_SUM} {_FISHER}')}",
    "task_arithmetic": f"θ* = {_BASE} + s {_SUM} {_TASK}",
    "ties": (
        f"θ* = {_BASE} + {_over(f'{_AGREE} {_LAMBDA} trim{_TASK}', f'{_AGREE} {_LAMBDA}')}, &nbsp; A: the models that agree "
        "in sign"
    ),
    "dare": f"θ* = {_BASE} + {_SUM} {_over(f'm<sub>i</sub> ∘ {_TASK}', 'p')}, &nbsp; m<sub>i</sub> = 1 with probability p, else 0",
    "slerp": (
        f"θ* = {_over('sin(λ<sub>1</sub> Ω) θ<sub>1</sub> + sin(λ<sub>2</sub> Ω) θ<sub>2</sub>', 'sin Ω')}, &nbsp; Ω: the angle "
        "between θ<sub>1</sub> and θ<sub>2</sub>"
    ),
}
