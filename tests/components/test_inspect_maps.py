"""Heatmaps, owner map and differences: data in, pictures out."""

import json
from dataclasses import replace

import numpy
import pytest

from components.frames import framed
from components.inspect_heatmaps import difference_picture, heatmap_picture, pick_of
from components.inspect_owners import facts_picture, owner_picture, tensors_picture
from merging.diagnostics import fisher_map, tensor_facts
from tests.benchmarks.heatmaps import large_map

HOSTILE = "<img src=x onerror=alert(1)>"
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def fisher(four_result):
    return fisher_map(four_result.prepared, four_result.recipe)


@pytest.mark.parametrize("width_px", [390, 1200])
def test_heatmaps_share_one_colour_axis_and_one_order_of_cells(fisher, width_px):
    figure = heatmap_picture(fisher, width_px).figure
    assert len(figure.data) == 4
    assert {panel.coloraxis for panel in figure.data} == {"coloraxis"}
    assert all(panel.zmin is None and panel.zmax is None for panel in figure.data)
    assert {tuple(panel.x) for panel in figure.data} == {tuple(fisher.kinds)}
    assert {tuple(panel.y) for panel in figure.data} == {tuple(fisher.layers)}
    assert [note.text for note in figure.layout.annotations] == list(fisher.models)


def test_heatmap_values_are_float32_logarithms_with_gaps_for_no_value(fisher):
    for panel, mean in zip(heatmap_picture(fisher, 1200).figure.data, fisher.mean, strict=True):
        shown = numpy.asarray(panel.z)
        assert shown.dtype == numpy.float32
        there = numpy.isfinite(mean) & (mean > 0)
        assert numpy.array_equal(numpy.isfinite(shown), there)
        assert shown[there] == pytest.approx(numpy.log10(mean[there]), rel=1e-5)


def test_the_tables_numbers_are_the_maps(fisher):
    heat, owners = heatmap_picture(fisher, 1200), owner_picture(fisher)
    assert len(heat.rows) == len(owners.rows) == sum(bool(cell) for row in fisher.tensors for cell in row)
    for row, own in zip(heat.rows, owners.rows, strict=True):
        place = (slice(None), fisher.layers.index(row[0]), fisher.kinds.index(row[1]))
        assert row[2:] == pytest.approx(numpy.log10(fisher.mean[place]), abs=1e-5)
        assert own[3:] == pytest.approx(100 * fisher.share[place], abs=1e-5)
        assert own[2] == fisher.models[int(fisher.share[place].argmax())]


def test_a_click_and_a_tables_row_hand_over_the_same_cell(fisher):
    for picture in (heatmap_picture(fisher, 1200), owner_picture(fisher), difference_picture(fisher, "loop", "large")):
        numbers = numpy.asarray(picture.figure.data[0].customdata)
        for row, pick in zip(picture.rows, picture.picks, strict=True):
            place = fisher.layers.index(row[0]), fisher.kinds.index(row[1])
            assert pick == str(numbers[place]) == pick_of(fisher, *place)


def test_what_hovering_tells_of_cells_travels_once(fisher):
    picture = heatmap_picture(fisher, 1200)
    text = picture.figure.to_json()
    for name, shape in fisher.shapes.items():
        assert text.count(f"{name} (") <= 1
        assert len(shape) in (1, 2, 3, 4)
    first = picture.figure.layout.meta["cells"][1][0]
    assert first.split("<br>")[0] == f"{fisher.tensors[1][0][0]} (64 × 64)"


def test_the_owner_map_shows_the_model_with_the_largest_share(fisher):
    figure = owner_picture(fisher).figure
    owners = numpy.asarray(figure.data[0].z)
    there = numpy.isfinite(owners)
    largest = numpy.nan_to_num(fisher.share, nan=-1.0)
    assert numpy.array_equal(owners[there], largest.argmax(0)[there].astype(numpy.float32))
    assert [mark.name for mark in figure.data[1:]] == list(fisher.models)
    for row, column in zip(*numpy.nonzero(there), strict=True):
        assert figure.data[0].text[row][column] == f"{100 * largest.max(0)[row, column]:.0f}"


def test_a_difference_is_the_logarithm_of_the_ratio_of_normalised_means(fisher):
    heat = difference_picture(fisher, "loop", "parity").figure.data[0]
    mean = fisher.mean / fisher.traces[:, None, None]
    expected = numpy.log10(mean[2] / mean[0])
    numpy.testing.assert_allclose(heat.z, expected, rtol=1e-3, atol=1e-5)
    assert heat.zmid == 0
    assert heat.zmax == -heat.zmin == pytest.approx(numpy.nanmax(numpy.abs(expected)), rel=1e-4)
    again = difference_picture(fisher, "parity", "loop").figure.data[0]
    numpy.testing.assert_allclose(again.z, -numpy.asarray(heat.z), atol=1e-6)


def test_identical_models_do_not_differ_anywhere(fisher):
    same = replace(fisher, mean=numpy.stack([fisher.mean[0]] * 4), traces=numpy.full(4, fisher.traces[0]))
    picture = difference_picture(same, "parity", "large")
    assert numpy.nanmax(numpy.abs(picture.figure.data[0].z)) == 0
    assert "surer than large in 0 of" in picture.sentence


def test_fishers_that_are_zero_everywhere_have_a_sentence_and_no_colours(fisher):
    nothing = replace(
        fisher,
        mean=0 * fisher.mean,
        share=0 * fisher.share,
        traces=0 * fisher.traces,
        total_share=0 * fisher.total_share,
    )
    heat, owners = heatmap_picture(nothing, 1200), owner_picture(nothing)
    assert "zero everywhere" in heat.sentence
    assert "Nobody owns anything" in owners.sentence
    assert all(numpy.isnan(panel.z).all() for panel in (*heat.figure.data, owners.figure.data[0]))
    assert "nothing can be compared" in difference_picture(nothing, "parity", "large").sentence
    one = replace(
        fisher, mean=fisher.mean * numpy.array([0, 1, 1, 1])[:, None, None], traces=fisher.traces * [0, 1, 1, 1]
    )
    assert "The Fisher of parity is zero everywhere." in heatmap_picture(one, 1200).sentence


def test_the_maps_of_a_large_model_stay_under_300_kilobytes():
    large = large_map(layers=48, kinds=16, models=8)
    for picture in (heatmap_picture(large, 1200), owner_picture(large), difference_picture(large, *large.models[:2])):
        text = picture.figure.to_json()
        assert len(text.encode()) < MOST_BYTES
        # As typed arrays in base64, not as lists of numbers.
        assert all(set(trace["z"]) == {"dtype", "bdata", "shape"} for trace in json.loads(text)["data"] if "z" in trace)


def test_sixteen_models_have_a_panel_each():
    large = large_map(layers=4, kinds=3, models=16)
    assert len(heatmap_picture(large, 1200).figure.data) == 16
    assert len(owner_picture(large).figure.data) == 17


def test_facts_and_tensors_stand_in_their_tables(four_result, fisher):
    rows = facts_picture(fisher).rows
    assert [row[0] for row in rows] == list(fisher.models)
    assert [row[1] for row in rows] == pytest.approx(list(fisher.traces))
    assert sum(row[3] for row in rows) == pytest.approx(100)
    names = fisher.tensors[1][0]
    picture = tensors_picture("layer 0, q", tensor_facts(four_result.prepared, four_result.recipe, names))
    assert picture.sentence == f"Layer 0, q: {len(names)} tensors."
    assert [row[0] for row in picture.rows] == [name for name in names for _ in fisher.models]
    assert picture.rows[0][1] == "64 × 64"


def test_names_are_text_in_every_picture(four_result):
    fisher = fisher_map(four_result.prepared, four_result.recipe)
    hostile = replace(fisher, models=(HOSTILE, "b", "c", "d"))
    pictures = [heatmap_picture(hostile, 1200), owner_picture(hostile), difference_picture(hostile, HOSTILE, "b")]
    for picture in [*pictures, facts_picture(hostile)]:
        sentence, figure, numbers = framed(picture, "name")
        assert "<img" not in f"{sentence} {'' if figure is None else figure.to_dict()} {numbers}"
        assert "&lt;img" in sentence + numbers
