"""The merges of this visit: a list to go back to, and two of them side by side."""

from dataclasses import dataclass

import gradio as gr

from components.figures import compared_figure
from components.form import Form, recipe_of
from components.frames import Frame, create_frame, empty, framed
from components.modes import is_hosted
from components.picture import Picture
from components.store import live_result
from components.visits import LONGEST_NAME, VISITS, Merge
from merging.errors import MergingError
from merging.metrics import paired_test
from merging.references import short_name
from merging.rules import RULES

NAME = "Merges of this visit"
COMPARED = "Two merges compared"
EMPTY = "Nothing here yet: “Merge and evaluate” keeps the merge that the chart shows."
TWO = "Choose two merges to compare them task by task."
COLUMNS = ("name", "rule", "split", "mean, %", "isotropic, %", "λ")


@dataclass(frozen=True)
class MergeHistory:
    """The widgets of the merges of this visit."""

    name: gr.Textbox
    visit: gr.BrowserState
    kept: Frame
    first: gr.Dropdown
    second: gr.Dropdown
    compared: Frame

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `listed`."""
        return [*self.kept.outputs(), self.first, self.second]


def create_merge_history() -> MergeHistory:
    """A name for the next merge, and the folded list."""
    # The secret is not one: it only keeps the stored value the same after a restart of the server.
    visit = gr.BrowserState("", storage_key="fisher-merge-studio-visit", secret="fisher-merge-studio")
    with gr.Accordion(NAME, open=False):
        name = gr.Textbox(
            label="Name of the next merge", placeholder="merge 1", max_lines=1, max_length=LONGEST_NAME, min_width=120
        )
        kept = create_frame(NAME, "merges", can_pick=True)
        with gr.Row():
            first, second = (
                gr.Dropdown([], value=None, label=label, interactive=True, allow_custom_value=True)
                for label in ("Compare", "with")
            )
        compared = create_frame(COMPARED, "compared-merges")
    return MergeHistory(name, visit, kept, first, second, compared)


def remembered(visit: str, name: str, *values: object) -> list[object]:
    """Keeps the merge that the page shows: visit, the next one's name, then what `listed` gives."""
    try:
        result = live_result(recipe_of(Form.of(*values), hosted=is_hosted()))
    except MergingError:
        return [gr.skip()] * 7  # the chart's notice says what is wrong
    if result is None:
        return [gr.skip()] * 7
    visit = VISITS.add(visit, result, name or "")
    return [visit, "", *listed(visit)]


def listed(visit: str) -> list[object]:
    """The merges of a visit: the list's frame, and the choices of the two to compare, the last two at first."""
    merges = VISITS.of(visit)
    if not merges:
        return [*empty(EMPTY), gr.update(choices=[], value=None), gr.update(choices=[], value=None)]
    names = [merge.name for merge in merges]
    rows = [_row(merge) for merge in reversed(merges)]
    best = max(merges, key=lambda merge: merge.means[merge.recipe.rule])
    picture = Picture(
        None,
        f"{len(merges)} kept, the newest first. The highest mean is that of “{best.name}”: {100 * best.means[best.recipe.rule]:.1f} % "
        f"on {best.recipe.evaluation.split}.",
        COLUMNS,
        rows,
        picks=names[::-1],
        pick_label="Reload",
    )
    return [
        *framed(picture, NAME),
        gr.update(choices=names, value=names[-2] if len(names) > 1 else None),
        gr.update(choices=names, value=names[-1]),
    ]


def compared(visit: str, first: str | None, second: str | None) -> list[object]:
    """Two merges of a visit, task by task, on the tasks that both were scored on."""
    one, two = (VISITS.named(visit, name) for name in (first, second))
    if one is None or two is None or one is two:
        return empty(TWO)
    common = [key for key in one.scores if key in two.scores]
    if not common:
        return empty(
            f"“{one.name}” and “{two.name}” were scored on no common task and split: there is nothing to compare."
        )
    tests = [paired_test(one.correct[key], two.correct[key]) for key in common]
    rows = [
        (
            one.titles[key],
            *[100 * merge.scores[key].value for merge in (one, two)],
            100 * (two.scores[key].value - one.scores[key].value),
            test.p_value,
        )
        for key, test in zip(common, tests, strict=True)
    ]
    clear = [row[0] for row in rows if row[4] < 0.05]
    means = [sum(row[column] for row in rows) / len(rows) for column in (1, 2)]
    sentence = f"“{two.name}” is right on {means[1]:.1f} % on average, “{one.name}” on {means[0]:.1f} %; " + (
        f"the difference is clear (p < 0.05) on {', '.join(clear)}."
        if clear
        else "no task's difference is clear (p < 0.05)."
    )
    columns = ("task", f"{one.name}, %", f"{two.name}, %", "difference, points", "McNemar p")
    by_name = {merge.name: [merge.scores[key] for key in common] for merge in (one, two)}
    figure = compared_figure(by_name, [one.titles[key] for key in common])
    return framed(Picture(figure, sentence, columns, rows, "Merges, accuracy."), COMPARED)


def _row(merge: Merge) -> tuple[object, ...]:
    weights = ", ".join(f"{short_name(entry.checkpoint)} {entry.weight:.3g}" for entry in merge.recipe.models)
    rule = merge.recipe.rule
    means = [100 * merge.means[method] if method in merge.means else None for method in (rule, "isotropic")]
    return (merge.name, RULES[rule].title, merge.recipe.evaluation.split, *means, weights)
