"""Squared gradients of linear layers in one CUDA kernel, written in Triton.

The gradient of a linear layer for example b is the matrix G_b = Σ_t g_bt a_btᵀ, of its output gradients g and inputs a.
Writing every G_b to memory, only to square and add it, costs a GPU more time than computing it. Here a program owns one
tile of the matrix: it holds G_b's tile in registers, squares it there, and goes on to the next example without a pause.
Nothing is added atomically, so that two runs give the same bits.
"""

import functools
import importlib
import logging
import os
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Rows, columns and tokens of a tile, warps of a program, programs that fit on a processor. Registers are the limit: a
# program holds two float32 tiles, G_b's and the sum's. Full float32 has no tensor cores to feed.
TILES = {"half": (128, 128, 64, 8, 1), "tf32": (128, 128, 32, 8, 1), "ieee": (64, 64, 16, 4, 4)}
# Stages of the pipeline that loads tiles while others are multiplied: five need 160 KB of memory beside each processor
# in Triton 3.4, and give three tiles in flight in Triton 3.6 and later. Consumer GPUs have 99 KB.
STAGES, STAGES_BYTES, FEW_STAGES = 5, 160 * 1024, 3
SEARCH_TILE = (32, 64)  # tokens and features that are read at once to find the tokens without a gradient
SEARCH_EXAMPLES = 256  # whose steps are counted at once
STRIP = 16  # rows of a tile whose slices one program sums
WORKSPACE_BYTES = 16 * 2**20
SLICE_EXAMPLES = 2  # writing and summing the tile of one slice takes about as long as this many examples (an estimate)


def can_fuse(tensor: Tensor) -> bool:
    """Whether `add_fused_squares` is right for this device and dtype; found out once, on a small case."""
    if tensor.dtype not in DTYPES:
        return False
    if tensor.device.type == "cuda":
        # Ampere or later, as Triton's bfloat16 and tf32 need it. AMD's GPUs are called "cuda" by torch, too.
        if torch.version.hip or torch.cuda.get_device_capability(tensor.device) < (8, 0):
            return False
    elif tensor.device.type != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
        return False
    return _computes(tensor.device, tensor.dtype, _mode(tensor.dtype))


def uses_tensor_cores() -> bool:
    """Whether torch may multiply float32 matrices on them, with 10 bits of mantissa."""
    return _mode(torch.float32) == "tf32"


def add_fused_squares(
    total: Float[Tensor, " o i"],
    g: Float[Tensor, " B T o"],
    a: Float[Tensor, " B T i"],
    scale: Float[Tensor, " B"] | None = None,
) -> None:
    """Adds Σ_b (scale_b · Σ_t g_bt a_btᵀ)² to `total`, elementwise, with sums in float32.

    `total` is float32 and may be a view of a larger tensor; g and a share one dtype of DTYPES; any strides will do.
    Tokens before the first and behind the last row of g that is not all zero count nothing, whatever a holds there.
    """
    examples, tokens, outputs = g.shape
    inputs = a.shape[-1]
    if a.shape != (examples, tokens, inputs) or total.shape != (outputs, inputs):
        raise ValueError(f"The shapes do not fit: {total.shape=}, {g.shape=}, {a.shape=}.")
    if total.dtype != torch.float32 or g.dtype not in DTYPES or a.dtype != g.dtype:
        raise ValueError(f"The dtypes do not fit: {total.dtype=}, {g.dtype=}, {a.dtype=}.")
    if scale is not None and scale.shape != (examples,):
        raise ValueError(f"The scale does not fit: {scale.shape=}, {g.shape=}.")
    if 0 in (examples, tokens, outputs, inputs):
        return
    mode = _mode(g.dtype)
    rows, columns, depth, warps, programs = TILES[mode]
    processors, stages = _hardware(g.device)
    tiles = _ceil_div(outputs, rows) * _ceil_div(inputs, columns)
    whole, slices = plan(tiles, examples, tile_bytes=4 * rows * columns, programs=programs * processors)
    rest = tiles - whole
    kernels = _kernels()
    with torch.no_grad(), torch.cuda.device_of(g):
        starts, steps = _steps(g, depth)
        partial = total.new_empty((rest * slices, rows, columns)) if rest else total
        scale = None if scale is None else scale.to(torch.float32).contiguous()
        matrix = (total, *total.stride(), outputs, inputs, partial, whole, slices)
        operands = (g, *g.stride(), a, *a.stride(), scale, starts, steps, examples)
        tile = {"ROWS": rows, "COLUMNS": columns}
        options = {"DEPTH": depth, "PRECISION": "tf32" if mode == "half" else mode}
        options |= {"num_stages": stages, "num_warps": warps}
        _launch(kernels.square, whole + rest * slices, *matrix, *operands, options=tile | options)
        if rest:
            _launch(kernels.sum_slices, rest * (rows // STRIP), *matrix, options=tile | {"STRIP": STRIP})


def plan(tiles: int, examples: int, *, tile_bytes: int, programs: int) -> tuple[int, int]:
    """How many tiles are computed whole, and into how many slices of the examples each of the rest is cut.

    With `programs` running at a time: whole tiles, a multiple of that, are added to the total in place. The rest would
    leave processors idle: they are cut where that pays, and only they need a workspace.
    Nothing here depends on the number of tokens: padding changes no bit of the result.
    """
    rest = tiles % programs
    if rest == 0:
        return tiles, 1

    def cost(slices: int) -> int:
        rounds = _ceil_div(rest * slices, programs)
        return rounds * (_ceil_div(examples, slices) + (SLICE_EXAMPLES if slices > 1 else 0))

    most = max(1, min(examples, WORKSPACE_BYTES // (rest * tile_bytes)))
    slices = min(range(1, most + 1), key=cost)
    return (tiles - rest, slices) if slices > 1 else (tiles, 1)


def _steps(g: Float[Tensor, " B T o"], depth: int) -> tuple[Int[Tensor, " B+1"], Int[Tensor, " S 3"]]:
    """Where each example's steps start, and each step's example, first token and end of the example's tokens.

    A step multiplies `depth` tokens. All this stays on the device, so that nothing waits for it; the last rows of the
    steps are not written if tokens are left out.
    """
    examples, tokens, outputs = g.shape
    block, features = SEARCH_TILE
    blocks = _ceil_div(tokens, block)
    ends, starts, steps = (
        torch.empty(shape, dtype=torch.int32, device=g.device)
        for shape in ((2, blocks, examples), (examples + 1,), (examples * _ceil_div(tokens, depth), 3))
    )
    kernels, sizes = _kernels(), (examples, blocks)
    options = {"TOKENS": block, "FEATURES": features}
    _launch(kernels.search, examples * blocks, ends, g, *g.stride(), tokens, outputs, *sizes, options=options)
    options = {"DEPTH": depth, "EXAMPLES": SEARCH_EXAMPLES}
    _launch(kernels.list_steps, examples, starts, steps, ends, *sizes, options=options)
    return starts, steps


def _mode(dtype: torch.dtype) -> str:
    """Which products: of half precision, of float32 on the tensor cores if torch is allowed to, or of full float32."""
    if dtype != torch.float32:
        return "half"
    matmul = torch.backends.cuda.matmul
    # Asked first: torch 2.9 and later raise for `allow_tf32` once somebody set the newer `fp32_precision`.
    precision = getattr(matmul, "fp32_precision", None)
    return "tf32" if precision == "tf32" or (precision is None and matmul.allow_tf32) else "ieee"


@functools.cache
def _hardware(device: torch.device) -> tuple[int, int]:
    """The number of processors, and the stages of their pipelines."""
    if device.type != "cuda":
        return 1, 1
    properties = torch.cuda.get_device_properties(device)
    stages = STAGES if properties.shared_memory_per_block_optin > STAGES_BYTES else FEW_STAGES
    return properties.multi_processor_count, stages


@functools.cache
def _computes(device: torch.device, dtype: torch.dtype, mode: str) -> bool:
    """Whether the kernels compile here and are right: not every machine has triton and the C compiler it needs."""
    generator = torch.Generator().manual_seed(0)
    g, a = (torch.randint(-1, 2, (8, 70, size), generator=generator).to(device, dtype) for size in (144, 80))
    g[1, 40:], g[2, :40], g[3] = 0, 0, 0
    problem = "its result is wrong"
    try:
        for examples in (1, 8):  # tiles computed whole, and in slices
            total = torch.ones((144, 80), device=device)
            add_fused_squares(total, g[:examples], a[:examples])
            # Sums of a few products of -1, 0 and 1 are exact in every precision.
            gradients = torch.einsum("bto,bti->boi", g[:examples].double(), a[:examples].double())
            if not torch.equal(total.double(), 1 + gradients.square().sum(0)):
                break
        else:
            return True
    except Exception as error:  # whatever it is, gradients can be squared without this kernel
        problem = f"{type(error).__name__}: {error}"
    case = f"{dtype} ({mode}) on {device}"
    logging.getLogger(__name__).warning("The fused kernel is not used for %s: %s", case, problem)
    return False


@functools.cache
def _kernels() -> ModuleType:
    """The kernels, imported when they are needed: that needs triton and takes a moment."""
    return importlib.import_module("merging.gradients.fused_kernels")


def _launch(kernel: Any, programs: int, *arguments: object, options: dict[str, object]) -> None:
    kernel[(programs,)](*arguments, **options)


def _ceil_div(count: int, size: int) -> int:
    return -(-count // size)
