"""One λ slider per model: a fixed row of eight, of which as many are shown as there are models."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from components.form import ROWS, model_name, texts
from merging.references import unique_names


@dataclass(frozen=True)
class WeightSliders:
    """The sliders, the bar of normalised weights, and the buttons that set them."""

    sliders: list[gr.Slider]
    shares: gr.HTML
    equal: gr.Button
    by_size: gr.Button
    best: gr.Button
    undo: gr.Button


def create_weight_sliders(models: Sequence[str]) -> WeightSliders:
    """Sliders for these models (as the list of models holds them), at equal weights."""
    names, weight = slider_names(models), _equal(len(models))
    sliders = []
    with gr.Row(elem_classes="studio-sliders"):
        for row in range(ROWS):
            sliders.append(
                gr.Slider(
                    0,
                    1,
                    value=weight,
                    step=0.01,
                    label=f"λ · {names[row]}" if row < len(names) else f"λ · model {row + 1}",
                    visible=row < len(names),
                    interactive=True,
                    min_width=200,
                    buttons=[],
                )
            )
    shares = gr.HTML(elem_id="shares")
    with gr.Row():
        equal = gr.Button("Equal λ", size="sm", min_width=90)
        by_size = gr.Button("By dataset size", size="sm", min_width=130)
        best = gr.Button("Find best λ", size="sm", min_width=110)
        undo = gr.Button("Undo", size="sm", min_width=80)
    return WeightSliders(sliders, shares, equal, by_size, best, undo)


def slider_names(models: Sequence[str]) -> list[str]:
    """The names that the sliders carry, unique, as in the merge."""
    return unique_names([model_name(value) for value in texts(models)])


def rows_for(models: Sequence[str]) -> list[dict[str, object]]:
    """What another list of models changes in the eight rows: names, visibility, equal weights."""
    names = slider_names(models)[:ROWS]
    return [
        gr.update(label=f"λ · {names[row]}", visible=True, value=_equal(len(names)))
        if row < len(names)
        else gr.update(visible=False)
        for row in range(ROWS)
    ]


def set_to(weights: Sequence[float]) -> list[object]:
    """Moves the first sliders to these weights, scaled down where the largest does not fit; leaves the hidden ones."""
    scale = max([1.0, *weights])
    return [gr.update(value=round(weight / scale, 4)) for weight in weights] + [gr.skip()] * (ROWS - len(weights))


def _equal(count: int) -> float:
    return round(1 / count, 4) if count else 1.0
