"""What every test stands on: a quiet, offline, hermetic environment, set before anything imports torch."""

import atexit
import os
import shutil
import tempfile

# Threads that spin while they wait make small models many times slower beside other work on few cores.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Fishers are estimated once per session, and nothing is written into the user's caches.
_SESSION = tempfile.mkdtemp(prefix="fisher-tests-")
atexit.register(shutil.rmtree, _SESSION, ignore_errors=True)
os.environ["FISHER_CACHE_DIR"] = os.path.join(_SESSION, "fishers")
os.environ["HF_DATASETS_CACHE"] = os.path.join(_SESSION, "datasets")

import pytest
from hypothesis import settings

settings.register_profile("suite", max_examples=60, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty Fisher cache of the test's own."""
    folder = tmp_path / "fresh-fishers"
    monkeypatch.setenv("FISHER_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def four_tasks():
    """The recipe of four tasks with different labels, small enough to be quick."""
    from tests.cases import quick_recipe

    return quick_recipe("four-tasks")


@pytest.fixture(scope="session")
def four_result(four_tasks):
    """The result of the four-task recipe. Not to be changed."""
    import merging

    return merging.run(four_tasks)


@pytest.fixture(scope="session")
def seeds_recipe():
    """The recipe of five seeds of one task, whose heads are merged, too."""
    from tests.cases import quick_recipe

    return quick_recipe("five-seeds")


@pytest.fixture(scope="session")
def seeds_result(seeds_recipe):
    """The result of the five-seeds recipe. Not to be changed."""
    import merging

    return merging.run(seeds_recipe)


@pytest.fixture
def pool_folder(tmp_path):
    """A copy of the pool `digits` that a test may damage."""
    from merging.zoo import ZOO_FOLDER

    return shutil.copytree(ZOO_FOLDER / "digits", tmp_path / "pool")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that this process's client speaks to, where `tester` may write under its own name."""
    from tests.loopback_hub import connect, loopback_hub

    with loopback_hub(tmp_path / "hub") as running:
        connect(monkeypatch, running, tmp_path / "home")
        yield running


def pytest_terminal_summary(terminalreporter):
    """Lists the parameters whose Fisher was computed one example at a time, by family of models and reason."""
    notes = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for key, note in getattr(report, "user_properties", ()):
            if key == "one at a time":
                family, parameter, why = note
                notes.setdefault((family, why), {})[parameter] = None
    if notes:
        terminalreporter.section("computed one example at a time")
        for (family, why), parameters in sorted(notes.items()):
            terminalreporter.line(f"{family}: {', '.join(sorted(parameters))}: {why}")
