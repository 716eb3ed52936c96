"""Merging from file to file: the same numbers as in memory, whole files or none, and errors that name what is wrong."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from merging import merge_parameters
from merging.errors import Cancelled, CheckpointError, ExportError, FisherError, MergingError, StructureError
from merging.fisher import Fisher
from merging.streaming import FileMerge, merge_files
from tests import cases

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = {"a.weight": (5, 7), "a.bias": (7,), "scale": (), "empty": (0, 3)}


def tensors(seed, dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def fisher(seed, zeros=False):
    return {name: (own**2) * (own > 0.5 if zeros else 1) for name, own in tensors(seed).items()}


def saved(path, named):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)
    return path


def sharded(folder, named, shards=2):
    """A folder with an index, as `save_pretrained` writes it; tensors are dealt out in turns."""
    folder.mkdir(parents=True)
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    place = {name: files[index % shards] for index, name in enumerate(named)}
    for file in files:
        save_file({name: own for name, own in named.items() if place[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1, "total_parameters": 43}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def everything(folder):
    return load_all(sorted(Path(folder).glob("*.safetensors")))


def load_all(files):
    return {name: own for file in files for name, own in load_file(file).items()}


def assert_within_an_ulp(found, expected):
    """Of the dtype found; float64 is that of the sums themselves, whose order differs, and gets eight units of 1."""
    assert found.keys() == expected.keys()
    for name, own in found.items():
        wanted = expected[name].double()
        allowed = spacing(wanted, own.dtype) if own.dtype != torch.float64 else 8 * torch.finfo(own.dtype).eps
        assert ((own.double() - wanted).abs() <= allowed).all(), name


def spacing(numbers, dtype):
    """The distance between neighbours in `dtype` at these numbers."""
    limits = torch.finfo(dtype)
    exponent = torch.floor(torch.log2(numbers.abs().clamp_min(limits.tiny)))
    return torch.exp2(exponent) * limits.eps


def reference(models, lambdas, fishers):
    """Σ λFθ / Σ λF in float64, with traces that are 1."""
    result = {}
    traces = [sum(float(own.double().sum()) for own in one.values()) for one in fishers]
    for name in models[0]:
        shares = [w / t * f[name].double() for w, t, f in zip(lambdas, traces, fishers, strict=True)]
        mixed = sum(share * model[name].double() for share, model in zip(shares, models, strict=True))
        result[name] = mixed / sum(shares)
    return result


@pytest.fixture
def files(tmp_path):
    """Two models and their Fishers, as files."""
    models = [saved(tmp_path / f"m{seed}/model.safetensors", tensors(seed)).parent for seed in (0, 1)]
    return models, [saved(tmp_path / f"f{seed}.safetensors", fisher(seed + 10)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("streaming")


@given(
    rule=st.sampled_from(cases.PLAIN),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=2, max_size=3),
    chunk=st.sampled_from([1, 3, 7, 64]),
    normalise=st.sampled_from(cases.NORMALISATIONS),
    zero_rule=st.sampled_from(cases.ZERO_RULES),
    floor=st.sampled_from([0.0, 0.1]),
    wanted=st.sampled_from([None, torch.float32]),
)
def test_files_merge_to_the_same_numbers_as_tensors(scratch, rule, dtypes, chunk, normalise, zero_rule, floor, wanted):
    models = [tensors(seed, dtype) for seed, dtype in enumerate(dtypes)]
    settings = {"floor": floor, "normalise": normalise, "zero_rule": zero_rule, "base": tensors(77)}
    settings |= {
        "weights": [1.0, 2.0, 0.5][: len(models)],
        "fishers": [fisher(s + 10, True) for s in range(len(models))],
    }
    paths = [saved(scratch / f"{seed}.safetensors", one) for seed, one in enumerate(models)]
    shutil.rmtree(scratch / "out", ignore_errors=True)
    merge_files(paths, scratch / "out", rule, chunk=chunk, dtype=wanted, **settings)
    found = load_file(scratch / "out" / "0.safetensors")
    assert {own.dtype for own in found.values()} == {wanted or dtypes[0]}
    doubles = [{name: own.double() for name, own in one.items()} for one in models]
    assert_within_an_ulp(found, merge_parameters(doubles, rule, **settings))
    assert_within_an_ulp(found, merge_parameters(models, rule, **settings))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_a_float64_reference_to_one_ulp(tmp_path, dtype):
    models, fishers = [tensors(seed, dtype) for seed in (0, 1)], [fisher(seed) for seed in (10, 11)]
    paths = [saved(tmp_path / f"{seed}.safetensors", one) for seed, one in enumerate(models)]
    merge_files(paths, tmp_path / "out", fishers=fishers, weights=[1, 3], chunk=4)
    assert_within_an_ulp(load_file(tmp_path / "out" / "0.safetensors"), reference(models, [0.25, 0.75], fishers))


def test_shards_and_index_are_those_of_the_first_source(tmp_path):
    models = [tensors(seed) for seed in (0, 1)]
    first = sharded(tmp_path / "first", models[0], shards=2)
    second = sharded(tmp_path / "second", models[1], shards=3)
    out = merge_files([first, second], tmp_path / "out", "isotropic", chunk=5)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in first.iterdir())
    assert_within_an_ulp(everything(out), merge_parameters(models, "isotropic"))
    for file in out.glob("*.safetensors"):
        with safe_open(file, "pt") as here, safe_open(first / file.name, "pt") as there:
            assert sorted(here.keys()) == sorted(there.keys())
            assert here.metadata() == {"format": "pt"}
    found, given = (json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (out, first))
    assert found["weight_map"] == given["weight_map"]
    assert found["metadata"] == {"total_size": 4 * 43, "total_parameters": 43}


def test_the_output_of_transformers_own_sharding_opens_and_predicts_as_the_merge_in_memory(tmp_path):
    models = [cases.model_case("bert-2", seed) for seed in (0, 1)]
    fishers = [{n: torch.rand_like(own) for n, own in model.named_parameters()} for model in models]
    for index, model in enumerate(models):
        model.save_pretrained(tmp_path / str(index), max_shard_size="4KB")
    assert (tmp_path / "0" / "model.safetensors.index.json").is_file()
    out = merge_files([tmp_path / "0", tmp_path / "1"], tmp_path / "out", fishers=fishers, chunk=100)
    shutil.copy(tmp_path / "0" / "config.json", out)
    merged = merge_parameters([dict(model.named_parameters()) for model in models], fishers=fishers)
    models[0].load_state_dict(merged, strict=False)
    opened = transformers.BertForSequenceClassification.from_pretrained(out).eval()
    for batch in cases.batches_for("bert-2", 4):
        with torch.no_grad():
            assert torch.equal(opened(**batch).logits, models[0](**batch).logits)


def test_heads_are_copied_or_left_out_and_buffers_averaged_by_name(tmp_path, files):
    first, second = tensors(0), tensors(1)
    first |= {"head": torch.ones(3), "running_mean": torch.tensor([1.0]), "ids": torch.arange(4)}
    second |= {"head": torch.ones(9), "running_mean": torch.tensor([4.0]), "ids": torch.arange(4)}
    paths = [saved(tmp_path / "first.safetensors", first), saved(tmp_path / "second.safetensors", second)]
    settings = {"fishers": files[1], "weights": [2, 1], "averaged": {"running_mean"}, "chunk": 2}
    copied = merge_files(paths, tmp_path / "copied", copied={"head"}, **settings)
    found = load_file(copied / "first.safetensors")
    assert torch.equal(found["head"], first["head"])
    assert found["running_mean"].item() == 2.0
    assert torch.equal(found["ids"], first["ids"])
    left = merge_files(paths, tmp_path / "left", left_out=lambda name: name == "head", **settings)
    del found["head"]
    assert all(torch.equal(own, found[name]) for name, own in load_file(left / "first.safetensors").items())


def test_cancelling_leaves_nothing_at_any_time(tmp_path, files, monkeypatch):
    monkeypatch.setattr("merging.chunks.REPORTED", 1)
    before = sorted(tmp_path.rglob("*"))
    seen = []
    merge_files(files[0], tmp_path / "out", fishers=files[1], chunk=4, on_progress=lambda done, text: seen.append(done))
    shutil.rmtree(tmp_path / "out")
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    for stop in seen[:: len(seen) // 7]:

        def cancel(done, text, stop=stop):
            if done >= stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            merge_files(files[0], tmp_path / "out", fishers=files[1], chunk=4, on_progress=cancel)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_named(tmp_path, files, value):
    wrong = tensors(1)
    wrong["a.bias"][3] = value
    paths = [files[0][0], saved(tmp_path / "wrong.safetensors", wrong)]
    with pytest.raises(StructureError, match=r'NaN or infinity in "a.bias" of model 2'):
        merge_files(paths, tmp_path / "out", fishers=files[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("normalise", cases.NORMALISATIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_fisher_that_cannot_be_used_is_named(tmp_path, files, value, normalise):
    wrong = fisher(10)
    wrong["a.bias"][3] = value
    with pytest.raises(FisherError, match=r'Fisher 2 .* finite numbers of 0 or more, got others in "a.bias"'):
        merge_files(files[0], tmp_path / "out", fishers=[files[1][0], wrong], normalise=normalise)
    assert not (tmp_path / "out").exists()


def test_a_result_beyond_the_output_is_named(tmp_path):
    models = [{"w": torch.tensor([1.0], dtype=torch.float16)}, {"w": torch.tensor([1e9])}]
    paths = [saved(tmp_path / f"{index}.safetensors", one) for index, one in enumerate(models)]
    with pytest.raises(StructureError, match=r'"w" cannot be stored as torch.float16'):
        merge_files(paths, tmp_path / "out", "isotropic")
    found = merge_files(paths, tmp_path / "out", "isotropic", dtype=torch.float32)
    assert load_file(found / "0.safetensors")["w"].item() == pytest.approx(5e8)


def header(change):
    """A safetensors file's bytes with a changed header."""

    def damage(data):
        length = int.from_bytes(data[:8], "little")
        text = change(data[8 : 8 + length].decode()).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return damage


DAMAGES = {
    "cut short": lambda data: data[:-1],
    "too long": lambda data: data + b"x",
    "empty": lambda data: b"",
    "cut in the header": lambda data: data[:30],
    "a huge header": lambda data: (10**12).to_bytes(8, "little") + data[8:],
    "no JSON": header(lambda text: "?" + text[1:]),
    "a list": header(lambda text: "[]"),
    "an unknown type": header(lambda text: text.replace('"F32"', '"F33"', 1)),
    "overlapping": header(lambda text: text.replace("[28,168]", "[0,140]")),
    "twice": header(lambda text: text.replace('"scale"', '"a.bias"')),
    "a wrong shape": header(lambda text: text.replace("[5,7]", "[5,8]")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path, files, damage):
    path = files[0][1] / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(DAMAGES[damage](data))
    assert path.read_bytes() != data
    with pytest.raises(CheckpointError, match=r'"m1/model.safetensors" is damaged: expected'):
        merge_files(files[0], tmp_path / "out", fishers=files[1])
    assert not (tmp_path / "out").exists()


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, files):
    with FileMerge(files[0], "isotropic") as merge:
        with (files[0][1] / "model.safetensors").open("r+b") as file:
            file.truncate(300)
        (tmp_path / "out").mkdir()
        with pytest.raises(CheckpointError, match="got the end of the file"):
            merge.write(tmp_path / "out")


def test_a_tensor_in_two_shards_is_named(tmp_path, files):
    folder = sharded(tmp_path / "twice", tensors(0))
    save_file(tensors(0), next(folder.glob("*.safetensors")))
    with pytest.raises(CheckpointError, match=r"expected every tensor once, got"):
        merge_files([folder, files[0][1]], tmp_path / "out", "isotropic")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a.bias": None}, r'got "a.bias" missing'),
        ({"tied.weight": torch.ones(2)}, r'"tied.weight" in addition'),
        ({"a.bias": torch.ones(8)}, r'different ones for "a.bias"'),
        ({"a.bias": torch.ones(7, dtype=torch.int64)}, r'"a.bias", which holds torch.float32, to be equal'),
    ],
)
def test_models_that_do_not_fit_are_named(tmp_path, files, other, message):
    changed = {name: own for name, own in {**tensors(1), **other}.items() if own is not None}
    with pytest.raises(StructureError, match=message):
        merge_files([files[0][0], saved(tmp_path / "other.safetensors", changed)], tmp_path / "out", "isotropic")


def test_numbers_that_cannot_be_averaged_must_agree(tmp_path):
    paths = [
        saved(tmp_path / f"{index}.safetensors", {"w": torch.ones(2), "ids": torch.arange(9) // (8 - index)})
        for index in (0, 1)
    ]
    with pytest.raises(StructureError, match=r'expected "ids", which holds torch.int64, to be equal'):
        merge_files(paths, tmp_path / "out", "isotropic", chunk=2)


def test_a_disk_that_is_too_small_is_seen_before_the_first_byte(tmp_path, files, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr("merging.streaming.FileMerge.write", lambda *arguments: pytest.fail("it writes"))
    with pytest.raises(ExportError, match=r"expected 1 MB of free space, got 0 MB.*nothing was written"):
        merge_files(files[0], tmp_path / "deep" / "out", fishers=files[1])
    assert not (tmp_path / "deep").exists()


def test_a_folder_with_files_is_refused_and_an_empty_one_used(tmp_path, files):
    (tmp_path / "out").mkdir()
    merge_files(files[0], tmp_path / "out", fishers=files[1])
    before = everything(tmp_path / "out")
    with pytest.raises(ExportError, match="expected a new or empty folder"):
        merge_files(files[0], tmp_path / "out", fishers=files[1])
    assert all(torch.equal(own, before[name]) for name, own in everything(tmp_path / "out").items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fishers": None}, "expected 2, got 0"),
        ({"fishers": [{}, {}]}, "Fisher 1 does not belong"),
        ({"zero_rule": "base"}, "needs the base checkpoint"),
        ({"zero_rule": "base", "base": {"w": torch.ones(1)}}, "The base does not fit"),
        ({"weights": [0, 0]}, "expected at least one above 0"),
        ({"floor": -1}, "floor cannot be used"),
        ({"normalise": "trce"}, 'Did you mean "trace"'),
    ],
)
def test_settings_without_a_meaning_are_refused(tmp_path, files, settings, message):
    with pytest.raises(MergingError, match=message):
        merge_files(files[0], tmp_path / "out", **{"fishers": files[1], **settings})
    assert not (tmp_path / "out").exists()


def test_memory_in_use_is_the_chunks_whatever_the_size(tmp_path):
    """What torch allocates while a 4 MB tensor is merged 1000 numbers at a time."""
    paths = [saved(tmp_path / f"{seed}.safetensors", {"w": torch.randn(1 << 20)}) for seed in (0, 1)]
    with FileMerge(paths, "isotropic", chunk=1000) as merge, torch.profiler.profile(profile_memory=True) as profile:
        (tmp_path / "out").mkdir()
        merge.write(tmp_path / "out")
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert 0 < largest <= 2 * 1000 * 8
    numpy.testing.assert_allclose(
        load_file(tmp_path / "out" / "0.safetensors")["w"],
        sum(load_file(path)["w"].double() for path in paths) / 2,
        rtol=1e-6,
    )


@pytest.mark.parametrize("normalise", ["trace", "l2"])
def test_sizes_in_a_fishers_file_give_the_same_bits_as_reading_it_twice(tmp_path, normalise):
    generator = torch.Generator().manual_seed(3)
    shapes = {"a.weight": (37, 5), "b.weight": (11,), "zero": (4,)}
    models, plain, sized = [], [], []
    for index in (0, 1):
        own = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        fisher = {name: tensor.square() * 10.0 ** (-3 * index) for name, tensor in own.items()}
        fisher["zero"].zero_()
        models.append(tmp_path / f"model-{index}.safetensors")
        plain.append(tmp_path / f"plain-{index}.safetensors")
        sized.append(tmp_path / f"sized-{index}.safetensors")
        save_file(own, models[-1])
        save_file(fisher, plain[-1])
        Fisher(fisher, 1, "exact", 0, {}).save(sized[-1])
    one, two = (
        merge_files(models, tmp_path / name, weights=[0.3, 0.7], fishers=fishers, normalise=normalise)
        for name, fishers in (("one", plain), ("two", sized))
    )
    (first,), (second,) = (sorted(folder.glob("*.safetensors")) for folder in (one, two))
    assert first.read_bytes() == second.read_bytes()


def test_a_fisher_with_sizes_and_a_nan_is_still_refused(tmp_path):
    own = {"a": torch.ones(3)}
    for index in (0, 1):
        save_file(own, tmp_path / f"model-{index}.safetensors")
        fisher = {"a": torch.tensor([1.0, float("nan") if index else 1.0, 1.0])}
        Fisher(fisher, 1, "exact", 0, {}).save(tmp_path / f"fisher-{index}.safetensors")
    with pytest.raises(FisherError, match=r'Fisher 2 cannot be used: .* in "a"'):
        merge_files(
            [tmp_path / f"model-{index}.safetensors" for index in (0, 1)],
            tmp_path / "out",
            fishers=[tmp_path / f"fisher-{index}.safetensors" for index in (0, 1)],
        )
    assert not (tmp_path / "out").exists()
