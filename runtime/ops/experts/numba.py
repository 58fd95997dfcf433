"""experts as plan rows: the block type's own kernels, their argument block patched per expert.

Decoding, each pair multiplies its expert's rows alone; where the file is larger than the memory,
their pages are asked for before. In prefill the pairs lie sorted by expert, so that an expert is
one matrix product with consecutive rows.
"""

import mmap

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels import abi
from ggq.quants.kernels.abi import MATMUL_BYTES
from ggq.runtime.backends.numba.plan import ONE, TOKENS, Work
from ggq.runtime.backends.numba.values import DECODE_TOKENS
from ggq.runtime.kernels.ask import ask
from ggq.runtime.kernels.system import madvise
from ggq.simd import INT, ROWS, Struct, call_kernel, int64, load, stack, store, u8x64, view

# What a block type's kernel is given, and how that differs from expert to expert.
_EXPERTS = Struct("experts", base=abi.MATMUL, expert_bytes=INT, bias_bytes=INT, groups=INT)
_CHUNK_BYTES = 48 * 1024  # as linear's


@njit
def _patch(args, block, expert, row_in, row_out, state):
    """Write the argument block of one expert's product: input and output start at those rows."""
    for i in range(0, MATMUL_BYTES, 8):
        store(block.address + i, load(args.address + i, int64))
    block.weights = args.weights + expert * args.expert_bytes
    if args.bias:
        block.bias = args.bias + expert * args.bias_bytes
    block.input = args.input + row_in * args.input_stride
    block.output = args.output + row_out * args.output_stride
    block.state = state


@kernel(Struct("experts_decode", base=_EXPERTS, ids=ROWS, n_used=INT, share=INT, decode=INT))
def _experts_decode(args, first, last):
    block, groups, n_used = view(stack(MATMUL_BYTES), abi.MATMUL), args.groups, args.n_used
    item = first
    while item < last:
        pair, group = item // groups, item % groups
        end = min(groups, group + last - item)
        expert = load(args.ids + pair // n_used * args.ids_stride + 8 * (pair % n_used), int64)
        _patch(args, block, expert, pair // args.share, pair, args.state)
        call_kernel(args.decode, block.address, group, end)
        item += end - group


@kernel(Struct("experts_prefill", base=_EXPERTS, starts=INT, counts=INT, decode=INT, prefill=INT))
def _experts_prefill(args, first, last):
    block, groups = view(stack(MATMUL_BYTES), abi.MATMUL), args.groups
    item = first
    while item < last:
        expert, group = item // groups, item % groups
        end = min(groups, group + last - item)
        count = args.counts + 8 * expert
        n = load(count, int64)
        if n > 0:
            start = load(args.starts + 8 * expert, int64)
            _patch(args, block, expert, start, start, count)
            call_kernel(
                args.prefill if n > DECODE_TOKENS else args.decode, block.address, group, end
            )
        item += end - group


@kernel(source=ROWS, order=INT, n_used=INT, out=INT)
def _gather_pairs(args, first, last):
    stride, n_used = args.source_stride, args.n_used
    for item in range(first, last):
        row = args.source + load(args.order + 8 * item, int64) // n_used * stride
        to = args.out + item * stride
        for i in range(0, stride, 64):
            store(to + i, load(row + i, u8x64))


def _sorted_input(backend, x, form, routed):
    """Return the tokens' rows in the order of the sorted pairs; recorded once per input."""
    key = id(x), form
    if key not in routed.sorted_inputs:
        source = x.form(form)
        out = backend.recorder.buffer(source.stride, routed.pairs)
        backend.recorder.row(
            "gather pairs",
            _gather_pairs,
            Work(slot=routed.pairs, chunk=4),
            reads=[source, routed.order],
            writes=[out],
            source=source,
            order=routed.order,
            n_used=routed.n_used,
            out=out,
        )
        routed.sorted_inputs[key] = out, x
    return routed.sorted_inputs[key][0]


def _record_ask(backend, routed, weight, first, n_rows):
    """Have the chosen experts' pages of a stack asked for as soon as they are chosen.

    Recorded with the graph, and first of its level: before what computes with the layer's other
    stacks. Prefill goes through nearly all experts, in order, which the system sees by itself.
    """
    if not (backend.decoding and backend.beyond_memory and madvise()):
        return
    backend.recorder.row(
        "ask for experts",
        ask,
        Work(items=routed.n_used),
        reads=[routed.ids],
        first=True,
        ids=routed.ids,
        n_used=routed.n_used,
        weights=weight.address + first * weight.row_bytes,
        expert_bytes=weight.shape[1] * weight.row_bytes,
        needed_bytes=n_rows * weight.row_bytes,
        page_bytes=mmap.PAGESIZE,
        advise=madvise(),
    )


def run(backend, x, routed, name, bias=None, rows=None):
    """Record a row per pair of token and expert."""
    weight = backend.weight(name)
    n_expert, n_stored, n_cols = weight.shape
    first, end = rows or (0, n_stored)
    assert 0 <= first < end <= n_stored, (name, rows)
    n_rows = end - first
    if n_cols != x.width or n_expert != routed.n_expert:
        raise ModelError(f"tensor {name} has shape {weight.shape}, its input {x.width} columns")

    _record_ask(backend, routed, weight, first, n_rows)

    def make(value, form, residual):
        kernels, out = backend.kernels(weight), backend.new(value)
        groups = -(-n_rows // abi.GROUP)
        shared = x.slot == TOKENS
        if backend.decoding or not shared:
            source = x.form(kernels.activations)
        else:
            source = _sorted_input(backend, x, kernels.activations, routed)
        if backend.decoding:
            kernel, items, slot = _experts_decode, routed.n_used * groups, TOKENS
            used = [routed.ids]
            more = {"ids": routed.ids, "n_used": routed.n_used, "decode": kernels.decode}
            more["share"] = routed.n_used if shared else 1
        else:
            kernel, items, slot = _experts_prefill, n_expert * groups, ONE
            used = [routed.starts, routed.counts]
            more = {"starts": routed.starts, "counts": routed.counts}
            more |= {"decode": kernels.decode, "prefill": kernels.prefill}
        chunk = max(1, min(_CHUNK_BYTES // (weight.row_bytes * abi.GROUP), groups // 4))
        backend.recorder.row(
            f"experts {weight.type.name}",
            kernel,
            Work(items=items, slot=slot, chunk=chunk),
            reads=[source, *used],
            writes=[out],
            weights=weight.address + first * weight.row_bytes,
            row_bytes=weight.row_bytes,
            n_rows=n_rows,
            n_cols=n_cols,
            input=source,
            output=out,
            bias=backend.weight(bias).vector + 4 * first if bias else None,
            residual=None,
            state=backend.recorder.state.address(ONE),
            expert_bytes=n_stored * weight.row_bytes,
            bias_bytes=4 * n_stored,
            groups=groups,
            **more,
        )
        return out

    return backend.value(n_rows, routed.pairs, make)
