"""The slider of log-odds, which moves both λ of two models."""

import math

import gradio as gr

from components.explore_texts import odds_html
from components.form import ROWS, Form, texts
from components.weight_sliders import set_to


def odds_moved(odds: float, models: list[str]) -> list[object]:
    """The log-odds of the first of two models: text, sliders."""
    if len(texts(models)) != 2 or not isinstance(odds, int | float) or not abs(odds) < math.inf:
        return [gr.skip()] * (1 + ROWS)
    first = 1 / (1 + math.exp(-max(-50.0, min(50.0, odds))))
    return [odds_html(models, [first, 1 - first]), *set_to([first, 1 - first])]


def odds_of(*values: object) -> object:
    """Where the slider of log-odds stands for the page's two weights."""
    weights = Form.of(*values).weights[:2]
    if len(weights) < 2 or not all(isinstance(weight, int | float) and weight >= 0 for weight in weights):
        return gr.skip()
    first, second = (max(float(weight), 1e-4) for weight in weights)
    return round(max(-6.0, min(6.0, math.log(first / second))), 2)
