"""What strangers may send: any JSON, any YAML, and sound things with a part of them replaced.

The number of examples is that of a test; `FUZZ_TIMES=20 python -m pytest tests/fuzz` tries twenty times as many.
"""

import copy
import os
import time
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from merging.errors import MergingError

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
# Longer than any answer to a visitor may take, in seconds.
LONGEST_S = 20

# Texts that mean something to what reads them: paths, ids, tags, templates, formulas, markup, halves of characters.
TEXTS = (
    *("", " ", "\0", "\ud800", "\u202e", "a" * 300, "a" * 100_000, "ä€𝄞", "\x1b[31m", "%00", "{", "[", '{"a": ' * 2000),
    *(
        "..",
        "../..",
        "/",
        "//",
        "~",
        "~nobody-here/x",
        ".",
        "C:\\x",
        "a/b",
        "a/b@c",
        "a/b/c",
        "@",
        "a@b@c",
        "/etc/passwd",
    ),
    *(
        "zoo:",
        "zoo:/",
        "zoo:digits",
        "zoo:digits/",
        "zoo:digits/parity",
        "zoo:../..",
        "zoo:digits/../..",
        "zoo:digits/\0",
    ),
    *(" => ", "zoo:digits/parity => zoo:digits/loop", "zoo:digits/parity => {", 'a => {"dataset": 5}', "=> =>"),
    *(
        "<b>",
        "<script>alert(1)</script>",
        "=1+1",
        "+1",
        "-1",
        "@x",
        "{{x}}",
        "%s",
        "{0}",
        "None",
        "nan",
        "inf",
        "1e999",
    ),
    *("fisher", "exact", "trace", "mean", "auto", "test", "keep", "merge", "all", "base", "zoo:digits/base", "digits"),
)
texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20), st.text(st.characters(), max_size=5))
numbers = st.one_of(
    st.sampled_from((0, 1, -1, 2, 0.5, -0.0, 1e308, 1e-320, 10**400, -(10**400), 2**31, 2**63, 2**64, 255, 1e6)),
    st.integers(),
    st.floats(),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
# What JSON can say.
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=6,
)


def budget(examples: int) -> settings:
    """So many examples, always the same ones, each of them within a time that tells a hang from slow work."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    found = settings(max_examples=examples * TIMES, deadline=None, suppress_health_check=checks)
    return settings(found, derandomize=TIMES == 1)


def mild(work: Callable[..., object], *given_values: object) -> object:
    """What the work gives, or None where it refuses with a message that helps, and soon. All else is a bug."""
    begun, told = time.monotonic(), None
    try:
        return work(*given_values)
    except MergingError as problem:
        told = str(problem)
    finally:
        assert time.monotonic() - begun < LONGEST_S
    assert "expected" in told
    assert len(told) < 4000
    return None


@st.composite
def changed(draw: st.DrawFn, sound: object, others: st.SearchStrategy = values) -> object:
    """A sound value of mappings and lists in which one to three parts are replaced, taken out, doubled or added."""
    content = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            return draw(others)
        holder, key = draw(st.sampled_from(places))
        doing = draw(st.sampled_from(["replace"] * 5 + ["remove", "double", "add"]))
        if doing == "replace":
            holder[key] = draw(others)
        elif doing == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]) if doing == "double" else draw(others))
        else:
            holder[draw(texts)] = copy.deepcopy(holder[key]) if doing == "double" else draw(others)
    return content


def _places(content: object) -> Iterator[tuple[dict | list, object]]:
    """Everything within a value, as what holds it and its key there."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])
