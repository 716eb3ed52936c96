"""The numbers behind the heatmaps, against sums over the parameters."""

from dataclasses import replace

import numpy
import pytest

from merging.diagnostics import fisher_map
from merging.parameters import place_of
from tests import cases


@pytest.fixture(scope="module")
def weighted(four_result):
    return four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])


def test_every_merged_parameter_stands_in_exactly_one_cell(four_result, weighted):
    found = fisher_map(four_result.prepared, weighted)
    listed = [name for row in found.tensors for cell in row for name in cell]
    assert sorted(listed) == sorted(four_result.merged)
    assert found.models == tuple(four_result.prepared.names)
    assert found.layers == ("embedding", "layer 0", "layer 1", "layer 2", "layer 3", "final")
    for layer, row in zip(found.layers, found.tensors, strict=True):
        for kind, cell in zip(found.kinds, row, strict=True):
            assert all(place_of(name) == (layer, kind) for name in cell)


def test_a_cells_mean_is_that_of_its_coordinates_and_nan_where_it_has_none(four_result, weighted):
    found = fisher_map(four_result.prepared, weighted)
    for model, fisher in enumerate(four_result.prepared.fishers):
        for row, cells in enumerate(found.tensors):
            for column, cell in enumerate(cells):
                numbers = [fisher[name].double().numpy().ravel() for name in cell]
                expected = numpy.concatenate(numbers).mean() if cell else numpy.nan
                numpy.testing.assert_allclose(found.mean[model, row, column], expected, rtol=1e-6)


@pytest.mark.parametrize("normalise", cases.NORMALISATIONS)
@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_shares_are_those_of_the_merge_and_sum_to_one(four_result, weighted, normalise, floor):
    recipe = replace(weighted, fisher=replace(weighted.fisher, normalise=normalise, floor=floor))
    found = fisher_map(four_result.prepared, recipe)
    names = list(four_result.merged)
    owned = []
    for weight, fisher in zip((0.1, 0.2, 0.3, 0.4), four_result.prepared.fishers, strict=True):
        floored = {name: fisher[name].double().clamp_min(floor) for name in names}
        flat = numpy.concatenate([floored[name].numpy().ravel() for name in names])
        scale = {"none": 1.0, "trace": flat.sum(), "l2": numpy.sqrt((flat**2).sum())}[normalise]
        cells = [
            [float(sum(floored[n].sum() for n in cell)) if cell else numpy.nan for cell in r] for r in found.tensors
        ]
        owned.append(weight * numpy.array(cells) / scale)
    total = numpy.sum(owned, axis=0)
    numpy.testing.assert_allclose(found.share, numpy.stack(owned) / total, rtol=1e-5)
    there = ~numpy.isnan(total)
    numpy.testing.assert_allclose(found.share.sum(0)[there], 1)
    numpy.testing.assert_allclose(found.total_share, numpy.nansum(owned, axis=(1, 2)) / numpy.nansum(total), rtol=1e-5)


def test_traces_and_zeros_are_those_of_the_raw_fishers(four_result, weighted):
    found = fisher_map(four_result.prepared, weighted)
    for model, fisher in enumerate(four_result.prepared.fishers):
        flat = numpy.concatenate([fisher[name].double().numpy().ravel() for name in four_result.merged])
        assert found.traces[model] == pytest.approx(flat.sum(), rel=1e-5)
        assert found.zeros[model] == pytest.approx((flat == 0).mean())


def test_a_model_with_weight_zero_owns_nothing(four_result):
    found = fisher_map(four_result.prepared, four_result.recipe.with_weights([1, 0, 1, 0]))
    assert numpy.nanmax(found.share[[1, 3]]) == 0
    assert found.total_share[[1, 3]].tolist() == [0, 0]
