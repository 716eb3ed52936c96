"""Some visitors at once, for a moment: no errors, and nobody sees numbers of somebody else. Times are for `tests.load`."""

import pytest

from tests.load.run import run


@pytest.mark.parametrize("hosted", [False, True], ids=["own machine", "hosted"])
def test_every_visitor_sees_what_a_single_visitor_would(tmp_path, hosted):
    studies = ("four tasks", "two models, empirical")
    outcome = run(tmp_path, visitors=4, seconds=15, pause_s=0.5, hosted=hosted, seed=3, studies=studies)
    told = "\n".join(outcome.lines())
    assert not outcome.failures(), told
    assert outcome.record.checked > 10, told
    for name in ("open_page", "move_weights"):
        assert outcome.record.times_s[name], told


def test_another_merge_is_told_apart():
    """The comparison itself: the numbers of other weights, and of another estimate, are not taken for one's own."""
    from components.first_picture import picture_of
    from components.tables import weight_shares
    from merging import pipeline, prepare
    from tests.load.expected import compute

    cases = compute(("two models, empirical",), weights=3)["two models, empirical"]
    prepared = prepare(cases[0].recipe)
    for shown in cases:
        result = pipeline.evaluate(prepared, shown.recipe)
        sentence, figure, table = picture_of(result, 1280)
        drawn = {"plot": figure.plot}
        shares = weight_shares(prepared.names, shown.recipe.weights)
        for case in cases:
            assert (case.wrong_in_picture(sentence, drawn, table, shares) == "") == (case is shown)
        assert "table" in shown.wrong_in_picture(sentence, drawn, "", shares)
        assert "bars" in shown.wrong_in_picture(sentence, None, table, shares)
