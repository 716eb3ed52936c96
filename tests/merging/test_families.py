"""The Fisher is the Fisher for every family of models: of one output and of many, one example at a time and 16."""

import copy
import itertools
from functools import cache

import pytest
import torch

from merging import diagonal_fisher
from tests import cases, families
from tests.references import assert_same_fisher, slow_fisher, slow_sampled_fisher

pytestmark = pytest.mark.filterwarnings("ignore:One example at a time")

# Examples that are taken one by one: their texts have 16, 13, 10, 7, 4 and 1 tokens.
ALONE = 6
PROBLEMS = ("regression", "multi_label_classification")


@cache
def model_of(name, classes):
    return families.family(name, classes)


@cache
def reference(name, classes, start=0, stop=cases.EXAMPLES):
    """Of the examples from `start` to `stop`, each computed once."""
    if (start, stop) == (0, cases.EXAMPLES):
        parts = reference(name, classes, 0, ALONE), reference(name, classes, ALONE, stop)
        shares = ALONE / stop, 1 - ALONE / stop
        return {n: sum(share * part[n] for share, part in zip(shares, parts, strict=True)) for n in parts[0]}
    with families.float64_throughout(name):
        return slow_fisher(model_of(name, classes), families.batches_for(name, 1)[start:stop])


@pytest.fixture
def fisher_of(record_property):
    """`diagonal_fisher`, with a note of what it computed one example at a time; conftest lists the notes."""

    def noting(name, model, batches, *settings):
        fisher = diagonal_fisher(model, batches, *settings)
        for parameter, why in getattr(fisher, "fallbacks", {}).items():
            record_property("one at a time", (name, parameter, why))
        assert {n: t.shape for n, t in fisher.items()} == {n: p.shape for n, p in model.named_parameters()}
        wrong = [n for n, tensor in fisher.items() if not (tensor >= 0).all()]
        assert not wrong, "negative or not a number"
        return fisher

    return noting


@pytest.mark.parametrize("batch_size", cases.BATCH_SIZES)
@pytest.mark.parametrize("classes", families.CLASSES)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_agrees_with_the_slow_reference(name, classes, batch_size, fisher_of):
    examples = ALONE if batch_size == 1 else cases.EXAMPLES
    batches = families.batches_for(name, batch_size)[: -(-examples // batch_size)]
    fisher = fisher_of(name, model_of(name, classes), batches)
    assert {tensor.dtype for tensor in fisher.values()} == {torch.float32}
    assert_same_fisher(fisher, reference(name, classes, 0, examples))


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize("classes", families.CLASSES)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_in_double_precision_every_family_agrees_to_ten_digits(name, classes, batch_size, fisher_of):
    model = copy.deepcopy(model_of(name, classes)).double()
    with families.float64_throughout(name):
        fisher = fisher_of(name, model, families.batches_for(name, batch_size))
    assert_same_fisher(fisher, reference(name, classes), rtol=1e-10)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_first_batch_of_one_example_hides_nothing(name, fisher_of):
    """Alone, every layout looks like one example's; then N = T, and N divides the number of real tokens."""
    fisher = fisher_of(name, model_of(name, 2), families.uneven_batches_for(name))
    assert_same_fisher(fisher, reference(name, 2))


def test_a_layer_on_packed_tokens_that_were_of_equal_length_at_first(fisher_of):
    """(N · T, D) is laid out by example until a batch is ragged, and then its length may still be a multiple of N."""
    (batch,) = families.batches_for("packed", 16)
    order = batch["attention_mask"].sum(1).argsort()
    ragged = families.rows_of(batch, order[[4, 6, 8]])
    equal = families.rows_of(batch, order[[13, 14, 15]])
    equal["attention_mask"], equal["input_ids"] = equal["attention_mask"][:, :14], equal["input_ids"][:, :14]
    assert equal["attention_mask"].all()
    assert not ragged["attention_mask"].all()
    assert ragged["attention_mask"].sum() % 3 == 0
    model = model_of("packed", 3)
    assert_same_fisher(fisher_of("packed", model, [equal, ragged]), slow_fisher(model, [equal, ragged]))


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_several_outputs_that_are_not_classes(name, problem, batch_size, fisher_of):
    model = copy.deepcopy(model_of(name, 3))
    model.config.problem_type = problem
    expected = slow_fisher(model, families.batches_for(name, 1), problem=problem)
    assert_same_fisher(fisher_of(name, model, families.batches_for(name, batch_size)), expected)


@pytest.mark.parametrize("batch_size", [1, 4, 15])
@pytest.mark.parametrize("name", families.LANGUAGE_MODELS)
def test_a_language_model_with_the_datas_own_next_tokens(name, batch_size, fisher_of):
    """The unit is the sequence: the square of Σₜ ∂ log p(xₜ₊₁|x₁ … xₜ), a mean over sequences."""
    model = families.moved(families.LANGUAGE_MODELS[name], cases.VOCABULARY)
    fisher = fisher_of(name, model, families.language_batches(batch_size), "empirical")
    assert_same_fisher(fisher, sequence_reference(name))


@cache
def sequence_reference(name):
    model = families.moved(families.LANGUAGE_MODELS[name], cases.VOCABULARY)
    with families.float64_throughout(name):
        columns = [next_token_columns(model, batch) for batch in families.language_batches(1)]
        return slow_sampled_fisher(model, families.language_batches(1), columns)


def next_token_columns(model, batch):
    """e_y − p at every position that has a next token, y being that token, of a batch of one."""
    with torch.no_grad():
        logits = copy.deepcopy(model).double()(batch["input_ids"]).logits[0, :-1]
    return torch.nn.functional.one_hot(batch["input_ids"][0, 1:], logits.shape[1]) - logits.softmax(-1)


@pytest.mark.parametrize("name", families.LANGUAGE_MODELS)
def test_the_sequence_reference_squares_the_gradient_of_the_models_own_loss(name):
    """Transformers' loss is the mean of −log p(xₜ₊₁|x₁ … xₜ) over the T − 1 positions."""
    model = families.moved(families.LANGUAGE_MODELS[name], cases.VOCABULARY).double()
    batches = families.language_batches(1)
    sums = dict.fromkeys(dict(model.named_parameters()), 0.0)
    with families.float64_throughout(name):
        for batch in batches:
            loss = (batch["input_ids"].shape[1] - 1) * model(**batch).loss
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            sums = {name: total + g.square() for (name, total), g in zip(sums.items(), gradients, strict=True)}
    assert_same_fisher({n: total / len(batches) for n, total in sums.items()}, sequence_reference(name), rtol=1e-10)


def test_over_all_label_sequences_the_sequence_reference_averages_to_the_sum_of_the_tokens_fishers():
    """Labels drawn independently, given the data's own prefix: products of two positions cancel."""
    model = families.moved(families.gpt2_language_model, 4)
    batch = {"input_ids": torch.tensor([[3, 1, 2]])}
    with torch.no_grad():
        p = copy.deepcopy(model).double()(**batch).logits[0, :-1].softmax(-1)
    average, tokens = {}, {}
    for first, second in itertools.product(range(4), repeat=2):
        chance, column = float(p[0, first] * p[1, second]), torch.eye(4)[[first, second]] - p
        _add(average, slow_sampled_fisher(model, [batch], [column]), chance)
        # Every pair holds each of its two tokens with its own chance: one position at a time.
        _add(tokens, slow_sampled_fisher(model, [batch], [column * torch.tensor([[1.0], [0.0]])]), chance)
        _add(tokens, slow_sampled_fisher(model, [batch], [column * torch.tensor([[0.0], [1.0]])]), chance)
    assert_same_fisher(average, tokens, rtol=1e-10)


def _add(sums, fisher, weight):
    for name, tensor in fisher.items():
        sums[name] = sums.get(name, 0.0) + weight * tensor
