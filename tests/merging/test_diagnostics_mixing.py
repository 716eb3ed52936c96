"""Mixing weights, similarity and distances, against closed forms and sums by hand."""

from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn

from merging.diagnostics import (
    distances_moved,
    fisher_map,
    fisher_percentiles,
    mixing_histogram,
    similarity,
    tensor_facts,
)
from merging.diagnostics.distances import base_of, grouped, moved
from merging.diagnostics.mixing import stacked_pieces
from merging.diagnostics.similarity import cosines, task2vec_distance, unit_axes, unit_means
from merging.errors import FisherError, RecipeError

FIRST, SECOND = numpy.array([1.0, 3.0, 0.0]), numpy.array([4.0, 1.0, 1.0])


def with_fishers(prepared, fishers):
    """The same preparation with other Fishers."""
    return replace(prepared, fishers=fishers)


def known_fishers(prepared, *values):
    """Fishers that are one number everywhere."""
    template = prepared.fishers[0]
    return with_fishers(
        prepared, [{name: torch.full_like(own, value) for name, own in template.items()} for value in values]
    )


def flat(mapping, names):
    """All coordinates in a row, in float64."""
    return numpy.concatenate([mapping[name].double().numpy().ravel() for name in names])


def test_known_fishers_fall_into_the_bins_of_their_shares(four_result):
    prepared = known_fishers(four_result.prepared, 1.0, 2.0, 3.0, 4.0)
    raw = replace(four_result.recipe, fisher=replace(four_result.recipe.fisher, normalise="none"))
    found = mixing_histogram(prepared, raw.with_weights([1, 1, 1, 1]), bins=20)
    assert found.means == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found.unowned == 0
    for row, share in zip(found.counts, (0.1, 0.2, 0.3, 0.4), strict=True):
        (place,) = numpy.flatnonzero(row)
        assert row[place] == found.total
        assert found.edges[place] - 1e-9 <= share <= found.edges[place + 1] + 1e-9


def test_the_weights_shift_the_shares(four_result):
    prepared = known_fishers(four_result.prepared, 1.0, 1.0, 1.0, 1.0)
    found = mixing_histogram(prepared, four_result.recipe, [6, 2, 1, 1])
    assert found.means == pytest.approx([0.6, 0.2, 0.1, 0.1])
    assert found.weights == pytest.approx((0.6, 0.2, 0.1, 0.1))


def test_the_histogram_is_that_of_all_coordinates_at_once(four_result):
    prepared, recipe = four_result.prepared, four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    found = mixing_histogram(prepared, recipe, bins=10)
    raw = numpy.stack([flat(fisher, four_result.merged) for fisher in prepared.fishers])
    parts = numpy.array([[0.1], [0.2], [0.3], [0.4]]) * raw / raw.sum(1, keepdims=True)
    owned = parts.sum(0) > 0
    shares = parts[:, owned] / parts[:, owned].sum(0)
    assert (found.total, found.unowned) == (raw.shape[1], int((~owned).sum()))
    assert found.means == pytest.approx(shares.mean(1))
    for row, own in zip(found.counts, shares, strict=True):
        # A share on an edge may fall to either side of it by rounding.
        assert numpy.abs(row - numpy.histogram(own, bins=10, range=(0, 1))[0]).sum() <= 4


@pytest.mark.parametrize("size", [7, 10**6])
def test_pieces_hold_every_coordinate_once(four_result, size):
    names = list(four_result.merged)[:9]
    pieces = list(stacked_pieces(four_result.prepared.fishers, names, size))
    assert all(piece.shape[1] <= size for piece in pieces)
    together = torch.cat(pieces, 1).numpy()
    for row, fisher in zip(together, four_result.prepared.fishers, strict=True):
        assert numpy.array_equal(row, flat(fisher, names))


def test_a_fisher_that_is_zero_everywhere_owns_nothing_and_all_zero_is_unowned(four_result):
    recipe = four_result.recipe
    found = mixing_histogram(known_fishers(four_result.prepared, 0.0, 1.0, 1.0, 1.0), recipe)
    assert found.means == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    nothing = mixing_histogram(known_fishers(four_result.prepared, 0.0, 0.0, 0.0, 0.0), recipe)
    assert nothing.unowned == nothing.total
    assert nothing.counts.sum() == 0
    floored = replace(recipe, fisher=replace(recipe.fisher, floor=1e-6))
    assert mixing_histogram(known_fishers(four_result.prepared, 0.0, 0.0, 0.0, 0.0), floored).means == pytest.approx(
        [0.25] * 4
    )


def test_a_fisher_that_is_not_a_number_is_told_with_its_model(four_result):
    prepared = known_fishers(four_result.prepared, 1.0, 1.0, float("nan"), 1.0)
    for look in (mixing_histogram, fisher_percentiles, similarity, fisher_map):
        with pytest.raises(FisherError, match='The Fisher of "loop"'):
            look(prepared, four_result.recipe)


def test_percentiles_zeros_and_floor_are_those_of_the_raw_entries(four_result):
    recipe = replace(four_result.recipe, fisher=replace(four_result.recipe.fisher, floor=1e-5))
    found = fisher_percentiles(four_result.prepared, recipe)
    assert found.sampled is None
    for index, fisher in enumerate(four_result.prepared.fishers):
        entries = flat(fisher, four_result.merged)
        assert found.values[index] == pytest.approx(numpy.percentile(entries, found.percents))
        assert found.zeros[index] == pytest.approx((entries == 0).mean())
        assert found.at_floor[index] == pytest.approx((entries <= 1e-5).mean())


def test_percentiles_of_a_sample_are_near_and_their_ends_exact(four_result):
    whole = fisher_percentiles(four_result.prepared, four_result.recipe)
    found = fisher_percentiles(four_result.prepared, four_result.recipe, exact=1000, sampled=60_000)
    assert found.sampled == 60_000
    assert numpy.array_equal(found.values[:, [0, -1]], whole.values[:, [0, -1]])
    middle = slice(2, -2)
    assert found.values[:, middle] == pytest.approx(whole.values[:, middle], rel=0.15)
    again = fisher_percentiles(four_result.prepared, four_result.recipe, exact=1000, sampled=60_000)
    assert numpy.array_equal(again.values, found.values)


def test_task2vec_and_the_cosine_are_the_closed_forms():
    assert task2vec_distance(FIRST, SECOND) == pytest.approx(0.656891, abs=5e-7)
    fishers = [{"a": torch.tensor(FIRST)}, {"a": torch.tensor(SECOND)}]
    assert 1 - cosines(fishers, ["a"])[0, 1] == pytest.approx(0.478251, abs=5e-7)


def test_task2vec_is_a_distance_that_a_fisher_has_none_of_from_itself():
    assert task2vec_distance(FIRST, FIRST) == pytest.approx(0, abs=1e-12)
    assert task2vec_distance(FIRST, SECOND) == task2vec_distance(SECOND, FIRST)
    assert task2vec_distance(numpy.array([1.0, 0.0]), numpy.array([0.0, 5.0])) == 1
    assert numpy.isnan(task2vec_distance(FIRST, 0 * FIRST))


def test_a_common_factor_of_a_fisher_leaves_its_cosine():
    tiny = [{"a": torch.tensor(FIRST)}, {"a": 1e-180 * torch.tensor(SECOND)}]
    assert 1 - cosines(tiny, ["a"])[0, 1] == pytest.approx(0.478251, abs=5e-7)
    nothing = cosines([{"a": torch.tensor(FIRST)}, {"a": torch.zeros(3)}], ["a"])
    assert nothing[0, 0] == pytest.approx(1)
    assert numpy.isnan(nothing[0, 1])


def test_units_are_the_outputs_of_each_kind_of_layer():
    class Conv1D(nn.Module):  # Transformers' own, by its name: weight (in, out)
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 10.0, 100.0], [3.0, 30.0, 300.0]]))

    model = nn.Module()
    model.line, model.turned, model.words = nn.Linear(2, 3), Conv1D(), nn.Embedding(4, 2)
    model.first = nn.Parameter(torch.zeros(1, 1, 5))
    names = ["line.weight", "line.bias", "turned.weight", "words.weight", "first"]
    axes = unit_axes(model, names)
    fisher = dict(model.named_parameters())
    assert [len(unit_means(fisher, [name], axes)) for name in names] == [3, 3, 3, 2, 5]
    assert unit_means(fisher, ["turned.weight"], axes) == pytest.approx([2, 20, 200])
    assert unit_means(fisher, ["line.weight"], axes) == pytest.approx(fisher["line.weight"].detach().mean(1).numpy())


def test_similarities_of_models_are_those_of_their_bodies(four_result):
    prepared = four_result.prepared
    found = similarity(prepared, four_result.recipe)
    bodies = [flat(fisher, four_result.merged) for fisher in prepared.fishers]
    expected = numpy.array([[a @ b / numpy.sqrt((a @ a) * (b @ b)) for b in bodies] for a in bodies])
    numpy.testing.assert_allclose(found.cosine, expected, rtol=1e-6)
    numpy.testing.assert_allclose(numpy.diag(found.task2vec), 0, atol=1e-9)
    numpy.testing.assert_allclose(found.task2vec, found.task2vec.T)


def test_heads_are_left_out_also_where_they_are_merged(seeds_result):
    prepared = seeds_result.prepared
    assert any(name.startswith("classifier") for name in seeds_result.merged)
    found = similarity(prepared, seeds_result.recipe)
    changed = [
        {name: torch.full_like(own, 9.0 * index) if name.startswith("classifier") else own for name, own in one.items()}
        for index, one in enumerate(prepared.fishers)
    ]
    again = similarity(with_fishers(prepared, changed), seeds_result.recipe)
    numpy.testing.assert_array_equal(found.task2vec, again.task2vec)
    numpy.testing.assert_array_equal(found.cosine, again.cosine)


def test_a_distance_is_the_norm_of_what_moved_over_that_of_its_origin():
    origin = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    model = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[4.0]])}
    assert moved(model, origin, ["a", "b"]) == pytest.approx(1 / 5)
    assert moved(model, origin, ["a"]) == pytest.approx(1 / 3)
    assert moved(origin, origin, ["a", "b"]) == 0
    zero = {"a": torch.zeros(2)}
    assert moved(zero, zero, ["a"]) == 0
    assert numpy.isnan(moved(origin, zero, ["a"]))


@pytest.mark.parametrize("by", ["layer", "kind"])
def test_distances_are_those_of_the_layers_and_kinds(four_result, by):
    prepared, recipe = four_result.prepared, four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    found = distances_moved(prepared, recipe, by=by)
    base, groups = base_of(prepared, recipe), grouped(list(four_result.merged), by)
    assert found.groups == tuple(groups)
    assert sorted(name for own in groups.values() for name in own) == sorted(four_result.merged)
    assert found.series == (*prepared.names, "isotropic", "fisher")
    merges = [prepared.merge(recipe, rule=rule) for rule in ("isotropic", "fisher")]
    for row, body in enumerate([*prepared.parameters(), *merges]):
        for column, names in enumerate(groups.values()):
            for values, origin in ((found.from_base, base), (found.from_isotropic, merges[0])):
                away = numpy.linalg.norm(flat(body, names) - flat(origin, names))
                assert values[row, column] == pytest.approx(away / numpy.linalg.norm(flat(origin, names)), abs=1e-12)
    assert found.from_isotropic[-2].tolist() == [0.0] * len(groups)


def test_without_a_base_there_are_no_distances_from_it(four_result):
    found = distances_moved(four_result.prepared, replace(four_result.recipe, base=None))
    assert found.from_base is None
    assert numpy.isfinite(found.from_isotropic).all()


def test_a_base_of_the_hub_is_not_downloaded_unasked(four_result):
    recipe = replace(four_result.recipe, base="nobody/nothing")
    assert base_of(four_result.prepared, recipe) is None


def test_the_facts_of_tensors_are_those_of_their_entries(four_result):
    prepared, recipe = four_result.prepared, four_result.recipe.with_weights([1, 0, 1, 2])
    names = list(four_result.merged)[4:6]
    facts = tensor_facts(prepared, recipe, names)
    assert [(own.name, own.model) for own in facts] == [(name, model) for name in names for model in prepared.names]
    for own in facts:
        entries = flat(prepared.fishers[prepared.names.index(own.model)], [own.name])
        assert own.shape == tuple(four_result.merged[own.name].shape)
        assert (own.mean, own.largest) == pytest.approx((entries.mean(), entries.max()))
        assert own.zeros == (entries == 0).mean()
    for name in names:
        shares = [own.share for own in facts if own.name == name]
        assert sum(shares) == pytest.approx(1)
        assert shares[1] == 0
    traces = [flat(fisher, four_result.merged).sum() for fisher in prepared.fishers]
    parts = [
        weight * flat(fisher, names[:1]).sum() / trace
        for weight, fisher, trace in zip((1, 0, 1, 2), prepared.fishers, traces, strict=True)
    ]
    assert [own.share for own in facts[:4]] == pytest.approx([part / sum(parts) for part in parts])


def test_weights_without_meaning_are_told(four_result):
    with pytest.raises(RecipeError, match="expected one for each"):
        mixing_histogram(four_result.prepared, four_result.recipe, [1, 2])
