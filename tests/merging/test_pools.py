"""Pools: the embedded one is whole, and a folder that is not says what is missing."""

import pytest
import yaml

from merging import open_checkpoint, open_pool, open_task
from merging.errors import PoolError
from merging.families import body_class, fit_checkpoint
from merging.zoo import names


@pytest.mark.parametrize("name", names())
def test_an_embedded_pool_is_whole(name):
    pool = open_pool(name)
    assert pool.presets
    for model in pool.models:
        task, base = open_task(model.task), open_checkpoint(pool.base, is_base=True)
        checkpoint = fit_checkpoint(open_checkpoint(model.checkpoint), task, base)
        assert task.labels is None or set(task.labels) == set(checkpoint.label_names)
        assert all(task.has(split) for split in ("fisher", "validation", "test"))
        assert body_class(checkpoint) == body_class(base)
    for preset in pool.presets:
        assert len(preset.models) >= 2
        assert all(open_task(pool.task_reference(task)).has("test") for task in preset.evaluate)


def test_a_folder_is_a_pool_with_references_of_its_own(pool_folder):
    pool = open_pool(str(pool_folder))
    assert [model.name for model in pool.models] == [model.name for model in open_pool("digits").models]
    assert pool.model("parity").checkpoint == str(pool_folder / "checkpoints" / "parity")
    assert open_checkpoint(pool.model("parity").checkpoint).hash == open_checkpoint("zoo:digits/parity").hash
    assert open_task(pool.model("parity").task).source.files["test"].is_file()


@pytest.mark.parametrize(
    "missing",
    ["checkpoints/loop/model.safetensors", "checkpoints/loop/config.json", "checkpoints/base/model.safetensors"],
)
def test_a_missing_file_is_named(pool_folder, missing):
    (pool_folder / missing).unlink()
    folder = missing.rsplit("/", 1)[0]
    with pytest.raises(PoolError, match=rf'is incomplete: .* got none for "{folder}/.*Restore them'):
        open_pool(str(pool_folder))


def test_a_missing_task_is_named(pool_folder):
    (pool_folder / "tasks" / "loop" / "task.yaml").unlink()
    (pool_folder / "tasks" / "loop").rmdir()
    with pytest.raises(PoolError, match=r'got none for "tasks/loop"'):
        open_pool(str(pool_folder))


@pytest.mark.parametrize(
    "content",
    [b"", b"- 1", b"models: 5", b"models: [parity]", b"models: [{name: parity}]", b"a: [", b"\xff\xfe\x00", b"models:"],
)
def test_a_damaged_pool_yaml_is_refused(pool_folder, content):
    (pool_folder / "pool.yaml").write_bytes(content)
    with pytest.raises(PoolError, match=r'is damaged: expected "models" .* Compare it with an embedded'):
        open_pool(str(pool_folder))


def test_a_preset_with_an_unknown_model_offers_the_nearest(pool_folder):
    content = yaml.safe_load((pool_folder / "pool.yaml").read_text())
    content["presets"][0]["models"] = ["parity", "lop"]
    (pool_folder / "pool.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PoolError, match=r'Unknown model in preset "four-tasks": .* Did you mean "loop"'):
        open_pool(str(pool_folder))


def test_an_unknown_pool_offers_the_nearest():
    with pytest.raises(PoolError, match=r'no pool "digit": .* There are .*"digits".* Did you mean "digits"'):
        open_pool("digit")


def test_unknown_models_and_presets_offer_the_nearest():
    pool = open_pool("digits")
    with pytest.raises(PoolError, match=r'Unknown model: .* Did you mean "parity"'):
        pool.model("parities")
    with pytest.raises(PoolError, match=r'Unknown preset: .* Did you mean "four-tasks"'):
        pool.preset("four-task")
