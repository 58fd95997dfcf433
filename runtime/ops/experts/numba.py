"""experts as plan rows: the block type's own kernels, their argument block patched per expert.

With few tokens each pair multiplies its expert's rows alone. With many the pairs lie sorted by
expert, so that an expert is one matrix product with consecutive rows.
"""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels import abi
from ggq.runtime.backends.numba.plan import ONE, TOKENS, Work
from ggq.runtime.backends.numba.values import FEW, compiled
from ggq.runtime.kernels.atomic import call_kernel
from ggq.simd import load, stack, store, u8x64

# After the slots of abi.py, in bytes.
_EXPERT_BYTES, _BIAS_BYTES, _GROUPS = 88, 96, 104
_IDS, _IDS_STRIDE, _USED, _SHARE, _KERNEL = 112, 120, 128, 136, 144  # few
_STARTS, _COUNTS, _FEW_KERNEL, _MANY_KERNEL = 112, 120, 128, 136  # many

_CHUNK_BYTES = 48 * 1024


@njit
def _patch(args, block, expert, row_in, row_out, state):
    """Write the argument block of one expert's product: input and output start at those rows."""
    for i in range(0, 8 * abi.SLOTS, 8):
        store(block + i, load(args + i, int64))
    at = load(args + abi.WEIGHTS, int64) + expert * load(args + _EXPERT_BYTES, int64)
    store(block + abi.WEIGHTS, at)
    bias = load(args + abi.BIAS, int64)
    if bias:
        store(block + abi.BIAS, bias + expert * load(args + _BIAS_BYTES, int64))
    step = load(args + abi.INPUT_STRIDE, int64)
    store(block + abi.INPUT, load(args + abi.INPUT, int64) + row_in * step)
    step = load(args + abi.OUTPUT_STRIDE, int64)
    store(block + abi.OUTPUT, load(args + abi.OUTPUT, int64) + row_out * step)
    store(block + abi.STATE, state)


def _few():
    def experts_few(args, first, last):
        block, groups = stack(128), load(args + _GROUPS, int64)
        n_used, share = load(args + _USED, int64), load(args + _SHARE, int64)
        item = first
        while item < last:
            pair, group = item // groups, item % groups
            end = min(groups, group + last - item)
            at = load(args + _IDS, int64) + pair // n_used * load(args + _IDS_STRIDE, int64)
            expert = load(at + 8 * (pair % n_used), int64)
            _patch(args, block, expert, pair // share, pair, load(args + abi.STATE, int64))
            call_kernel(load(args + _KERNEL, int64), block, group, end)
            item += end - group

    return kernel(experts_few)


def _many():
    def experts_many(args, first, last):
        block, groups = stack(128), load(args + _GROUPS, int64)
        item = first
        while item < last:
            expert, group = item // groups, item % groups
            end = min(groups, group + last - item)
            count = load(args + _COUNTS, int64) + 8 * expert
            n = load(count, int64)
            if n > 0:
                start = load(load(args + _STARTS, int64) + 8 * expert, int64)
                _patch(args, block, expert, start, start, count)
                which = args + _MANY_KERNEL if n > FEW else args + _FEW_KERNEL
                call_kernel(load(which, int64), block, group, end)
            item += end - group

    return kernel(experts_many)


def _gather():
    def gather_pairs(args, first, last):
        source, stride, order = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        n_used, out = load(args + 24, int64), load(args + 32, int64)
        for item in range(first, last):
            row = source + load(order + 8 * item, int64) // n_used * stride
            for i in range(0, stride, 64):
                store(out + item * stride + i, load(row + i, u8x64))

    return kernel(gather_pairs)


def _sorted_input(backend, x, form, routed):
    """Return the tokens' rows in the order of the sorted pairs; recorded once per input."""
    key = id(x), form
    if key not in routed.sorted_inputs:
        source = x.form(form)
        out = backend.recorder.buffer(source.stride, routed.pairs)
        backend.recorder.row(
            "gather pairs",
            compiled(_gather),
            [source, source.stride, routed.order, routed.n_used, out],
            Work(slot=routed.pairs, chunk=4),
            reads=[source, routed.order],
            writes=[out],
        )
        routed.sorted_inputs[key] = out, x
    return routed.sorted_inputs[key][0]


def run(backend, x, routed, name, bias=None, rows=None):
    """Record a row per pair of token and expert."""
    weight = backend.weight(name)
    n_expert, n_stored, n_cols = weight.shape
    first, end = rows or (0, n_stored)
    assert 0 <= first < end <= n_stored, (name, rows)
    n_rows = end - first
    if n_cols != x.width or n_expert != routed.n_expert:
        raise ModelError(f"tensor {name} has shape {weight.shape}, its input {x.width} columns")

    def make(value, form, residual):
        kernels, out = backend.kernels(weight), backend.new(value)
        few = compiled(kernels.few)
        groups = -(-n_rows // abi.GROUP)
        shared = x.slot == TOKENS
        if backend.few or not shared:
            source = x.form(kernels.activations)
        else:
            source = _sorted_input(backend, x, kernels.activations, routed)
        shift = backend.weight(bias).vector + 4 * first if bias else 0
        args = [
            weight.address + first * weight.row_bytes,
            weight.row_bytes,
            n_rows,
            n_cols,
            source,
            source.stride,
            out,
        ]
        args += [out.stride, shift, 0, backend.recorder.state.address(ONE)]
        args += [n_stored * weight.row_bytes, 4 * n_stored, groups]
        if backend.few:
            args += [routed.ids, routed.ids.stride, routed.n_used]
            args += [routed.n_used if shared else 1, few]
            items, slot, used = routed.n_used * groups, TOKENS, [routed.ids]
        else:
            many = compiled(kernels.many)
            args += [routed.starts, routed.counts, few, many]
            items, slot, used = n_expert * groups, ONE, [routed.starts, routed.counts]
        backend.recorder.row(
            f"experts {weight.type.name}",
            compiled(_few if backend.few else _many),
            args,
            Work(
                items=items,
                slot=slot,
                chunk=max(1, min(_CHUNK_BYTES // (weight.row_bytes * abi.GROUP), groups // 4)),
            ),
            reads=[source, *used],
            writes=[out],
        )
        return out

    return backend.value(n_rows, routed.pairs, make)
