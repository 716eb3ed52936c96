"""Every event of the page by its public name, with good values and with bad ones."""

import math
import time

import pytest
from gradio_client import Client, handle_file

from components.form import ROWS
from tests.cases import quick_recipe

TASKS = ("parity", "large", "loop", "remainder")
MODELS = [f"zoo:digits/{name} => zoo:digits/{name}" for name in TASKS]
FIELDS = ("models", "heads", "tasks", "labels", "examples", "seed", "floor", "normalise", "zero_rule", "device")
FIELDS += ("split", "base")
FORM = (MODELS, "keep", [], "exact", 256, 0, 0.0, "trace", "mean", "auto", "test", "zoo:digits/base")
# How it is merged comes after the sliders.
RULE = {"rule": "fisher", "beside": ["isotropic"], "scale": 1.0}
RULE |= {"damping": 0.1, "shrinkage": 0.5, "density": 0.5, "prior": 1.0, "layer_weights": ""}
WEIGHTS = [0.25] * ROWS
WIDTH = 1200.0


def form(weights=WEIGHTS, **changes: object) -> list[object]:
    """The form's values with some of them changed."""
    first = [changes.get(name, value) for name, value in zip(FIELDS, FORM, strict=True)]
    return [*first, *weights, *({**RULE, **changes}[name] for name in RULE)]


# Every event of the page: what it is driven with, and what its answer holds.
# What begins an estimate has a seed of its own: nothing is begun that is there already.
EVENTS = {
    "/open_page": ([WIDTH, "", "", "", *form()], "Fisher merge"),
    "/open_link": (["?pool=digits&preset=robust"], "λ · narrow"),
    "/estimate_link": (form(seed=11, labels="empirical", models=MODELS[:2]), "role="),
    "/show_link": ([WIDTH, *form()], "Fisher merge"),
    "/keep_merge": (["", "mine", *form()], "The highest mean is that of “mine”"),
    "/reload_merge": (None, "λ · loop"),
    "/estimate_reloaded": (form(seed=12, labels="empirical", models=MODELS[:2]), "role="),
    "/show_reloaded": ([WIDTH, *form()], "Fisher merge"),
    "/compare_merges": (["", "mine", "other"], "Choose two merges"),
    "/merge": ([WIDTH, *form()], "Fisher merge"),
    "/apply_settings": ([WIDTH, *form(split="validation", normalise="l2")], "on the validation split"),
    "/explain_rules": (["kfac", ["ties"]], "Fisher merging with whole layers"),
    "/estimate_rules": (form(seed=16, labels="empirical", models=MODELS[:2], rule="regmean"), "role="),
    "/apply_rules": ([WIDTH, *form(rule="isotropic", beside=["fisher"])], "the <b>isotropic average</b> is right on"),
    "/apply_rule_settings": ([WIDTH, *form(scale=1.5)], "Fisher merge"),
    "/open_tradeoffs": (["seconds", WIDTH, *form()], "By time, from cheap to dear"),
    "/choose_cost": (["memory_bytes", WIDTH, *form()], "By memory, from cheap to dear"),
    "/follow_tradeoffs": (["examples", WIDTH, *form()], "By Fisher examples"),
    "/apply_estimation": ([WIDTH, *form(seed=77)], "press “Estimate Fisher”"),
    "/move_weights": ([WIDTH, *form([1.0, 0.5, 0.25, 0.25, *WEIGHTS[4:]])], "parity 50.0 %"),
    "/settle_weights": (["a preview", WIDTH, *form([1.0, 0.5, 0.25, 0.25, *WEIGHTS[4:]])], "parity 50.0 %"),
    "/choose_pool": (["digits"], "λ · parity"),
    "/choose_preset": (["digits", "robust"], "λ · narrow"),
    "/estimate_pool": (form(seed=13, labels="empirical", models=MODELS[:2]), "role="),
    "/estimate_preset": (form(seed=14, labels="empirical", models=MODELS[:2]), "role="),
    "/estimate_fisher": (form(), "role="),
    "/estimate_recipe": (form(seed=15, labels="empirical", models=MODELS[:2]), "role="),
    "/choose_models": ([MODELS[:3]], "λ · loop"),
    "/check_models": (form(), "checks passed"),
    "/look_at_task": (["zoo:digits/parity", "zoo:digits/parity", ""], "fisher 600, validation 250, test 347"),
    "/submit_task": (["", "zoo:digits/loop", ""], "no loop, has a loop"),
    "/look_at_upload": (["", "zoo:digits/loop", ""], "no loop, has a loop"),
    "/upload_data": (None, "rows.jsonl"),
    "/suggest_label_order": (["zoo:digits/loop", ["image"], "loop"], "are right"),
    "/add_model": (["digits", MODELS[:1], "zoo:digits/loop", ["image"], "loop", ""], "λ · loop"),
    "/show_models": ([WIDTH, *form()], "Fisher merge"),
    "/show_pool": ([WIDTH, *form()], "Fisher merge"),
    "/show_preset": ([WIDTH, *form()], "Fisher merge"),
    "/show_finished": ([WIDTH, *form()], "Fisher merge"),
    "/inspect": ([WIDTH, *form()], "heatmap"),
    "/inspect_finished": ([WIDTH, *form()], "heatmap"),
    "/inspect_maps": ([WIDTH, *form()], "heatmap"),
    "/inspect_matrix": ([WIDTH, *form()], "role="),
    "/inspect_mixing": ([WIDTH, *form()], "The sliders are equal now"),
    "/inspect_similarity": ([WIDTH, *form()], "By Task2Vec the nearest tasks"),
    "/inspect_distances": ([WIDTH, *form()], "Farthest from the base"),
    "/inspect_plane": ([WIDTH, *form()], "press “Draw the loss plane”"),
    "/compare_fishers_1": (["loop", "large", *form()], "loop is surer than large"),
    "/compare_fishers_2": (["loop", "parity", *form()], "loop is surer than parity"),
    "/group_distances": (["kind", *form()], "Farthest from the base"),
    "/open_cell_heatmap": (["8", *form()], "q_proj.weight"),
    "/open_cell_owners": (["8", *form()], "q_proj.weight"),
    "/open_cell_difference": (["8", *form()], "q_proj.weight"),
    "/draw_matrix": ([WIDTH, *form()], "role="),
    "/stop_matrix": ([WIDTH], ""),
    "/matrix_progress": ([WIDTH], ""),
    "/draw_plane": ([WIDTH, "parity", "large", "base", *form()], "role="),
    "/stop_plane": ([WIDTH], ""),
    "/plane_progress": ([WIDTH], ""),
    "/equal_weights": ([MODELS], "0.25"),
    "/weights_by_size": (form(), "0.25"),
    "/find_best_weights": (form([1.0, 0.0, 0.0, 0.0, *WEIGHTS[4:]], split="validation"), "role="),
    "/found_weights": ([], ""),
    "/undo": ([], ""),
    "/progress": ([""], ""),
    "/stop": ([""], ""),
    "/recipe": (form(), "checkpoint: zoo:digits/parity"),
    "/show_recipe": ([WIDTH, *form()], "checkpoint: zoo:digits/parity"),
    "/download_recipe": (form(), "recipe.yaml"),
    "/download_merged_model": (form(), "merged-model.zip"),
    "/push_to_hub": (["", "", True, *form(seed=5)], "press “Estimate Fisher”"),
    "/explore": (["", "mean", 100, WIDTH, *form()], "mean over the tasks"),
    "/explore_start": (["", "mean", 10, WIDTH, *form()], "role="),
    "/explore_stop": (["", "mean", 10, WIDTH, *form()], "worst task"),
    "/explore_progress": (["", WIDTH], ""),  # the search of /explore_start may have ended, and says nothing then
    "/explore_step": (["", "mean", 10, WIDTH, *form()], "task: loop"),
    "/explore_choices": (["", "worst", 10, WIDTH, *form()], "worst task"),
    "/explore_budget": ([MODELS[:2]], "50"),
    "/pick_weights": (["0.1 0.2 0.3 0.4", MODELS], "0.3"),
    "/pick_weights_shown": (["", "mean", 10, 0, *form()], "task: loop"),
    "/pick_weights_odds": (form(), "0"),
    "/pick_trial": (["0.1 0.2 0.3 0.4", MODELS], "0.3"),
    "/pick_trial_shown": (["", "mean", 10, 0, *form()], "task: loop"),
    "/pick_trial_odds": (form(), "0"),
    "/use_best_weights": (["mean", *form()], "0."),
    "/use_best_shown": (["", "mean", 10, 0, *form()], "task: loop"),
    "/use_best_odds": (form(), "0"),
    "/move_odds": ([2.0, MODELS[:2]], "0.8808"),
    "/move_odds_shown": (["", "mean", 10, 0, *form()], "task: loop"),
    "/open_recipe": (None, "λ · loop"),
    "/open_lessons": (["", 2, 0.5], "Five models that differ by chance"),
    "/choose_lesson": (["robust", "", 2, 0.5], "Good at home"),
    "/lesson_back": (['{"lesson": "robust", "steps": {"robust": 1}}', 2, 0.5], "Good at home"),
    "/lesson_next": (["", 2, 0.5], "One more model at a time"),
    "/compute_lesson": (["", 2, 0.5], "Five models that differ by chance"),
    "/stop_lesson": (['{"lesson": "robust", "steps": {"robust": 1}}', 2, 0.5], "Two models, two virtues"),
    "/lesson_progress": (['{"lesson": "domain", "steps": {"domain": 1}}', 2, 0.5], "Each knows one half"),
    "/move_lesson": (["", 2, 0.5], ""),
    "/check_answer": (["", 2, 0.5, "fisher"], 'role="status"'),
    "/draw_gaussians": ([2, 1, 0, 1, 2, 1, 0.5, 0.5, 0.1], "lands at (1.25, 1.25)"),
    "/gaussians_two_regressions": ([], "0.5"),
    "/gaussians_each_sure_of_one_parameter": ([], "4"),
    "/gaussians_equally_sure": ([], "1"),
    "/gaussians_tilted_against_each_other": ([], "7"),
    "/open_quality": ([WIDTH, *form(seed=78)], "press “Estimate Fisher”"),
    "/measure_quality": ([WIDTH, *form(seed=78)], "press “Estimate Fisher”"),
    "/quality_progress": ([WIDTH], ""),
    "/stop_quality": ([WIDTH], ""),
    "/open_costs": ([WIDTH, *form(seed=78)], "press “Estimate Fisher”"),
    "/measure_costs": ([WIDTH, *form(seed=78)], "press “Estimate Fisher”"),
    "/costs_progress": ([WIDTH], ""),
    "/stop_costs": ([WIDTH], ""),
}


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    """A client that has opened the page, as a browser does; the first merge is prepared."""
    opened = Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    _wait_until_prepared(opened)
    return opened


def _wait_until_prepared(client: Client) -> None:
    for _ in range(600):
        if "Fisher merge" in str(client.predict(WIDTH, *form(), api_name="/merge")):
            return
        client.predict(*form(), api_name="/estimate_fisher")
    raise AssertionError("The first merge did not become ready.")


def _wait_until_tried(client: Client) -> None:
    """The search that an event of this test began was stopped by another: it may have tried nothing."""
    asked = ("mean", 10, WIDTH, *form())
    answer = client.predict("", *asked, api_name="/explore_start")
    while answer[3]["active"]:
        time.sleep(0.2)
        answer = client.predict(answer[4], *asked, api_name="/explore_step")


def _answer(client: Client, event: str, values: list[object]) -> str:
    return str(client.predict(*values, api_name=event))


def test_every_named_event_is_driven(client):
    named = set(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    assert named == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
def test_the_event_answers(client, server, event, tmp_path):
    values, expected = EVENTS[event]
    if event == "/open_recipe":
        path = tmp_path / "recipe.yaml"
        path.write_text(quick_recipe("four-tasks").to_yaml(), encoding="utf-8")
        values = [handle_file(str(path)), "digits"]
    if event == "/upload_data":
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "a", "label": 0}', encoding="utf-8")
        values = [handle_file(str(path))]
    if event == "/reload_merge":
        values = [client.predict("", "mine", *form(), api_name="/keep_merge")[0], "mine"]
    if event == "/use_best_weights":
        _wait_until_tried(client)
    answer = _answer(client, event, values)
    assert expected in answer, answer[:500]
    assert 'role="alert"' not in answer
    server.require_alive()


def test_a_search_is_watched_to_its_end_and_stopped_by_its_id(client, server):
    answer = client.predict(*form(split="validation"), api_name="/find_best_weights")
    job_id = next(value for value in answer if isinstance(value, str) and len(value) == 32)
    assert "role=" in _answer(client, "/progress", [job_id])
    _answer(client, "/stop", [job_id])
    for _ in range(2000):
        answer = _answer(client, "/progress", [job_id])
        if "Stopped" in answer or "Ready" in answer:
            break
    assert "Stopped" in answer or "Ready" in answer
    server.require_alive()


def test_an_unknown_model_is_told_by_its_job(client):
    answer = client.predict(
        *form(models=["zoo:digits/nine => zoo:digits/nine", MODELS[0]]), api_name="/estimate_fisher"
    )
    job_id = next(value for value in answer if isinstance(value, str) and len(value) == 32)
    for _ in range(2000):
        answer = _answer(client, "/progress", [job_id])
        if "alert" in answer:
            break
    assert "nine" in answer


# Bad values, and what the notice says.
BAD = {
    "negative weight": (form([-1.0, *WEIGHTS[1:]]), "minimum value 0"),
    "weights of zero": (form([0.0] * ROWS), "expected"),
    "one model": (form(models=MODELS[:1]), "expected two or more models, got 1"),
    "no models": (form(models=[]), "two or more"),
    "unknown normalisation": (form(normalise="sum"), "not in the list of choices"),
    "unknown device": (form(device="tpu"), "not in the list of choices"),
    "negative floor": (form(floor=-1.0), "got -1"),
    "no floor": (form(floor=None), "expected a number"),
    "negative seed": (form(seed=-1), "expected a whole number of 0 or more, got -1"),
    "no seed": (form(seed=None), "expected a"),
    "too many examples": (form(examples=10**9), "maximum value 2048"),
}
READERS = ("/merge", "/estimate_fisher", "/inspect", "/recipe", "/download_merged_model", "/find_best_weights")


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_value_is_told_by_every_event_that_reads_the_form(client, server, bad):
    values, told = BAD[bad]
    for event in READERS:
        given = [WIDTH, *values] if event in ("/merge", "/inspect") else values
        answer = _told(client, event, given)
        assert told in answer, (event, answer[:500])
    server.require_alive()


def test_a_weight_that_is_no_number_is_told(server):
    # JSON has no NaN, and gradio_client refuses to send one; a page of somebody's own may.
    import json
    import urllib.request

    for number in ("NaN", "Infinity"):
        body = json.dumps({"data": [WIDTH, *form()]}).replace("0.25", number, 1)
        assert not math.isfinite(json.loads(body)["data"][13])
        request = urllib.request.Request(
            f"{server.url}gradio_api/call/merge", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{server.url}gradio_api/call/merge/{event}", timeout=60) as stream:
            text = stream.read().decode()
        assert "expected" in text or "error" in text, text[:500]
        assert "Fisher merge" not in text
        server.require_alive()


def test_unknown_pools_and_presets_are_told(client, server):
    assert "expected the name of an embedded pool" in _told(client, "/choose_pool", ["nowhere"])
    assert "expected the name of an embedded pool" in _told(client, "/choose_preset", ["nowhere", "robust"])
    assert "choices" in _told(client, "/choose_preset", ["digits", "fiveseeds"])
    server.require_alive()


def test_merged_heads_of_different_labels_fail_the_job_with_a_message(client, server):
    answer = client.predict(*form(heads="merge"), api_name="/estimate_fisher")
    job_id = next(value for value in answer if isinstance(value, str) and len(value) == 32)
    for _ in range(2000):
        answer = _answer(client, "/progress", [job_id])
        if "alert" in answer:
            break
    assert "expected models with equal label sets" in answer
    server.require_alive()


def test_jobs_that_nobody_knows_change_nothing(client, server):
    for event in ("/progress", "/stop"):
        for unknown in ("", "0" * 32, "../../etc/passwd", "<b>"):
            answer = _answer(client, event, [unknown])
            assert unknown == "" or unknown not in answer
    server.require_alive()


def _told(client: Client, event: str, values: list[object]) -> str:
    """The answer; of an event that Gradio itself refuses, what it says."""
    from gradio_client.exceptions import AppError

    try:
        return _answer(client, event, values)
    except AppError as refusal:
        return str(refusal)
