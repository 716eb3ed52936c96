"""The sidebar: which models, on which tasks, and how their Fishers are estimated."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import gradio as gr

from components.add_model import OWN, AddModel, create_add_model
from components.form import ROWS, model_choices, task_value
from components.modes import is_hosted
from merging.devices import available_devices
from merging.gradients import LABELS
from merging.pools import Pool, hub_names, open_pool
from merging.recipe import FisherSettings
from merging.zoo import names as zoo_names

DEFAULT_POOL = "digits"
SETTINGS = FisherSettings()
# The fewest and the most Fisher examples that the page offers.
EXAMPLES = (16, 2048)


@dataclass(frozen=True)
class PoolPicker:
    """The sidebar's widgets."""

    pool: gr.Dropdown
    preset: gr.Dropdown
    about: gr.HTML
    models: gr.Dropdown
    checks: gr.HTML
    changed: gr.Textbox
    own: AddModel
    heads: gr.Radio
    tasks: gr.Dropdown
    labels: gr.Radio
    examples: gr.Slider
    seed: gr.Number
    device: gr.Dropdown
    base: gr.Textbox


def create_pool_picker(below_models: Callable[[], object]) -> tuple[PoolPicker, object]:
    """The set-up part of the sidebar, opened on the first preset of the default pool.

    `below_models` builds what stands under the list of models, and is handed back beside the picker.
    """
    pool = open_pool(DEFAULT_POOL)
    first = pool.presets[0]
    pool_list = gr.Dropdown(
        pool_choices(),
        value=DEFAULT_POOL,
        label="Pool",
        info="embedded, or on the Hub" if is_hosted() else "embedded, on the Hub, or a folder with a pool.yaml",
        allow_custom_value=not is_hosted(),
    )
    preset = gr.Dropdown(preset_choices(pool), value=first.name, label="Preset")
    about = gr.HTML(escape(pool.description), elem_classes="studio-about")
    # Custom values: an event on its way when the list changes still names the old models, which Gradio would refuse.
    models = gr.Dropdown(
        model_choices(pool),
        value=preset_models(pool, first.name),
        label="Models",
        multiselect=True,
        max_choices=ROWS,
        allow_custom_value=True,
    )
    checks = gr.HTML(elem_id="checks")
    # The list's own event comes again whenever a widget appears; this one only with other models.
    changed = gr.Textbox("", visible=False)
    own = create_add_model()
    below = below_models()
    heads = gr.Radio(
        [("keep per task", "keep"), ("merge too", "merge")],
        value=first.heads,
        label="Heads",
        info="merging them needs equal label sets",
    )
    tasks = gr.Dropdown(
        task_choices(pool),
        value=preset_tasks(pool, first.name),
        label="Also evaluate on",
        multiselect=True,
        allow_custom_value=True,
    )
    with gr.Accordion("Fisher estimation", open=False):
        labels = gr.Radio(
            list(LABELS),
            value=SETTINGS.labels,
            label="Labels",
            info="auto: exact up to 16 classes, rademacher beyond; empirical: the data's labels, not the Fisher",
        )
        examples = gr.Slider(*EXAMPLES, value=SETTINGS.examples, step=EXAMPLES[0], label="Fisher examples")
        seed = gr.Number(SETTINGS.seed, label="Seed", precision=0)
        base = gr.Textbox(
            pool.base or "",
            label="Base checkpoint",
            info="for the zero rule “base”, and for the zero-shot heads of CLIP",
            max_lines=1,
        )
    device = gr.Dropdown(["auto", *available_devices()], value="auto", label="Device")
    return PoolPicker(
        pool_list, preset, about, models, checks, changed, own, heads, tasks, labels, examples, seed, device, base
    ), below


def pool_choices() -> list[tuple[str, str]]:
    """What the list of pools shows and holds: the embedded ones, those of the Hub, and none."""
    embedded = [(name, name) for name in zoo_names()]
    return [*embedded, *[(f"{name} (Hub)", name) for name in hub_names()], (OWN, OWN)]


def preset_choices(pool: Pool) -> list[tuple[str, str]]:
    """What the list of presets shows and holds."""
    return [(preset.title, preset.name) for preset in pool.presets]


def preset_models(pool: Pool, name: str) -> list[str]:
    """A preset's models, as the list of models holds them."""
    by_name = {model.name: value for model, (_, value) in zip(pool.models, model_choices(pool), strict=True)}
    return [by_name[model] for model in pool.preset(name).models]


def preset_tasks(pool: Pool, name: str) -> list[str]:
    """A preset's tasks beside its models' own, as recipes name them."""
    return [task_value(pool.task_reference(task)) for task in pool.preset(name).evaluate]


def task_choices(pool: Pool) -> list[tuple[str, str]]:
    """Every task of a pool that one of its presets evaluates beside the models' own."""
    named = sorted({task for preset in pool.presets for task in preset.evaluate})
    return [(task, task_value(pool.task_reference(task))) for task in named]


def chosen_pool(name: str) -> list[object]:
    """What another pool changes in the sidebar: presets, description, models, heads, tasks, base.

    Raises: PoolError.
    """
    if name == OWN:
        nothing = gr.update(choices=[], value=[])
        told = "Add two or more models below: Hub ids or folders, each with its dataset."
        return [gr.update(choices=[], value=None), told, nothing, "keep", nothing, ""]
    pool = open_pool(name)
    first = pool.presets[0].name if pool.presets else None
    return [
        gr.update(choices=preset_choices(pool), value=first),
        gr.update(value=escape(pool.description)),
        *chosen_preset(pool, first),
        gr.update(value=pool.base or ""),
    ]


def chosen_preset(pool: Pool, preset: str | None) -> list[object]:
    """What another preset changes in the sidebar: models, heads, tasks. Raises: PoolError."""
    models = preset_models(pool, preset) if preset else [value for _, value in model_choices(pool)[:ROWS]]
    return [
        gr.update(choices=model_choices(pool), value=models),
        gr.update(value=pool.preset(preset).heads if preset else "keep"),
        gr.update(choices=task_choices(pool), value=preset_tasks(pool, preset) if preset else []),
    ]
