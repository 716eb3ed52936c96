"""The loss plane and the matrix of every model on every task, against what `merging` itself evaluates."""

from dataclasses import replace

import numpy
import pytest
import torch

from merging.diagnostics import loss_plane, task_matrix
from merging.diagnostics.distances import base_of
from merging.diagnostics.planes import barycentric, mean_loss, plane_through
from merging.errors import Cancelled, RecipeError
from merging.evaluation import Prediction
from merging.metrics import accuracy
from tests.cases import quick_recipe


def square(x, y, z=0.0):
    """Three parameters in two tensors."""
    return {"a": torch.tensor([x, y]), "b": torch.tensor([[z]])}


def test_a_plane_has_orthonormal_axes_and_its_corners_lie_on_it():
    corners = [square(1.0, 1.0), square(4.0, 1.0), square(2.0, 3.0)]
    plane = plane_through(corners, "abc")
    assert [plane.project(corner) for corner in corners] == [
        pytest.approx((0, 0, 0)),
        pytest.approx((3, 0, 0)),
        pytest.approx((1, 2, 0)),
    ]
    for x, y in ((0.5, -1.0), (3.0, 2.0)):
        assert plane.project(plane.at(x, y)) == pytest.approx((x, y, 0), abs=1e-6)


def test_a_point_off_the_plane_falls_on_it_at_a_right_angle():
    plane = plane_through([square(0.0, 0.0), square(1.0, 0.0), square(0.0, 1.0)], "abc")
    assert plane.project(square(0.3, 0.4, -7.0)) == pytest.approx((0.3, 0.4, 7.0))


@pytest.mark.parametrize(
    "third", [square(2.0, 0.0), square(1.0, 0.0), square(0.0, 0.0)], ids=["on a line", "the second", "the first"]
)
def test_models_on_one_line_span_no_plane(third):
    with pytest.raises(RecipeError, match="There is no plane through"):
        plane_through([square(0.0, 0.0), square(1.0, 0.0), third], "abc")


def test_two_equal_first_corners_span_no_plane():
    with pytest.raises(RecipeError, match="There is no plane through"):
        plane_through([square(0.0, 0.0), square(0.0, 0.0), square(1.0, 0.0)], "abc")


def test_parts_of_corners_are_those_of_the_triangle():
    corners = [(0.0, 0.0), (2.0, 0.0), (1.0, 4.0)]
    for place, corner in enumerate(corners):
        assert barycentric(corners, *corner) == pytest.approx([float(place == other) for other in range(3)])
    assert barycentric(corners, 1.0, 4 / 3) == pytest.approx([1 / 3] * 3)


def test_the_mean_loss_is_that_of_the_tasks():
    one = Prediction(numpy.array([[0.5, 0.5], [0.25, 0.75]], numpy.float32), numpy.array([0, 0]))
    two = Prediction(numpy.array([[1.0, 0.0]], numpy.float32), numpy.array([0]))
    expected = (numpy.log(2) + numpy.log(4)) / 2
    assert mean_loss({"one": one, "two": two}) == pytest.approx((expected + 0) / 2)
    impossible = Prediction(numpy.array([[1.0, 0.0]], numpy.float32), numpy.array([1]))
    assert 80 < mean_loss({"one": impossible}) < 100


@pytest.fixture(scope="module")
def drawn(four_result):
    recipe = four_result.recipe.with_weights([1, 1, 1, 0])
    return recipe, loss_plane(four_result.prepared, recipe, ["parity", "large", "loop"], points=5)


def test_the_corners_have_the_models_own_losses(four_result, drawn):
    _, plane = drawn
    prepared = four_result.prepared
    for place, point in enumerate(plane.corners):
        alone = [float(place == other) for other in range(4)]
        own = prepared.predict_merged(prepared.parameters()[place], "validation", alone)
        assert point.loss == pytest.approx(mean_loss(own), rel=1e-6)
        assert point.off == 0
        singles = prepared.fixed_predictions("validation")[0][point.name]
        assert mean_loss({point.name: own[point.name]}) == pytest.approx(mean_loss(singles), rel=1e-5)


def test_the_isotropic_average_of_the_corners_lies_in_the_plane_and_the_fisher_merge_does_not(four_result, drawn):
    recipe, plane = drawn
    isotropic, fisher = plane.merges
    longest = numpy.hypot(plane.corners[1].x, plane.corners[1].y)
    assert isotropic.off < 1e-5 * longest
    assert isotropic.x == pytest.approx(sum(point.x for point in plane.corners) / 3)
    assert isotropic.y == pytest.approx(sum(point.y for point in plane.corners) / 3)
    assert fisher.off > 0.01 * longest
    for point in plane.merges:
        merged = four_result.prepared.merge(recipe, rule=point.name)
        predictions = four_result.prepared.predict_merged(merged, "validation", recipe.weights)
        assert point.loss == pytest.approx(mean_loss(predictions))


def test_the_grid_is_the_loss_where_it_stands(four_result, drawn):
    recipe, plane = drawn
    prepared = four_result.prepared
    bodies = prepared.parameters()[:3]
    through = plane_through(bodies, ["parity", "large", "loop"])
    for row, column in ((0, 0), (2, 3), (4, 1)):
        point = {name: own.float() for name, own in through.at(plane.x[column], plane.y[row]).items()}
        expected = mean_loss(prepared.predict_merged(point, "validation", recipe.weights))
        assert plane.loss[row, column] == pytest.approx(expected, rel=1e-5)


def test_the_base_can_be_a_corner_and_a_missing_one_is_told(four_result):
    found = loss_plane(four_result.prepared, four_result.recipe, ["parity", "large", "base"], points=2)
    assert [point.name for point in found.corners] == ["parity", "large", "base"]
    without = replace(four_result.recipe, base=None)
    with pytest.raises(RecipeError, match="expected a base in the recipe, got none"):
        loss_plane(four_result.prepared, without, ["parity", "large", "base"], points=2)


@pytest.mark.parametrize(
    ("corners", "told"),
    [(["parity", "large"], "got 2"), (["parity", "parity", "large"], "got 2"), (["parity", "large", "nine"], "nine")],
)
def test_wrong_corners_are_told(four_result, corners, told):
    with pytest.raises(RecipeError, match=told):
        loss_plane(four_result.prepared, four_result.recipe, corners, points=2)


def test_drawing_a_plane_can_be_stopped(four_result):
    def stop(fraction, text):
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        loss_plane(four_result.prepared, four_result.recipe, ["parity", "large", "loop"], points=3, on_progress=stop)


def test_the_matrix_holds_what_merging_itself_evaluates(four_result):
    found = task_matrix(four_result.prepared, four_result.recipe)
    assert found.rows == (*four_result.prepared.names, "base", "isotropic", "fisher", "ensemble")
    assert found.tasks == ("parity", "large", "loop", "remainder")
    assert found.unseen == ()
    for method in ("isotropic", "fisher", "ensemble"):
        row = found.cells[found.rows.index(method)]
        assert {task: cell.score for task, cell in row.items()} == four_result.scores[method]
        assert found.mean(found.rows.index(method)) == pytest.approx(four_result.mean(method))
    for index, name in enumerate(four_result.prepared.names):
        for task, cell in found.cells[index].items():
            assert cell.is_own == (task == name)
            assert cell.is_lent == (task not in four_result.singles[name])
            if not cell.is_lent:
                assert cell.score == four_result.singles[name][task]


def test_a_lent_head_answers_as_in_the_ensemble(four_result):
    prepared = four_result.prepared
    found = task_matrix(prepared, four_result.recipe)
    members = [
        prepared.predict_merged(body, "test", [float(place == other) for other in range(4)])["loop"]
        for place, body in enumerate(prepared.parameters())
    ]
    assert [found.cells[place]["loop"].score for place in range(4)] == [accuracy(one.correct) for one in members]
    mean = numpy.mean([one.probabilities for one in members], 0)
    expected = accuracy(mean.argmax(1) == members[0].labels)
    assert found.cells[found.rows.index("ensemble")]["loop"].score == expected


def test_the_base_has_each_tasks_head(four_result):
    prepared = four_result.prepared
    found = task_matrix(prepared, four_result.recipe)
    own = prepared.predict_merged(
        {name: base_of(prepared, four_result.recipe)[name] for name in four_result.merged}, "test", [1, 1, 1, 1]
    )
    row = found.cells[found.rows.index("base")]
    assert {task: cell.score for task, cell in row.items()} == {
        task: accuracy(one.correct) for task, one in own.items()
    }
    assert all(cell.is_lent for cell in row.values())


def test_without_a_base_there_is_no_row_for_it_and_a_note(four_result):
    found = task_matrix(four_result.prepared, replace(four_result.recipe, base=None))
    assert "base" not in found.rows
    assert "names no base" in found.note


def test_shifted_sets_are_unseen_and_merged_heads_keep_the_bases_row(tmp_path):
    from merging.pipeline import prepare

    recipe = quick_recipe("robust")
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, examples=40))
    prepared = prepare(recipe)
    found = task_matrix(prepared, recipe)
    assert found.unseen == ("rotated", "inverted", "noisy", "blurred")
    assert found.rows == ("robust", "narrow", "base", "isotropic", "fisher", "ensemble")
    assert [cell.is_own for cell in found.cells[0].values()] == [True, False, False, False, False]
    alone = task_matrix(prepared, recipe.with_weights([1, 0]))
    assert alone.cells[alone.rows.index("isotropic")]["noisy"].score == found.cells[0]["noisy"].score


def test_a_task_of_three_rows_has_its_cells(four_result):
    from merging.pipeline import prepare

    recipe = quick_recipe("four-tasks")
    recipe = replace(recipe, models=recipe.models[:2], evaluation=replace(recipe.evaluation, examples=3))
    found = task_matrix(prepare(recipe), recipe)
    assert {cell.score.n for own in found.cells for cell in own.values()} == {3}
