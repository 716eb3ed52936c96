"""The Triton kernels behind `fused`, which alone imports this module: importing it needs triton.

Each program runs one function below. Counts that change from batch to batch are not specialised: Triton would compile
a kernel anew for 1 and for multiples of 16. Offsets are in 64 bits, since the output gradients of a large vocabulary
have more elements than 32 bits can count.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens", "examples", "blocks"])
def search(
    ends, g, g_example, g_token, g_feature, tokens, outputs, examples, blocks,
    TOKENS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """First token with a gradient, and the one behind the last, in one block of one example's tokens: `ends` (2, blocks, B)."""
    example = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    token = block * TOKENS + tl.arange(0, TOKENS)
    feature = tl.arange(0, FEATURES)
    tile = g + tl.cast(example, tl.int64) * g_example + tl.cast(token, tl.int64)[:, None] * g_token
    tile += tl.cast(feature, tl.int64)[None, :] * g_feature
    inside = token < tokens
    values = tl.load(tile, mask=inside[:, None] & (feature < outputs)[None, :], other=0.0)
    found = tl.max((values != 0).to(tl.int32), axis=1)
    # A token with a gradient nearly always shows it in the first features: the others are read only if one does not.
    unsure = tl.sum((inside & (found == 0)).to(tl.int32), axis=0)
    for start in range(FEATURES, tl.where(unsure > 0, outputs, 0), FEATURES):
        mask = inside[:, None] & (start + feature < outputs)[None, :]
        values = tl.load(tile + tl.cast(start, tl.int64) * g_feature, mask=mask, other=0.0)
        found = tl.maximum(found, tl.max((values != 0).to(tl.int32), axis=1))
    place = ends + block * examples + example
    tl.store(place, tl.min(tl.where(found > 0, token, tokens), axis=0))
    tl.store(place + blocks * examples, tl.max(tl.where(found > 0, token + 1, 0), axis=0))


@triton.jit(do_not_specialize=["examples", "blocks"])
def list_steps(starts, steps, ends, examples, blocks, DEPTH: tl.constexpr, EXAMPLES: tl.constexpr):
    """The steps of one example, `steps` (S, 3): example, first token, end of its tokens; `starts` (B + 1): its first step."""
    own = tl.program_id(0)
    start, count, first, last = 0, 0, 0, 0
    for group in range(0, own + 1, EXAMPLES):
        example = group + tl.arange(0, EXAMPLES)
        firsts = tl.full((EXAMPLES,), 2147483647, tl.int32)
        lasts = tl.zeros((EXAMPLES,), tl.int32)
        for block in range(0, blocks):
            place = ends + block * examples + example
            firsts = tl.minimum(firsts, tl.load(place, mask=example <= own, other=0))
            lasts = tl.maximum(lasts, tl.load(place + blocks * examples, mask=example <= own, other=0))
        # An example without any gradient takes a step, too, of no tokens: each example is to end with a step.
        counts = tl.maximum((lasts - firsts + DEPTH - 1) // DEPTH, 1)
        start += tl.sum(tl.where(example < own, counts, 0), axis=0)
        count += tl.sum(tl.where(example == own, counts, 0), axis=0)
        first += tl.sum(tl.where(example == own, firsts, 0), axis=0)
        last += tl.sum(tl.where(example == own, lasts, 0), axis=0)
    tl.store(starts + own, start)
    tl.store(starts + own + 1, start + count)
    for step in range(0, count):
        place = steps + 3 * (start + step)
        tl.store(place, own)
        tl.store(place + 1, first + step * DEPTH)
        tl.store(place + 2, last)


@triton.jit(do_not_specialize=["whole", "slices", "examples"])
def square(
    total, total_row, total_column, outputs, inputs, partial, whole, slices,
    g, g_example, g_token, g_feature, a, a_example, a_token, a_feature, scale, starts, steps, examples,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Squares one tile of all examples and adds it to `total`; behind the whole tiles, of one slice, into `partial`."""
    program = tl.program_id(0)
    behind = tl.maximum(program - whole, 0)
    alone = program < whole
    tile = tl.where(alone, program, whole + behind // slices)
    part = tl.where(alone, 0, behind % slices)
    parts = tl.where(alone, 1, slices)
    across = (inputs + COLUMNS - 1) // COLUMNS
    row = tile // across * ROWS + tl.arange(0, ROWS)
    column = tile % across * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    g_tile = tl.cast(row, tl.int64)[:, None] * g_feature + tl.cast(depth, tl.int64)[None, :] * g_token
    a_tile = tl.cast(depth, tl.int64)[:, None] * a_token + tl.cast(column, tl.int64)[None, :] * a_feature
    squares = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    gradient = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    start = tl.load(starts + part * examples // parts)
    # One loop over the steps of all examples: the pipeline of loads would run empty at the end of an inner loop.
    for step in range(start, tl.load(starts + (part + 1) * examples // parts)):
        example = tl.load(steps + 3 * step)
        token = tl.load(steps + 3 * step + 1)
        last = tl.load(steps + 3 * step + 2)
        g_at = g + tl.cast(example, tl.int64) * g_example + tl.cast(token, tl.int64) * g_token
        a_at = a + tl.cast(example, tl.int64) * a_example + tl.cast(token, tl.int64) * a_token
        inside = token + depth < last
        g_values = tl.load(g_at + g_tile, mask=(row < outputs)[:, None] & inside[None, :], other=0.0)
        a_values = tl.load(a_at + a_tile, mask=inside[:, None] & (column < inputs)[None, :], other=0.0)
        gradient = tl.dot(g_values, a_values, gradient, input_precision=PRECISION)
        if token + DEPTH >= last:
            if scale is not None:
                gradient *= tl.load(scale + example)
            squares += gradient * gradient
            gradient = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if alone:
        at = total + tl.cast(row, tl.int64)[:, None] * total_row + tl.cast(column, tl.int64)[None, :] * total_column
        inside = (row < outputs)[:, None] & (column < inputs)[None, :]
        tl.store(at, tl.load(at, mask=inside, other=0.0) + squares, mask=inside)
    else:
        within = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        tl.store(partial + tl.cast(behind, tl.int64) * (ROWS * COLUMNS) + within, squares)


@triton.jit(do_not_specialize=["whole", "slices"])
def sum_slices(
    total, total_row, total_column, outputs, inputs, partial, whole, slices,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Adds the slices of one strip of one tile behind the whole tiles to `total`, always in the same order."""
    behind = tl.program_id(0) // (ROWS // STRIP)
    strip = tl.program_id(0) % (ROWS // STRIP) * STRIP + tl.arange(0, STRIP)
    across = (inputs + COLUMNS - 1) // COLUMNS
    row = (whole + behind) // across * ROWS + strip
    column = (whole + behind) % across * COLUMNS + tl.arange(0, COLUMNS)
    within = strip[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    squares = tl.zeros((STRIP, COLUMNS), dtype=tl.float32)
    for part in range(0, slices):
        squares += tl.load(partial + tl.cast(behind * slices + part, tl.int64) * (ROWS * COLUMNS) + within)
    at = total + tl.cast(row, tl.int64)[:, None] * total_row + tl.cast(column, tl.int64)[None, :] * total_column
    inside = (row < outputs)[:, None] & (column < inputs)[None, :]
    tl.store(at, tl.load(at, mask=inside, other=0.0) + squares, mask=inside)
