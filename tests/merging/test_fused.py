"""The fused kernel: in Triton's interpreter, compiled for GPUs that are not there, and on a GPU where there is one.

Triton decides when it is imported whether it interprets, and an interpreting engine would slow every other test: so
each way has a process of its own. Everything runs where triton is importable: installed, or in a folder on PYTHONPATH.
"""

import importlib.metadata
import importlib.util
import itertools
import logging
import multiprocessing
import os
import runpy
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from merging import diagonal_fisher
from merging.gradients import accumulation, fused
from tests import cases
from tests.references import assert_same_fisher

TRITON = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else None
ABSENT = "triton is not importable: pip install --no-deps triton==3.7.1 (200 MB), what torch 2.13 for CUDA brings"
needs_triton = pytest.mark.skipif(TRITON is None, reason=ABSENT)
needs_interpreter = pytest.mark.skipif(
    TRITON is None or tuple(map(int, TRITON.split(".")[:2])) < (3, 7),
    reason=f"the interpreter of triton {TRITON} does not work with numpy 2.4: 3.7 is needed" if TRITON else ABSENT,
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SHARED_BYTES = {86: 99 * 1024, 90: 227 * 1024}  # that a program may use, by compute capability


@pytest.fixture(scope="module")
def interpreter():
    """Calls a function of this module in a process where Triton interprets its kernels."""
    yield from _process(interpret="1")


@pytest.fixture(scope="module")
def compiler():
    """Calls a function of this module in a process where Triton compiles its kernels."""
    yield from _process(interpret="0")


# Examples, tokens, outputs, inputs; tiles are 64 x 64 with 16 tokens for float32, 128 x 128 with 64 for float16.
SHAPES = [(1, 1, 3, 5), (5, 1, 70, 8), (1, 37, 64, 65), (5, 33, 90, 66), (3, 16, 64, 64)]


@needs_interpreter
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_is_the_sum_of_squares(interpreter, shape):
    g, a, total = _case(shape)
    _assert_close(interpreter(_added, total, g, a), total.double() + _squares(g, a))


@needs_interpreter
@pytest.mark.parametrize("name", ["bert-2", "gpt2-2"])
def test_the_engine_gives_the_same_through_the_kernel(interpreter, name):
    """Linear layers, and GPT-2's, whose weights are transposed."""
    calls, found = interpreter(_estimated, name)
    none, expected = _estimated(name)
    assert calls > 0
    assert none == 0
    assert_same_fisher(found, expected)


@needs_interpreter
def test_each_example_has_its_own_scale(interpreter):
    g, a, total = _case((5, 20, 30, 70))
    scale = torch.tensor([1.0, -2.0, 0.0, 1e-3, 100.0], dtype=torch.float64)
    _assert_close(interpreter(_added, total, g, a, scale), total.double() + _squares(g, a, scale))


@needs_interpreter
@pytest.mark.parametrize("programs", [1, 3, 4, 132])
def test_slices_of_the_examples_add_up_exactly(interpreter, programs):
    g, a, total = _case((7, 18, 140, 70), whole_numbers=True)
    assert fused.plan(6, 7, tile_bytes=4 * 64 * 64, programs=programs)[1] == {1: 1, 3: 1, 4: 2, 132: 7}[programs]
    assert torch.equal(interpreter(_added, total, g, a, None, programs).double(), total + _squares(g, a))


@needs_interpreter
def test_float16_is_multiplied_as_it_is_and_summed_in_float32(interpreter):
    g, a, total = _case((3, 70, 40, 130), whole_numbers=True)
    result = interpreter(_added, total, (g * 2**8).half(), (a * 2**-6).half())
    assert torch.equal(result.double(), total + 16 * _squares(g, a))  # up to 1e6, far above float16's largest number


@needs_interpreter
def test_tokens_without_a_gradient_count_nothing_whatever_their_input(interpreter):
    g, a, total = _case((6, 70, 70, 20))
    g[0, 0], g[1, :41], g[2, 3:], g[3, 5:60], g[4], g[5, :, :65] = 0, 0, 0, 0, 0, 0
    g[5, ::2] = 0
    expected = total.double() + _squares(g, a)
    a[0, 0], a[1, :41], a[2, 3:], a[4] = torch.nan, torch.nan, torch.inf, torch.nan
    _assert_close(interpreter(_added, total, g, a), expected)


@needs_interpreter
def test_padding_changes_no_bit(interpreter):
    g, a, total = _case((3, 21, 20, 70))
    padded = [torch.nn.functional.pad(tensor, (0, 0, 5, 40)) for tensor in (g, a)]
    result = interpreter(_added, total, g, a)
    assert torch.equal(interpreter(_added, total, *padded), result)
    assert torch.equal(interpreter(_added, total, g, a), result), "two runs"


@needs_interpreter
@pytest.mark.parametrize("programs", [1, 132])
def test_neighbours_of_the_total_and_strides_of_the_operands_do_not_matter(interpreter, programs):
    g, a, _ = _case((4, 18, 70, 20), whole_numbers=True)
    g, a = g.permute(2, 0, 1).contiguous().permute(1, 2, 0), a.repeat(1, 1, 2)[:, :, ::2]
    a = torch.cat((a, a), dim=1)[:, ::2]
    larger = torch.full((30, 90), -0.0)  # adding nothing at all would make it 0.0
    result = interpreter(_added_to_transposed_part, larger, g, a, programs)
    larger[4:24, 9:79] += _squares(g, a).T.float()
    assert torch.equal(result.view(torch.int32), larger.view(torch.int32))


@needs_interpreter
def test_a_kernel_that_computes_wrongly_is_not_used(interpreter):
    assert interpreter(_can_fuse, torch.float32)
    # Triton 3.7's interpreter multiplies bfloat16's bits as if they were whole numbers.
    assert not interpreter(_can_fuse, torch.bfloat16)
    assert not interpreter(_can_fuse, torch.float64)


def test_a_kernel_that_does_nothing_is_found_out(monkeypatch, caplog):
    monkeypatch.setattr(fused, "_launch", lambda *arguments, options: None)
    monkeypatch.setattr(fused, "_kernels", lambda: SimpleNamespace(search=0, list_steps=0, square=0, sum_slices=0))
    with caplog.at_level(logging.WARNING):
        assert not fused._computes.__wrapped__(torch.device("cpu"), torch.float32, "ieee")
    assert "torch.float32 (ieee) on cpu: its result is wrong" in caplog.text


def test_nothing_is_fused_on_the_cpu_and_triton_is_not_needed_to_know(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it fails
    can_fuse = runpy.run_path(fused.__file__)["can_fuse"]
    assert not any(can_fuse(torch.zeros(1, dtype=dtype)) for dtype in (*fused.DTYPES, torch.float64))


@pytest.mark.parametrize("misfit", ["tokens", "outputs", "inputs", "dtype", "total", "scale"])
def test_operands_that_do_not_fit_are_refused_before_memory_is_read_behind_their_end(misfit):
    g, a, total = _case((2, 3, 4, 5))
    scale = torch.ones(3 if misfit == "scale" else 2)
    g = {"tokens": g[:, 1:], "outputs": g[..., 1:], "dtype": g.half()}.get(misfit, g)
    a = a[..., 1:] if misfit == "inputs" else a
    with pytest.raises(ValueError, match="not fit"):
        fused.add_fused_squares(total.double() if misfit == "total" else total, g, a, scale)


def test_the_workspace_keeps_its_limit_and_slices_never_cost_more_than_whole_tiles():
    size = {"tile_bytes": 4 * 128 * 128, "programs": 132}
    for tiles, examples in itertools.product([1, 6, 36, 131, 132, 133, 144, 263, 1536], [1, 2, 8, 33, 64, 1000]):
        whole, slices = fused.plan(tiles, examples, **size)
        rest = tiles - whole
        assert (rest == 0 and slices == 1) or (whole % 132 == 0 and 1 < slices <= examples)
        assert rest * slices * size["tile_bytes"] <= fused.WORKSPACE_BYTES
        rounds = -(-whole // 132) * examples + -(-rest * slices // 132) * -(-examples // slices)
        assert rounds <= -(-tiles // 132) * examples
    assert fused.plan(144, 64, **size) == (132, 11)  # 3072 x 768 on an H200


@needs_triton
@pytest.mark.parametrize(
    ("capability", "dtype", "mode", "instruction"),
    [
        (90, torch.bfloat16, "half", "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16"),
        (90, torch.float32, "tf32", "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32"),
        (90, torch.float32, "ieee", "fma.rn.f32"),
        (86, torch.float16, "half", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
    ],
)
def test_the_kernels_compile_without_a_gpu(compiler, capability, dtype, mode, instruction):
    names, shared_bytes, instructions = compiler(_compiled, capability, dtype, mode)
    assert names == ["search", "list_steps", "square", "sum_slices"]
    assert shared_bytes <= SHARED_BYTES[capability]
    assert instruction in instructions
    assert "cp.async.wait_group" in instructions, "tiles are loaded while others are multiplied"


@needs_gpu
@needs_triton
@pytest.mark.parametrize("shape", [*SHAPES, (8, 128, 768, 768), (16, 70, 3072, 768), (3, 40, 1001, 333)])
@pytest.mark.parametrize("dtype", fused.DTYPES)
def test_a_gpu_computes_what_float64_does(shape, dtype):
    assert fused.can_fuse(torch.zeros(1, dtype=dtype, device="cuda"))
    g, a, total = (tensor.to("cuda") for tensor in _case(shape))
    g, a = g.to(dtype), a.to(dtype)
    g[0, shape[1] // 2 + 1 :] = 0
    results = [total.T.contiguous().T, total.clone()]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for result in results:
        fused.add_fused_squares(result, g, a)
    assert torch.cuda.max_memory_allocated() - before <= fused.WORKSPACE_BYTES + 2**20
    # Tensor cores sum the products of half precision less carefully than float32 would.
    _assert_close(results[0], total.double() + _squares(g, a), 1e-6 if dtype == torch.float32 else 1e-5)
    assert torch.equal(*results)


def _case(shape, *, whole_numbers=False):
    """Output gradients, inputs and a total that is not zero; small whole numbers make every sum exact."""
    examples, tokens, outputs, inputs = shape
    generator = torch.Generator().manual_seed(0)
    sizes = [(examples, tokens, outputs), (examples, tokens, inputs), (outputs, inputs)]
    if whole_numbers:
        return [torch.randint(-3, 4, size, generator=generator).float() for size in sizes]
    return [torch.randn(size, generator=generator) for size in sizes]


def _squares(g, a, scale=None):
    gradients = torch.einsum("bto,bti->boi", g.double(), a.double())
    return (gradients if scale is None else gradients * scale[:, None, None]).square().sum(0)


def _assert_close(result, expected, tolerance=1e-6):
    assert (result.double() - expected).norm() <= tolerance * expected.norm()


def _process(interpret):
    with tempfile.TemporaryDirectory() as folder:
        environment = {"TRITON_INTERPRET": interpret, "TRITON_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, _set, (environment,)) as pool:
            yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _set(environment):
    os.environ.update(environment)


def _estimated(name):
    """How often the kernel ran, and the Fisher."""
    calls, add = [], fused.add_fused_squares
    accumulation.add_fused_squares = lambda *arguments: (calls.append(1), add(*arguments))
    try:
        fisher = diagonal_fisher(cases.model_case(name), cases.batches_for(name, 4, examples=4))
    finally:
        accumulation.add_fused_squares = add
    return len(calls), dict(fisher)


def _added(total, g, a, scale=None, programs=1):
    _run_at_a_time(programs)
    total = total.clone()  # the processes share the memory of what they send
    fused.add_fused_squares(total, g, a, scale)
    return total


def _added_to_transposed_part(larger, g, a, programs):
    _run_at_a_time(programs)
    larger = larger.clone()
    fused.add_fused_squares(larger[4:24, 9:79].T, g, a)
    return larger


def _run_at_a_time(programs):
    fused._hardware = lambda device: (programs, 1)
    fused.TILES["ieee"] = (64, 64, 16, 4, 1)


def _can_fuse(dtype):
    return fused.can_fuse(torch.zeros(1, dtype=dtype))


def _compiled(capability, dtype, mode):
    """The names of the kernels that a call compiles, the largest shared memory, and the instructions of `square`."""
    import triton
    from triton.backends.compiler import GPUTarget

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: capability,  # Triton keeps what it compiled by the device's number
        get_current_stream=lambda device: 0,
    )
    triton.runtime.driver.set_active(driver)
    compiled = []
    fused._launch = lambda kernel, programs, *arguments, options: compiled.append(
        kernel.warmup(*arguments, grid=(programs,), **options)
    )
    fused._hardware = lambda device: (132, 3 if SHARED_BYTES[capability] <= fused.STAGES_BYTES else fused.STAGES)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if mode == "tf32" else "ieee"
    g, a, total = _case((8, 128, 256, 64))
    fused.add_fused_squares(total, g.to(dtype), a.to(dtype), torch.ones(8))
    return (
        [kernel.metadata.name for kernel in compiled],
        max(kernel.metadata.shared for kernel in compiled),
        compiled[2].asm["ptx"],
    )
