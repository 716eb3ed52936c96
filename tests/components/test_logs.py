"""The server's log: lines of JSON, in which no secret stands."""

import io
import json
import logging
import sys
import traceback

import pytest

from components import logs
from components.jobs import Registry
from merging.errors import CheckpointError

TOKEN = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
PASSWORD = "correct horse battery staple"
PATH = "/home/owner/visits/8f3a/my secret model.csv"


@pytest.fixture
def written():
    """What is written to the log, which stands as it was afterwards."""
    root, studio, stderr = logging.getLogger(), logging.getLogger(logs.STUDIO), sys.stderr
    before = (root.handlers[:], root.level, studio.level)
    stream = io.StringIO()
    logs.begin(stream)
    yield stream
    sys.stderr = stderr
    root.handlers[:], level, own = before
    root.setLevel(level)
    studio.setLevel(own)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Every line, parsed: a line that is none of JSON is a failure."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _run(registry: Registry, work: object, **more: object) -> object:
    job = registry.start(f"{TOKEN} {PATH}", work, **more)
    assert job.run.ended.wait(60)
    after = registry.start("after", lambda on_progress: None)  # by then the log has told of the one before
    assert after.run.ended.wait(60)
    return job


def test_an_event_is_one_line_with_time_level_and_fields(written):
    logs.event("done", kind="line\nbreak", seconds=1.23456789, sizes={"bytes": 7}, odd=float("nan"), none=None)
    (line,) = lines(written)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "event": "done",
        "kind": "line\nbreak",
        "seconds": 1.235,
        "sizes": {"bytes": 7},
        "odd": "nan",
        "none": None,
    }


@pytest.mark.parametrize("hosted", [False, True])
def test_a_failing_job_leaves_no_secret_in_any_line(written, monkeypatch, hosted):
    monkeypatch.setenv("HF_TOKEN", PASSWORD)
    if hosted:
        monkeypatch.setenv("SPACE_ID", "somebody/studio")
    registry = Registry()

    def told(on_progress):
        raise CheckpointError(f'cannot open "{PATH}" with {TOKEN} at https://me:{PASSWORD}@hub.example/x')

    def bug(on_progress):
        on_progress(0.5, f"reading {PATH}")
        raise RuntimeError(f"token={TOKEN} Bearer {TOKEN[3:]} {PASSWORD} {PATH!r} and {PATH} in {__file__}")

    jobs = [_run(registry, told, visitor="v" * 32), _run(registry, bug, visitor="v" * 32)]
    text = written.getvalue()
    ended = [line for line in lines(written) if line["event"] == "job_ended" and line["state"] == "failed"]
    assert [(line["level"], line["error"]) for line in ended] == [
        ("INFO", "CheckpointError"),
        ("ERROR", "RuntimeError"),
    ]
    assert "tests/components/test_logs.py" in ended[1]["at"][-1]
    assert ended[1]["duration_s"] >= 0
    assert "text" not in ended[0]
    assert ("text" in ended[1]) is not hosted, "of a visitor's bug only where it arose"
    for secret in (TOKEN, TOKEN[3:], PASSWORD, "/home", "my secret", "v" * 32, __file__, *[job.id for job in jobs]):
        assert secret not in text, secret
        assert TOKEN not in jobs[0].message
    assert jobs[0].id[:8] in text


def test_other_libraries_lines_are_redacted_too(written, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", PASSWORD)
    other = logging.getLogger("urllib3.connectionpool")
    other.warning("retry %s of %s with %s", PATH, TOKEN, PASSWORD)
    other.info("GET /api/models/private?token=%s", TOKEN)
    try:
        raise OSError(2, "No such file", PATH)
    except OSError:
        other.exception("gone")
    first, second = lines(written)
    assert first["text"] == "retry [path] secret model.csv of [token] with [token]"
    assert second["error"] == "FileNotFoundError"
    assert not any(secret in written.getvalue() for secret in (TOKEN, PASSWORD, "/home"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'a "{PATH}" b', 'a "[path]" b'),
        ("at ~/data/x.csv.", "at [path]"),
        (r'C:\Users\me\x.csv and "D:\my files\a"', '[path] and "[path]"'),
        ("file:///etc/passwd", "[path]"),
        ("path=/etc/shadow, (/x/y):", "path=[path], ([path]):"),
        ("Bearer abc.def-ghi", "Bearer [token]"),
        ("https://hub/x?a=1&access_token=abc&b=2", "https://hub/x?a=1&access_token=[token]&b=2"),
        # What is no place and no secret stays.
        ("and/or 1/2 λ/2 n/a", "and/or 1/2 λ/2 n/a"),
        ("https://huggingface.co/org/name", "https://huggingface.co/org/name"),
        ('"zoo:digits/loop" org/name@main </b> <br/>', '"zoo:digits/loop" org/name@main </b> <br/>'),
        ("12 of 600 examples, 30/s", "12 of 600 examples, 30/s"),
    ],
)
def test_tokens_and_places_are_taken_out_and_words_are_not(text, expected):
    assert logs.redacted(text) == expected


@pytest.mark.parametrize("hosted", [False, True])
def test_what_is_printed_past_the_log_holds_no_secret_either(hosted):
    stream = io.StringIO()
    belt = logs.Belt(stream, paths=hosted)
    try:
        raise ValueError(f"{TOKEN} in {PATH}")
    except ValueError:
        traceback.print_exc(file=belt)
    assert stream.getvalue().startswith("Traceback (most recent call last):\n")
    assert "ValueError: [token] in" in stream.getvalue()
    assert ("/home/owner" in stream.getvalue()) is not hosted
    assert (__file__ in stream.getvalue()) is not hosted
    belt.flush()


def test_folders_with_spaces_that_are_known_are_taken_out(monkeypatch):
    monkeypatch.setenv("FISHER_CACHE_DIR", "/srv/my cache")
    assert logs.redacted("no room in /srv/my cache/ab.state now") == "no room in [path] now"


@pytest.mark.parametrize(("chosen", "seen"), [("DEBUG", 3), ("info", 2), ("WARNING", 1), ("ERROR", 0), ("loud", 3)])
def test_the_environment_says_how_much_is_written(monkeypatch, written, chosen, seen):
    monkeypatch.setenv(logs.LEVEL_VARIABLE, chosen)
    logs.begin(written)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logs.event("it", level)
    found = lines(written)
    assert len(found) == seen
    if chosen == "loud":
        assert (found[0]["event"], found[0]["used"]) == ("log_level_unknown", "INFO")


def test_a_long_text_is_cut_and_a_deep_traceback_too(written):
    def deeper(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 100_000)
        deeper(depth - 1)

    with pytest.raises(ValueError, match="x") as caught:
        deeper(200)
    logs.event("bug", problem=caught.value, text=str(caught.value))
    (line,) = lines(written)
    assert len(line["at"]) == logs.DEEPEST
    assert len(written.getvalue()) < 4000
