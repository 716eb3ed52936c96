"""Label alignment: by names, given, or suggested; and that it changes no Fisher and no score."""

import json
import shutil
from itertools import permutations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import merging
from merging import diagonal_fisher, open_checkpoint, open_task
from merging.alignment import NONE, align, can_align, is_generic, plain_name, suggest_alignment
from merging.checkpoints import Checkpoint
from merging.columns import label_indices
from merging.errors import TaskError
from merging.evaluation import predict
from merging.suggestions import suggest_for
from merging.zoo import ZOO_FOLDER

MNLI = ("entailment", "neutral", "contradiction")
ORDERS = st.integers(2, 6).flatmap(lambda count: st.permutations(range(count)))


@pytest.mark.parametrize(
    ("labels", "outputs", "order", "how"),
    [
        (MNLI, MNLI, (0, 1, 2), "names"),
        (MNLI, ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), (2, 1, 0), "names"),
        (MNLI, ("contradiction", "entailment", "neutral"), (1, 2, 0), "names"),
        (("not_entailment", "entailment"), ("Entailment", "not entailment"), (1, 0), "names"),
        (("negative", "positive"), ("POS", "NEG"), (1, 0), "synonyms"),
        (("negative", "positive"), ("POSITIVE", "NEGATIVE"), (1, 0), "names"),
        (("not_equivalent", "equivalent"), ("duplicate", "not_duplicate"), (1, 0), "synonyms"),
        (("unacceptable", "acceptable"), ("grammatical", "ungrammatical"), (1, 0), "synonyms"),
        (("1", "0"), ("0", "1"), (1, 0), "names"),
        (("b",), ("a", "b", "c"), (1,), "names"),
        (("crane", "maillot", "crane"), ("crane", "maillot", "crane"), (0, 1, 2), "names"),
        (None, ("even", "odd"), (0, 1), "numbers"),
        (("neg", "pos"), ("LABEL_0", "LABEL_1"), (0, 1), "numbers"),
        (("no", "yes"), ("even", "odd"), (0, 1), "other names"),
        (MNLI, ("entailment", "contradiction"), (0, NONE, 1), "synonyms"),
    ],
)
def test_labels_are_matched_by_name(labels, outputs, order, how):
    found = align(labels, outputs)
    assert (found.order, found.how) == (order, how)


def test_the_sentence_shows_the_permutation():
    found = align(MNLI, ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    assert found.is_certain
    assert "entailment → ENTAILMENT, neutral → NEUTRAL, contradiction → CONTRADICTION" in found.sentence
    assert "entailment → entailment" not in align(MNLI, MNLI).sentence
    assumed = align(("negative", "positive"), ("LABEL_0", "LABEL_1"))
    assert not assumed.is_certain
    assert assumed.sentence == (
        "The model names its outputs LABEL_0, … alone, so this is assumed: negative → LABEL_0, positive → LABEL_1. "
        'Check it, or give "alignment".'
    )
    assert "numbers, so this is assumed: 0 → even, 1 → odd." in align(None, ("even", "odd")).sentence
    assert (
        "no name is in both, so this is assumed: no → even, yes → odd."
        in align(("no", "yes"), ("even", "odd")).sentence
    )


@given(ORDERS)
def test_aligned_indices_invert_for_any_permutation(order):
    outputs = [f"class {index}" for index in order]
    labels = [f"Class_{index}" for index in range(len(order))]
    found = align(labels, outputs).order
    assert [plain_name(outputs[index]) for index in found] == [plain_name(label) for label in labels]
    assert align(outputs, labels).order == tuple(numpy.argsort(found))
    assert can_align(labels, outputs)


@given(ORDERS)
def test_a_given_alignment_is_taken_as_it_is(order):
    outputs = [f"LABEL_{index}" for index in range(len(order))]
    found = align([f"word {index}" for index in order], outputs, given=order)
    assert (found.order, found.how) == (tuple(order), "given")


@pytest.mark.parametrize("wrong", [(0, 0), (0, 2), (-1, 0), (0,), (0, 1, 2), (0.0, 1.0)])
def test_an_alignment_that_is_no_choice_of_outputs_is_refused(wrong):
    with pytest.raises(TaskError, match=r"alignment .* expected 2 different outputs from 0 to 1, one per label, got"):
        align(("a", "b"), ("LABEL_0", "LABEL_1"), given=wrong)


def test_a_label_that_fits_two_outputs_is_ambiguous():
    with pytest.raises(TaskError, match=r'expected one output for "Pos", got "POS", "pos". Give "alignment"'):
        align(("Pos", "neg"), ("pos", "POS"))


def test_two_labels_never_share_an_output():
    with pytest.raises(TaskError, match=r'expected an output for each, got one for both of "equivalent", "paraphrase"'):
        align(("equivalent", "paraphrase"), ("duplicate", "other"))


def test_names_that_say_nothing_are_known():
    assert is_generic(("LABEL_0", "label_1"))
    assert is_generic(("0", "1"))
    assert not is_generic(("LABEL_0", "odd"))


@given(st.permutations(range(4)), st.integers(0, 2**31))
def test_the_suggestion_is_the_best_of_all_permutations(order, seed):
    random = numpy.random.default_rng(seed)
    labels = random.integers(4, size=60)
    predicted = numpy.where(random.random(60) < 0.7, numpy.array(order)[labels], random.integers(4, size=60))
    found = suggest_alignment(predicted, labels, outputs=4)
    best = max(numpy.mean(numpy.array(one)[labels] == predicted) for one in permutations(range(4)))
    assert found.accuracy == pytest.approx(best)
    assert found.identity_accuracy == pytest.approx(numpy.mean(labels == predicted))
    assert found.accuracy == pytest.approx(numpy.mean(numpy.array(found.order)[labels] == predicted))


def test_a_perfect_permuted_model_is_found_and_an_empty_sample_suggests_the_identity():
    labels = [0, 1, 2, 0, 1, 2]
    found = suggest_alignment([2, 0, 1, 2, 0, 1], labels, outputs=3)
    assert (found.order, found.accuracy, found.identity_accuracy) == ((2, 0, 1), 1.0, 0.0)
    assert "alignment: [2, 0, 1] is suggested: 100% of 6 rows are right with it, 0% without." in found.sentence
    assert suggest_alignment([], [], outputs=3).order == (0, 1, 2)


def relabelled(tmp_path, names, order=None):
    """The zoo's parity checkpoint with other names of its outputs, which `order` moves about."""
    folder = shutil.copytree(ZOO_FOLDER / "digits" / "checkpoints" / "parity", tmp_path / "-".join(names))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    path.write_text(json.dumps(config))
    if order is not None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = tensors[name][list(order)].contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint(str(folder))


def accuracy_of(checkpoint: Checkpoint, task):
    batches = task.batches("test", checkpoint, examples=100)
    return predict([checkpoint.model()], [batches])[0].correct.mean()


def test_a_checkpoint_whose_outputs_stand_the_other_way_round_scores_the_same(tmp_path):
    task = open_task("zoo:digits/parity")
    turned = relabelled(tmp_path, ("ODD", "EVEN"), order=(1, 0))
    assert task.align("test", turned).order == (1, 0)
    assert accuracy_of(turned, task) == accuracy_of(open_checkpoint("zoo:digits/parity"), task) > 0.8


def test_labels_without_names_are_suggested_from_fisher_rows_and_given_in_the_task(tmp_path):
    task = open_task("zoo:digits/parity")
    nameless = relabelled(tmp_path, ("LABEL_0", "LABEL_1"), order=(1, 0))
    found = suggest_for(task, nameless, examples=100)
    assert (found.order, found.examples) == ((1, 0), 100)
    assert found.accuracy > 0.8 > 0.2 > found.identity_accuracy
    folder = str(ZOO_FOLDER / "digits" / "tasks" / "parity")
    stated = open_task({"folder": folder, "alignment": list(found.order)})
    assert accuracy_of(nameless, stated) == accuracy_of(open_checkpoint("zoo:digits/parity"), task)
    assert suggest_for(stated, nameless, examples=100).order == (1, 0)
    assert stated.content_hash("fisher", nameless) != task.content_hash("fisher", nameless)


def test_the_order_of_the_labels_decides_the_content_hash(tmp_path):
    task = open_task("zoo:digits/parity")
    same, turned = relabelled(tmp_path, ("Even", "Odd")), relabelled(tmp_path, ("odd", "even"))
    straight = task.content_hash("fisher", open_checkpoint("zoo:digits/parity"))
    assert task.content_hash("fisher", same) == straight
    assert task.content_hash("fisher", turned) != straight


def test_the_fisher_does_not_depend_on_the_order_of_the_labels(tmp_path):
    """F = E[Σᵧ p(y|x) (∇ log p(y|x))²] sums over the outputs, whatever they are called and however they are ordered."""
    task = open_task("zoo:digits/parity")
    own, turned = open_checkpoint("zoo:digits/parity"), relabelled(tmp_path, ("odd", "even"), order=(1, 0))
    fishers = [
        diagonal_fisher(one.model(), task.batches("fisher", one, examples=24), "exact", seed=0) for one in (own, turned)
    ]
    for name, values in fishers[0].items():
        other = fishers[1][name]
        if name.startswith("classifier"):
            other = other.flip(0)
        torch.testing.assert_close(values, other, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("labels", "declared", "expected"),
    [
        (["EVEN", "Odd"], None, [0, 1]),
        (["odd"], None, [1]),
        (["1", "0"], None, [1, 0]),
        ([True, False], None, [1, 0]),
        ([0, 1], ("ODD", "EVEN"), [1, 0]),
    ],
)
def test_words_numbers_and_truth_values_become_outputs(tmp_path, labels, declared, expected):
    (tmp_path / "fisher.jsonl").write_text(
        "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels)
    )
    rows = open_task(str(tmp_path)).rows("fisher")
    assert label_indices(rows, "label", declared, open_checkpoint("zoo:digits/parity"), reference="t") == expected


def test_words_for_outputs_without_names_need_an_order(tmp_path):
    (tmp_path / "fisher.jsonl").write_text(
        "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in ("no", "yes"))
    )
    nameless = relabelled(tmp_path, ("LABEL_0", "LABEL_1"))
    with pytest.raises(TaskError, match=r'got "no", "yes". Name them as the model does, or give "labels"'):
        open_task(str(tmp_path)).align("fisher", nameless)
    (tmp_path / "task.yaml").write_text('labels: ["yes", "no"]\n')
    assert open_task(str(tmp_path)).align("fisher", nameless).order == (0, 1)


def test_a_label_without_an_output_is_refused_where_a_row_has_it(tmp_path):
    (tmp_path / "fisher.jsonl").write_text('{"text": "a", "label": 2}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": 0}\n')
    (tmp_path / "task.yaml").write_text("labels: [even, odd, neither]\n")
    task, parity = open_task(str(tmp_path)), open_checkpoint("zoo:digits/parity")
    with pytest.raises(TaskError, match=r'expected labels among "even", "odd", got "neither"'):
        task.align("fisher", parity)
    assert task.align("test", parity).order == (0, 1, NONE)


def test_models_of_one_task_that_order_their_labels_differently_are_merged_and_each_scored_by_its_own_head(tmp_path):
    turned = relabelled(tmp_path, ("odd", "even"), order=(1, 0))
    models = [{"checkpoint": one, "task": "zoo:digits/parity"} for one in ("zoo:digits/parity", turned.reference)]
    result = merging.run({"version": 1, "models": models, "rule": "isotropic", "evaluation": {"examples": 100}})
    values = {name: own["parity"].value for name, own in result.singles.items()}
    assert len(values) == 2
    assert len(set(values.values())) == 1
    assert result.scores["isotropic"]["parity"].value == result.scores["experts"]["parity"].value > 0.8
