"""Mixing, similarity, distances, plane and matrix as pictures: their numbers are merging's own."""

from dataclasses import replace

import numpy
import pytest

from components.frames import framed
from components.inspect_figures import (
    cosine_picture,
    mixing_picture,
    moved_picture,
    percentiles_picture,
    task2vec_picture,
)
from components.inspect_maps import matrix_picture, plane_picture
from merging.diagnostics import (
    distances_moved,
    fisher_percentiles,
    loss_plane,
    mixing_histogram,
    similarity,
    task_matrix,
)

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def recipe(four_result):
    return four_result.recipe.with_weights([0.4, 0.3, 0.2, 0.1])


@pytest.fixture(scope="module")
def mixed(four_result, recipe):
    return [mixing_histogram(four_result.prepared, recipe, weights) for weights in ([1, 1, 1, 1], None)]


def test_the_histograms_are_of_the_sliders_and_of_equal_weights(mixed):
    equal, chosen = mixed
    picture = mixing_picture(equal, chosen, 1200)
    for index in range(4):
        filled, dashed = picture.figure.data[2 * index : 2 * index + 2]
        assert filled.fill == "tozeroy"
        assert dashed.line.dash == "dash"
        for trace, histogram in ((filled, chosen), (dashed, equal)):
            assert sum(trace.y) == pytest.approx(100, rel=1e-5)
            assert list(trace.y) == pytest.approx(100 * histogram.counts[index] / histogram.counts[index].sum())
    assert f"{100 * chosen.means.max():.1f} %" in picture.sentence
    assert "The sliders are equal now" not in picture.sentence
    assert "The sliders are equal now" in mixing_picture(equal, equal, 1200).sentence


def test_nothing_to_mix_is_said(mixed):
    nothing = replace(mixed[0], unowned=mixed[0].total, counts=0 * mixed[0].counts, means=0 * mixed[0].means)
    picture = mixing_picture(nothing, nothing, 390)
    assert "nothing to mix" in picture.sentence
    assert all(sum(trace.y) == 0 for trace in picture.figure.data)


def test_percentiles_are_drawn_and_listed(four_result, recipe):
    floored = replace(recipe, fisher=replace(recipe.fisher, floor=1e-5))
    found = fisher_percentiles(four_result.prepared, floored)
    picture = percentiles_picture(found)
    for index, trace in enumerate(picture.figure.data):
        assert [value for value in trace.y if value is not None] == [
            value for value in found.values[index] if value > 0
        ]
        assert picture.rows[index][1:10] == pytest.approx(list(found.values[index]))
        assert picture.rows[index][-1] == pytest.approx(100 * found.at_floor[index])
    assert "The floor of 1e-05 lifts" in picture.sentence
    zero = replace(found, values=0 * found.values, zeros=numpy.ones(4))
    assert "100 % of the entries of parity are exactly zero" in percentiles_picture(zero).sentence


def test_the_most_alike_are_named(four_result, recipe):
    found = similarity(four_result.prepared, recipe)
    for picture, values, best in (
        (cosine_picture(found), found.cosine, numpy.nanmax),
        (task2vec_picture(found), found.task2vec, numpy.nanmin),
    ):
        others = values.copy()
        numpy.fill_diagonal(others, numpy.nan)
        row, column = numpy.argwhere(others == best(others))[0]
        assert f"{found.models[row]} and {found.models[column]}" in picture.sentence
        assert f"{others[row, column]:.3f}" in picture.sentence
        assert [row[1:] for row in picture.rows] == [pytest.approx(list(own)) for own in values]
    nothing = replace(found, cosine=numpy.full((4, 4), numpy.nan))
    assert "Nothing can be compared" in cosine_picture(nothing).sentence


def test_distances_are_drawn_in_per_cent_and_the_average_not_from_itself(four_result, recipe):
    found = distances_moved(four_result.prepared, recipe)
    for origin, values in (("base", found.from_base), ("isotropic", found.from_isotropic)):
        picture = moved_picture(found, origin=origin)
        names = [trace.name for trace in picture.figure.data]
        assert ("isotropic average" in names) == (origin == "base")
        shown = [index for index in range(6) if origin == "base" or index != 4]
        for index, trace in zip(shown, picture.figure.data, strict=True):
            assert list(trace.y) == pytest.approx(100 * values[index])
    same = replace(found, from_base=0 * found.from_base)
    assert "Nothing has moved" in moved_picture(same, origin="base").sentence


def test_the_matrix_marks_own_tasks_lent_heads_and_unseen_sets(four_result, recipe):
    found = task_matrix(four_result.prepared, recipe)
    picture = matrix_picture(replace(found, unseen=("loop",)), 1200)
    heat = picture.figure.data[0]
    assert list(heat.x) == ["parity", "large", "loop (unseen)", "remainder"]
    for row, own in enumerate(found.cells):
        for column, cell in enumerate(own.values()):
            assert heat.z[row, column] == pytest.approx(100 * cell.score.value, rel=1e-5)
            text = heat.text[row][column]
            assert f"{100 * cell.score.value:.1f}" in text
            assert (text.startswith("<b>") and "●" in text) == cell.is_own
            assert ("†" in text) == cell.is_lent
            assert picture.rows[row][1 + 2 * column] == 100 * cell.score.value
    assert f"{100 * found.mean(found.rows.index('fisher')):.1f} %" in picture.sentence
    narrow = matrix_picture(found, 390).figure.data[0]
    assert narrow.text[0][0] == f"<b>{100 * found.cells[0]['parity'].score.value:.0f}●</b>"


def test_the_plane_holds_its_points_and_says_how_far_off_they_are(four_result, recipe):
    found = loss_plane(four_result.prepared, recipe, ["parity", "large", "loop"], points=3)
    picture = plane_picture(found, 1200)
    contour, *marks = picture.figure.data
    assert numpy.allclose(contour.z, found.loss)
    points = [*found.corners, *found.merges]
    assert [(mark.x[0], mark.y[0]) for mark in marks] == [(point.x, point.y) for point in points]
    assert len({(mark.marker.symbol, mark.marker.color) for mark in marks}) == 5
    for point in found.merges:
        assert f"{point.off:.3g} off" in picture.sentence
        assert f"{point.loss:.3f}" in picture.sentence
    assert picture.rows[0] == ["parity", *(getattr(found.corners[0], part) for part in ("x", "y", "off", "loss"))]
    assert len(picture.rows) == 5 + 9


def test_names_are_text_in_every_picture(four_result, recipe, mixed):
    prepared = four_result.prepared
    names = (HOSTILE, "b", "c", "d")
    moved = replace(distances_moved(prepared, recipe), series=(*names, "isotropic", "fisher"))
    found = similarity(prepared, recipe)
    plane = loss_plane(prepared, recipe, ["parity", "large", "loop"], points=2)
    plane = replace(plane, corners=(replace(plane.corners[0], name=HOSTILE), *plane.corners[1:]))
    matrix = task_matrix(prepared, recipe)
    rows = (HOSTILE, *matrix.rows[1:])
    cells = tuple({HOSTILE: own["parity"]} for own in matrix.cells)
    pictures = [
        mixing_picture(*(replace(one, models=names) for one in mixed), 1200),
        percentiles_picture(replace(fisher_percentiles(prepared, recipe), models=names)),
        cosine_picture(replace(found, models=names)),
        task2vec_picture(replace(found, models=names)),
        moved_picture(moved, origin="base"),
        plane_picture(plane, 1200),
        matrix_picture(replace(matrix, rows=rows, tasks=(HOSTILE,), cells=cells), 1200),
    ]
    for picture in pictures:
        sentence, figure, numbers = framed(picture, "name")
        assert "<img" not in f"{sentence} {figure.to_dict()} {numbers}"
        assert "&lt;img" in numbers
