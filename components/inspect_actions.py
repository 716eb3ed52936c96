"""What the Inspect tab shows of the page's merge: opens its sections, compares Fishers, lists tensors."""

from collections.abc import Callable, Sequence

import gradio as gr

from components.frames import empty
from components.inspect import (
    DISTANCES,
    FILL_MATRIX,
    MAPS,
    MATRIX,
    MIXING,
    PLANE,
    SIMILARITY,
    TITLES,
)
from components.inspect_figures import (
    cosine_picture,
    mixing_picture,
    moved_picture,
    percentiles_picture,
    task2vec_picture,
)
from components.inspect_heatmaps import difference_picture, heatmap_picture
from components.inspect_jobs import has_fetched_base, matrix_section, plane_section
from components.inspect_owners import facts_picture, owner_picture, tensors_picture
from components.inspect_results import chosen_of, computed, prepared_of, shown
from components.learn_jobs import job_state
from components.score_charts import DESKTOP_PX, NOT_PREPARED
from components.tables import notice
from merging.diagnostics.distances import distances_moved
from merging.diagnostics.maps import FisherMap, fisher_map, tensor_facts
from merging.diagnostics.mixing import fisher_percentiles, mixing_histogram
from merging.diagnostics.similarity import similarity
from merging.errors import MergingError, RecipeError
from merging.prepared import Prepared
from merging.recipe import Recipe

SIZES = {MAPS: 17, MATRIX: 8, MIXING: 6, SIMILARITY: 6, DISTANCES: 6, PLANE: 11}
NO_BASE = "There is no base to measure from: name one under “Base” in the sidebar."
BASE_ELSEWHERE = (
    f"The base lies on the Hub, and nothing is downloaded unasked: “{FILL_MATRIX}” under “{TITLES[MATRIX]}” fetches it."
)
View = dict[str, object]


def inspected(view: View, width_px: float, *values: object) -> list[object]:
    """The notice, then all sections; only the open one is drawn."""
    section = str(view.get("section", MAPS))
    message, *filled = drawn(section, view, width_px, values)
    parts = [filled if name == section else [gr.skip()] * SIZES[name] for name in TITLES]
    return [message, *(value for part in parts for value in part)]


def opened(section: str, view: View, width_px: float, *values: object) -> list[object]:
    """A section, opened: the view, the notice, what it shows."""
    return [{**view, "section": section}, *drawn(section, view, width_px, values)]


def drawn(section: str, view: View, width_px: float, values: Sequence[object]) -> list[object]:
    """The notice and one section's widgets, or what to press, or what is wrong (then the last good pictures stay)."""
    try:
        recipe, prepared = prepared_of(values)
        if prepared is None:
            return [notice(NOT_PREPARED), *_without(section)]
        return ["", *SECTIONS[section](prepared, recipe, view, int(width_px or DESKTOP_PX))]
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * SIZES[section]]


def compared(view: View, first: str, second: str, *values: object) -> list[object]:
    """One model's Fisher over another's: the view, the frame."""
    view = {**view, "pair": [first, second]}
    try:
        recipe, prepared = prepared_of(values)
        if prepared is None:
            return [view, *empty(NOT_PREPARED)]
        return [view, *_difference(_map(prepared, recipe), view)]
    except MergingError as problem:
        return [view, *empty(str(problem), "error")]


def grouped(view: View, by: str, *values: object) -> list[object]:
    """Distances layer by layer or kind by kind: the view, notice, frames."""
    view = {**view, "by": by}
    return [view, *drawn(DISTANCES, view, DESKTOP_PX, values)]


def cell_opened(value: str, *values: object) -> list[object]:
    """The tensors of a chosen cell. What arrives may be anything."""
    try:
        recipe, prepared = prepared_of(values)
        if prepared is None:
            return empty(NOT_PREPARED)
        fisher = _map(prepared, recipe)
        row, column = _cell(fisher, value)
        names = fisher.tensors[row][column]
        place = f"{fisher.layers[row]}, {fisher.kinds[column]}"
        return shown("cell", tensors_picture(place, tensor_facts(prepared, recipe, names)))
    except MergingError as problem:
        return empty(str(problem), "error")


def _maps(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    fisher = _map(prepared, recipe)
    pair = chosen_of(view.get("pair"), fisher.models, 2)
    dropdowns = [gr.update(choices=list(fisher.models), value=name) for name in pair]
    pictures = [("heatmap", heatmap_picture(fisher, width_px)), ("owners", owner_picture(fisher))]
    heatmap, owners = (shown(*one) for one in pictures)
    facts = shown("facts", facts_picture(fisher))
    return [*heatmap, "", None, "", *owners, *facts, *dropdowns, *_difference(fisher, {**view, "pair": pair})]


def _difference(fisher: FisherMap, view: View) -> list[object]:
    first, second = chosen_of(view.get("pair"), fisher.models, 2)
    if first == second:
        return empty("Choose two different models to compare.")
    return shown("difference", difference_picture(fisher, first, second))


def _mixing(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    equal = [1.0] * len(prepared.names)
    chosen = computed(prepared, ("mixing", recipe.to_yaml()), lambda: mixing_histogram(prepared, recipe))
    bare = recipe.with_weights(equal)
    plain = computed(prepared, ("mixing", bare.to_yaml()), lambda: mixing_histogram(prepared, bare))
    sizes = computed(prepared, ("percentiles", bare.to_yaml()), lambda: fisher_percentiles(prepared, recipe))
    pictures = [("mixing", mixing_picture(plain, chosen, width_px)), ("percentiles", percentiles_picture(sizes))]
    return [value for one in pictures for value in shown(*one)]


def _similarity(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    bare = recipe.with_weights([1.0] * len(prepared.names))
    found = computed(prepared, ("similarity", bare.to_yaml()), lambda: similarity(prepared, recipe))
    return [*shown("cosine", cosine_picture(found)), *shown("task2vec", task2vec_picture(found))]


def _distances(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    by = "kind" if view.get("by") == "kind" else "layer"
    fetched = has_fetched_base(prepared)
    found = computed(
        prepared,
        (DISTANCES, by, fetched, recipe.to_yaml()),
        lambda: distances_moved(prepared, recipe, by=by, download=fetched),
    )
    moved = empty(BASE_ELSEWHERE if recipe.base else NO_BASE)
    if found.from_base is not None:
        moved = shown("moved", moved_picture(found, origin="base"))
    return [*moved, *shown("apart", moved_picture(found, origin="isotropic"))]


SECTIONS: dict[str, Callable[[Prepared, Recipe, View, int], list[object]]] = {
    MAPS: _maps,
    MATRIX: matrix_section,
    MIXING: _mixing,
    SIMILARITY: _similarity,
    DISTANCES: _distances,
    PLANE: plane_section,
}


def _map(prepared: Prepared, recipe: Recipe) -> FisherMap:
    return computed(prepared, (MAPS, recipe.to_yaml()), lambda: fisher_map(prepared, recipe))


def _without(section: str) -> list[object]:
    """A section without pictures."""
    nothing = ["", None, ""]
    own = {MAPS: [*nothing * 4, gr.skip(), gr.skip(), *nothing], MATRIX: [*job_state(None), *nothing]}
    own[PLANE] = [*[gr.skip()] * 3, *job_state(None), *nothing]
    return own.get(section, nothing * 2)


def _cell(fisher: FisherMap, value: object) -> tuple[int, int]:
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
    row, column = divmod(number, len(fisher.kinds))
    if not 0 <= row < len(fisher.layers) or not fisher.tensors[row][column]:
        raise RecipeError(
            f"This place cannot be opened: expected one with tensors, got {text!r:.40}. Click a coloured place of a map."
        )
    return row, column
