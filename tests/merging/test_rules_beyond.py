"""Rules on task vectors and on layers through `merge_parameters`: limits, agreements, bad input."""

from dataclasses import replace

import pytest
import torch

from merging import Recipe, diagonal_fisher, merge_parameters
from merging.errors import Cancelled, FisherError, RecipeError, StructureError
from merging.fisher import Fisher
from merging.layer_factors import Factors, LayerFactors
from merging.layer_merge import LayerMerge
from merging.recipe import ModelEntry
from merging.rules import RULES, RuleSettings
from tests import cases

SHAPES = {"w": (6, 5), "b": (6,), "scale": ()}


def parameters(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def problem():
    """Three models, Fishers and a base."""
    fishers = [{name: tensor.square() for name, tensor in parameters(seed).items()} for seed in (4, 5, 6)]
    return {"models": [parameters(seed) for seed in (1, 2, 3)], "fishers": fishers, "base": parameters(0)}


@pytest.fixture(scope="module")
def networks():
    """Three fine-tuned networks of one base, with factors."""
    base = cases.model_case("vit-2").double()
    models, fishers = [], []
    for seed in range(3):
        model = cases.model_case("vit-2").double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        fishers.append(diagonal_fisher(model, cases.batches_for("vit-2", 16), factors=True))
        models.append(dict(model.named_parameters()))
    return {"models": models, "fishers": fishers, "base": dict(base.named_parameters())}


def merged(problem, rule, weights=None, count=3, **settings):
    own = {name: problem[name][:count] for name in ("models", "fishers")}
    others = {name: settings.pop(name) for name in ("normalise", "zero_rule", "layer_weights") if name in settings}
    return merge_parameters(
        own["models"],
        rule,
        weights,
        fishers=own["fishers"],
        base=problem["base"],
        settings=RuleSettings(**settings),
        **others,
    )


def assert_close(found, expected, tolerance=1e-9):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("normalise", cases.NORMALISATIONS)
def test_ugm_is_fisher_merging_without_a_prior_and_task_arithmetic_with_a_large_one(problem, normalise):
    weights = [0.2, 0.3, 0.5]
    none, much = (merged(problem, "ugm", weights, prior=prior, normalise=normalise) for prior in (0.0, 1e12))
    assert_close(none, merged(problem, "fisher", weights, normalise=normalise))
    assert_close(much, merged(problem, "task_arithmetic", weights))


def test_task_arithmetic_at_scale_one_is_the_mean_and_any_scale_is_a_line(problem):
    weights = [0.2, 0.3, 0.5]
    mean = merged(problem, "isotropic", weights)
    assert_close(merged(problem, "task_arithmetic", weights), mean)
    for rule in ("task_arithmetic", "isotropic", "fisher", "ties"):
        one, far = merged(problem, rule, weights), merged(problem, rule, weights, scale=1.5)
        assert_close(far, {name: b + 1.5 * (one[name] - b) for name, b in problem["base"].items()})
        assert_close(merged(problem, rule, weights, scale=0.0), problem["base"])


def test_ties_trims_elects_signs_and_averages_who_agrees():
    base = {"w": torch.zeros(4)}
    models = [{"w": torch.tensor([4.0, 1.0, -3.0, 0.5])}, {"w": torch.tensor([-1.0, 2.0, -5.0, 0.1])}]
    found = merge_parameters(models, "ties", base=base, settings=RuleSettings(density=0.5))
    # Half of each stays: (4, 0, −3, 0) and (0, 2, −5, 0).
    assert found["w"].tolist() == [4.0, 2.0, -4.0, 0.0]


def test_dare_keeps_everything_at_density_one_and_the_mean_on_average(problem):
    assert_close(merged(problem, "dare", density=1.0), merged(problem, "task_arithmetic"))
    first, again, other = (merged(problem, "dare", density=0.3, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in SHAPES)
    assert not torch.equal(first["w"], other["w"])
    draws = [merged(problem, "dare", density=0.5, seed=seed)["w"] for seed in range(400)]
    expected = merged(problem, "task_arithmetic")["w"]
    spread = torch.stack(draws).std(0) / len(draws) ** 0.5
    assert ((torch.stack(draws).mean(0) - expected).abs() < 5 * spread + 1e-9).all()


def test_slerp_keeps_the_length_of_orthogonal_models_and_is_straight_for_parallel_ones():
    models = [{"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}]
    half = merge_parameters(models, "slerp")["w"]
    torch.testing.assert_close(half, torch.tensor([2**0.5, 2**0.5]))
    assert merge_parameters([models[0], {"w": torch.tensor([4.0, 0.0])}], "slerp")["w"].tolist() == [3.0, 0.0]
    assert merge_parameters([models[0], {"w": torch.zeros(2)}], "slerp")["w"].tolist() == [1.0, 0.0]


def test_a_row_counts_with_the_sum_of_its_fishers():
    models = [{"w": torch.tensor([[1.0, 1.0]])}, {"w": torch.tensor([[3.0, 3.0]])}]
    fishers = [{"w": torch.tensor([[1.0, 0.0]])}, {"w": torch.tensor([[0.0, 3.0]])}]
    assert merge_parameters(models, "row", fishers=fishers, normalise="none")["w"].tolist() == [[2.5, 2.5]]


@pytest.mark.parametrize("count", [2, 3])
def test_the_rules_on_layers_merge_weights_with_their_biases_and_the_rest_by_their_rest(networks, count):
    layers = set(networks["fishers"][0].factors)
    layers |= {own.bias for own in networks["fishers"][0].factors.values() if own.bias}
    for rule in cases.LAYERS:
        found, rest = merged(networks, rule, count=count), merged(networks, RULES[rule].rest, count=count)
        for name, tensor in found.items():
            assert tensor.isfinite().all()
            assert torch.equal(tensor, rest[name]) == (name not in layers), name


@pytest.mark.parametrize("rule", cases.RULES)
def test_identical_models_stay_what_they_are(networks, rule):
    one = networks["models"][0]
    same = {**networks, "models": [one] * 3, "base": one if rule == "dare" else networks["base"]}
    settings = {"density": 1.0} if rule == "ties" else {}
    assert_close(merged(same, rule, count=2 if rule == "slerp" else 3, **settings), one)


@pytest.mark.parametrize("rule", [*cases.AVERAGES, *cases.LAYERS])
def test_a_model_alone_is_returned(networks, rule):
    assert_close(merged(networks, rule, [0.0, 1.0, 0.0]), networks["models"][1])
    assert_close(merged(networks, rule, [0.0, 1.0], count=2), networks["models"][1])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rule", cases.LAYERS)
def test_one_model_with_a_zero_fisher_or_all_of_them_give_finite_numbers(networks, rule, count):
    def silent(fisher):
        nothing = diagonal_fisher(cases.model_case("vit-2").double(), cases.batches_for("vit-2", 16), factors=True)
        for own in nothing.factors.values():
            for part in (own.inputs, own.outputs, own.weighted):
                part.zero_()
        for tensor in nothing.values():
            tensor.zero_()
        return nothing

    for zeros in (1, count):
        fishers = [silent(None)] * zeros + networks["fishers"][zeros:]
        found = merged({**networks, "fishers": fishers}, rule, count=count)
        assert all(tensor.isfinite().all() for tensor in found.values())
    assert_close(found, merged(networks, "isotropic", count=count))


@pytest.mark.parametrize("rule", cases.LAYERS)
def test_no_damping_and_one_example_give_finite_numbers_for_two_models(networks, rule):
    fishers = [
        diagonal_fisher(cases.model_case("vit-2", seed=seed), cases.batches_for("vit-2", 1)[:1], factors=True)
        for seed in (0, 1)
    ]
    found = merged({**networks, "fishers": fishers}, rule, count=2, damping=0.0, shrinkage=1.0)
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_a_layer_can_have_weights_of_its_own(networks):
    found = merged(networks, "kfac", [1, 1], count=2, layer_weights={"layer 0": [1, 0]})
    whole, first = merged(networks, "kfac", [1, 1], count=2), networks["models"][0]
    for name in found:
        expected = first if "layers.0." in name or "layer.0." in name else whole
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)
    with pytest.raises(RecipeError, match='weights of layer "layer 7" have no place'):
        merged(networks, "fisher", [1, 1], count=2, layer_weights={"layer 7": [1, 0]})


@pytest.mark.parametrize("rule", ["task_arithmetic", "ties", "dare", "ugm"])
def test_rules_on_task_vectors_ask_for_the_base(problem, rule):
    with pytest.raises(RecipeError, match=f'The rule "{rule}" needs the base checkpoint'):
        merged({**problem, "base": None}, rule)
    with pytest.raises(StructureError, match="The base does not fit"):
        merged({**problem, "base": {"w": problem["base"]["w"]}}, rule)


def test_what_does_not_fit_is_refused_in_words(problem, networks):
    with pytest.raises(RecipeError, match='The rule "slerp" cannot be used: expected 2 models, got 3'):
        merged(problem, "slerp")
    with pytest.raises(RecipeError, match=r"A scale of 1.5 needs the base checkpoint"):
        merged({**problem, "base": None}, "fisher", scale=1.5)
    with pytest.raises(FisherError, match='The rule "kfac" needs Kronecker factors: expected those of 3 models, got 0'):
        merged(problem, "kfac")
    broken = next(iter(networks["fishers"][0].factors.values())).inputs
    before = float(broken[0, 0])
    broken[0, 0] = float("nan")
    with pytest.raises(FisherError, match=r"The factors of .* cannot be used: expected finite numbers"):
        merged(networks, "kfac")
    broken[0, 0] = before
    bad = {name: tensor * float("inf") for name, tensor in networks["models"][0].items()}
    with pytest.raises(StructureError, match="expected finite numbers, got NaN or infinity"):
        merged({**networks, "models": [bad, *networks["models"][1:]]}, "kfac")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"damping": -1}, "The damping cannot be used: expected a number of at least 0"),
        ({"density": 0}, "The density cannot be used: expected a number above 0 and at most 1"),
        ({"shrinkage": 2}, "The shrinkage cannot be used"),
        ({"scale": float("nan")}, "The scale cannot be used"),
        ({"scale": "much"}, "The scale cannot be used"),
        ({"prior": True}, "The prior cannot be used"),
        ({"seed": 1.5}, "The seed of the rule cannot be used"),
        ({"dampin": 1}, "unknown field"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, told):
    with pytest.raises(RecipeError, match=told):
        Recipe.of({**_fields(), "settings": settings})


def _fields(**more):
    models = [
        {"checkpoint": f"zoo:digits/{name}", "task": f"zoo:digits/{name}"} for name in ("parity", "large", "loop")
    ]
    return {"models": models, **more}


def test_a_recipe_names_rules_settings_and_layers_and_is_read_back():
    recipe = Recipe.of(
        _fields(
            rule="kfac",
            base="zoo:digits/base",
            settings={"damping": 0.2, "scale": 1.1},
            compare=["isotropic", "ties", "experts"],
            layer_weights={"layer 0": [1, 0, 0.5]},
        )
    )
    assert recipe.rules == ("kfac", "isotropic", "ties")
    assert recipe.needs_factors
    assert recipe.needs_base
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert "settings" not in Recipe.of(_fields()).to_yaml()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rule": "slerp"}, "expected 2 models, got 3"),
        ({"compare": ["slerp"]}, "expected 2 models, got 3"),
        ({"compare": ["ties"]}, 'The rule "ties" needs the base checkpoint'),
        ({"settings": {"scale": 2}}, "A scale of 2 needs the base checkpoint"),
        ({"compare": ["kfca"]}, 'unknown comparison|The comparison|"kfac"'),
        ({"layer_weights": {"layer 0": [1, 2]}}, "expected one for each of the 3 models, got 2"),
        ({"layer_weights": [1]}, "expected layers and lists of weights"),
        ({"layer_weights": {"layer 0": "all"}}, "expected a list"),
    ],
)
def test_recipes_that_cannot_be_carried_out_are_refused(fields, told):
    with pytest.raises(RecipeError, match=told):
        Recipe.of(_fields(**fields))


@pytest.mark.parametrize(
    ("rule", "settings"), [("task_arithmetic", {}), ("ties", {}), ("fisher", {"scale": 1.5}), ("kfac", {"scale": 0.5})]
)
def test_a_base_that_is_not_finite_is_refused(networks, rule, settings):
    name = "vit.encoder.layer.0.attention.output.dense.weight"
    name = name if name in networks["base"] else next(iter(networks["base"]))
    broken = {**networks["base"], name: torch.full_like(networks["base"][name], float("nan"))}
    with pytest.raises(StructureError, match=f'"{name}" of the base'):
        merged({**networks, "base": broken}, rule, **settings)


def test_a_scale_that_leaves_float32_is_refused():
    models = [{"w": torch.full((2,), 3e38)}, {"w": torch.full((2,), 3.2e38)}]
    with pytest.raises(StructureError, match="Choose a smaller scale"):
        merge_parameters(models, "isotropic", base={"w": torch.zeros(2)}, settings=RuleSettings(scale=10.0))


@pytest.mark.parametrize("rule", ["isotropic", "regmean"])
def test_a_base_without_what_is_merged_is_in_nobodys_way_where_none_is_needed(networks, rule):
    assert merged({**networks, "base": {}}, rule, zero_rule="base").keys() == networks["models"][0].keys()


@pytest.mark.parametrize("floor", [0.0, 1e-4, 1e-2])
def test_a_models_confidence_cancels_in_layers_whatever_the_floor(networks, floor):
    """Under trace normalisation one factor before a model's Fisher changes nothing; layers have no floor."""
    fishers = [own for own in networks["fishers"][:2]]
    quiet = replace(
        fishers[1],
        factors=Factors(
            {
                name: replace(own, outputs=1e-3 * own.outputs, weighted=1e-3 * own.weighted)
                for name, own in fishers[1].factors.items()
            },
            fishers[1].examples,
        ),
        **{"tensors": {name: 1e-3 * tensor for name, tensor in fishers[1].items()}},
    )
    asked = {"floor": floor, "normalise": "trace"}
    one, other = (
        merge_parameters(networks["models"][:2], "kfac", fishers=[fishers[0], second], **asked)
        for second in (fishers[1], quiet)
    )
    for name in fishers[0].factors:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", ["kfac", "regmean_weighted"])
@pytest.mark.parametrize("count", [2, 3])
def test_layers_for_which_no_factor_speaks_are_the_mean(networks, rule, count):
    """A is known where no gradient was: G = 0 says that nothing depends on the layer."""
    fishers = [
        replace(
            own,
            factors=Factors(
                {
                    name: replace(
                        layer, outputs=torch.zeros_like(layer.outputs), weighted=torch.zeros_like(layer.weighted)
                    )
                    for name, layer in own.factors.items()
                },
                own.examples,
            ),
        )
        for own in networks["fishers"][:count]
    ]
    weights = [1.0, 2.0, 3.0][:count]
    found = merge_parameters(networks["models"][:count], rule, weights, fishers=fishers)
    mean = merge_parameters(networks["models"][:count], "isotropic", weights)
    for name in fishers[0].factors:
        torch.testing.assert_close(found[name], mean[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("damping", [0.0, 1e-5])
def test_factors_that_rounding_left_indefinite_are_merged_without_a_crash(count, damping):
    """Factors of few examples with one outlier, summed in float32: their least eigenvalues are below 0."""
    generator = torch.Generator().manual_seed(0)
    size = 384
    models, fishers = [], []
    for _ in range(count):
        rows = torch.randn(16, size, generator=generator)
        rows[:, 0] *= 1e3
        factor = rows.T @ rows / 16
        models.append({"w": torch.randn(size, size, generator=generator)})
        layer = LayerFactors(factor, factor.clone(), factor.clone())
        fishers.append(Fisher({"w": torch.ones(size, size)}, 16, "exact", 0, factors=Factors({"w": layer}, 16)))
    assert min(float(torch.linalg.eigvalsh(one.factors["w"].inputs.double())[0]) for one in fishers) < 0
    found = merge_parameters(models, "kfac", fishers=fishers, settings=RuleSettings(damping=damping, shrinkage=1.0))[
        "w"
    ]
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) < 1e4


def test_factors_that_are_no_factors_are_told_in_words(networks):
    negative = [
        replace(own, factors=Factors({n: replace(f, inputs=-f.inputs) for n, f in own.factors.items()}, own.examples))
        for own in networks["fishers"][:2]
    ]
    with pytest.raises(RecipeError, match="expected positive definite factors"):
        merge_parameters(networks["models"][:2], "kfac", fishers=negative)


def test_layers_of_another_rule_or_other_settings_are_not_used(networks):
    models, fishers = networks["models"][:2], networks["fishers"][:2]
    others = LayerMerge(models, [own.factors for own in fishers], "regmean", RuleSettings(damping=1.0))
    expected = merge_parameters(models, "kfac", fishers=fishers)
    assert_close(merge_parameters(models, "kfac", fishers=fishers, layers=others), expected, 0.0)


def test_a_merge_of_layers_tells_how_far_it_is_and_can_be_stopped(networks):
    told = []
    merge_parameters(
        networks["models"][:2], "kfac", fishers=networks["fishers"][:2], on_progress=lambda *one: told.append(one)
    )
    assert len(told) > len(networks["models"][0])
    assert told[0][1] in {f"Merging {name}" for name in networks["fishers"][0].factors}

    def stop(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        merge_parameters(networks["models"][:2], "kfac", fishers=networks["fishers"][:2], on_progress=stop)


def test_numbers_of_settings_may_be_written_as_yaml_reads_them_as_text():
    fields = {"models": [{"checkpoint": "a", "task": "b"}] * 2, "settings": {"damping": "1e-3", "seed": 3}}
    assert Recipe.of(fields).settings == RuleSettings(damping=1e-3, seed=3)


@pytest.mark.parametrize("fields", [{"settings": {"scale": 2}}, {"layer_weights": None}])
def test_a_recipe_of_other_types_is_refused_in_words(fields):
    entries = (ModelEntry("a", "b"), ModelEntry("c", "d"))
    with pytest.raises(RecipeError, match="expected settings as RuleSettings"):
        Recipe(entries, **fields)
