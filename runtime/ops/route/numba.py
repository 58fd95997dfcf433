"""route as plan rows: a token is an item; in prefill tokens are then sorted by expert."""

from dataclasses import dataclass, field

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba.plan import ONE, Buffer, Work
from ggq.runtime.ops.route import TINY
from ggq.simd import FLOAT, INT, ROWS, f32x16, float32, int64, lane, load, splat, stack, store
from ggq.simd.math import exp, sigmoid

_KINDS = {"softmax": 0, "softmax_chosen": 1, "sigmoid": 2}
_MAX_EXPERTS, _MAX_GROUPS = 1024, 64
_SCORES, _SUMS = 4 * _MAX_EXPERTS, 4 * _MAX_GROUPS  # bytes
_NEVER = -3e38  # below every score, and still a number


@dataclass
class Routed:
    """Where tokens go: pair number token * n_used + rank is one token at one of its experts.

    ``ids`` int64 and ``weights`` float32, [token][rank]. In prefill the pairs are sorted by
    expert: ``order``: sorted place -> pair, ``place``: the inverse, ``starts`` and ``counts`` by
    expert, all int64; in decoding these are None. ``pairs``: the slot that counts pairs.
    """

    n_expert: int
    n_used: int
    pairs: int
    ids: Buffer
    weights: Buffer | None
    order: Buffer | None = None
    place: Buffer | None = None
    starts: Buffer | None = None
    counts: Buffer | None = None
    sorted_inputs: dict = field(default_factory=dict)


@njit
def _exp(x):
    return lane(exp(splat(x, f32x16)), 0)


@njit
def _at(values, i):
    return load(values + 4 * i, float32)


@njit
def _top(values, first, last):
    """Return the index of the largest value in [first, last); ``first`` where none is a number."""
    best, top = first, float32(_NEVER)
    for i in range(first, last):
        if _at(values, i) > top:
            best, top = i, _at(values, i)
    return best


@njit
def _score(logits, scores, n, kind):
    """Write the scores of one token's logits."""
    shift = splat(_at(logits, _top(logits, int64(0), n)), f32x16)
    for i in range(0, 4 * n, 64):
        x = load(logits + i, f32x16)
        if kind == 0:
            x = exp(x - shift)
        if kind == 2:
            x = sigmoid(x)
        store(scores + i, x)
    if kind == 0:
        total = float32(0)
        for i in range(n):
            total += _at(scores, i)
        for i in range(n):
            store(scores + 4 * i, _at(scores, i) / total)


@njit
def _leave_groups(choice, sums, n, n_group, n_used):
    """Ban the experts outside the ``n_used`` best groups."""
    size = n // n_group
    for g in range(n_group):
        first = _top(choice, g * size, (g + 1) * size)
        held = _at(choice, first)
        store(choice + 4 * first, float32(_NEVER))
        second = _at(choice, _top(choice, g * size, (g + 1) * size)) if size > 1 else float32(0)
        store(choice + 4 * first, held)
        store(sums + 4 * g, held + second)
    for _ in range(n_used):
        store(sums + 4 * _top(sums, int64(0), n_group), float32(_NEVER))
    for g in range(n_group):
        if _at(sums, g) != float32(_NEVER):
            for i in range(g * size, (g + 1) * size):
                store(choice + 4 * i, float32(_NEVER))


@njit
def _weigh(scores, ids, weights, n_used, kind, normalize, scale):
    """Write the weights of the chosen experts."""
    total, top = float32(0), _at(scores, load(ids, int64))
    for s in range(n_used):
        w = _at(scores, load(ids + 8 * s, int64))
        if kind == 1:
            w = _exp(w - top)
        total += w
        store(weights + 4 * s, w)
    factor = scale / (total + float32(TINY)) if normalize else scale
    for s in range(n_used):
        store(weights + 4 * s, _at(weights, s) * factor)


@kernel(
    logits=ROWS,
    ids=ROWS,
    weights=ROWS,
    n_expert=INT,
    n_used=INT,
    kind=INT,
    bias=INT,
    normalize=INT,
    scale=FLOAT,
    n_group=INT,
    n_group_used=INT,
    scales=INT,
)
def _route(args, first, last):
    n, n_used, kind = args.n_expert, args.n_used, args.kind
    bias, n_group, scales = args.bias, args.n_group, args.scales
    scores, choice, sums = stack(_SCORES), stack(_SCORES), stack(_SUMS)
    for item in range(first, last):
        ids = args.ids + item * args.ids_stride
        _score(args.logits + item * args.logits_stride, scores, n, kind)
        for i in range(n):
            extra = _at(bias, i) if bias else float32(0)
            store(choice + 4 * i, _at(scores, i) + extra)
        if n_group > 1:
            _leave_groups(choice, sums, n, n_group, args.n_group_used)
        for s in range(n_used):
            best = _top(choice, int64(0), n)
            store(ids + 8 * s, best)
            store(choice + 4 * best, float32(_NEVER))
        weights = args.weights + item * args.weights_stride
        _weigh(scores, ids, weights, n_used, kind, args.normalize, args.scale)
        for s in range(n_used if scales else 0):
            w = _at(weights, s) * _at(scales, load(ids + 8 * s, int64))
            store(weights + 4 * s, w)


@kernel(ids=ROWS, n_used=INT, n_expert=INT, order=INT, place=INT, starts=INT, counts=INT, state=INT)
def _sort(args, first, last):
    ids, stride, n_used, n_expert = args.ids, args.ids_stride, args.n_used, args.n_expert
    order, place, starts, counts = args.order, args.place, args.starts, args.counts
    n_tokens = load(args.state, int64)
    for e in range(n_expert):
        store(counts + 8 * e, int64(0))
    for t in range(n_tokens):
        for s in range(n_used):
            count = counts + 8 * load(ids + t * stride + 8 * s, int64)
            store(count, load(count, int64) + 1)
    total = int64(0)
    for e in range(n_expert):
        store(starts + 8 * e, total)
        total += load(counts + 8 * e, int64)
        store(counts + 8 * e, int64(0))
    for t in range(n_tokens):
        for s in range(n_used):
            e = load(ids + t * stride + 8 * s, int64)
            taken = load(counts + 8 * e, int64)
            store(counts + 8 * e, taken + 1)
            to, pair = load(starts + 8 * e, int64) + taken, t * n_used + s
            store(order + 8 * to, pair)
            store(place + 8 * pair, to)


def run(backend, logits, spec):
    """Record the choice of experts."""
    n, k, recorder = spec.n_expert, spec.n_used, backend.recorder
    if n > _MAX_EXPERTS or spec.n_group > _MAX_GROUPS or n % spec.n_group:
        raise ModelError(f"{n} experts in {spec.n_group} groups are not supported on the CPU")
    source, pairs = logits.f32(), recorder.state.multiple(k)
    routed = Routed(n, k, pairs, recorder.buffer(8 * k), recorder.buffer(4 * k))
    recorder.row(
        "route",
        _route,
        reads=[source],
        writes=[routed.ids, routed.weights],
        logits=source,
        ids=routed.ids,
        weights=routed.weights,
        n_expert=n,
        n_used=k,
        kind=_KINDS[spec.gating],
        bias=backend.weight(spec.bias).vector if spec.bias else None,
        normalize=spec.normalize or spec.gating == "softmax_chosen",
        scale=spec.scale,
        n_group=spec.n_group,
        n_group_used=spec.n_group_used,
        scales=backend.weight(spec.scales).vector if spec.scales else None,
    )
    if not backend.decoding:
        record_sort(backend, routed)
    return routed


def record_sort(backend, routed):
    """Record the sorting of pairs by expert; fills ``routed``'s other buffers."""
    recorder = backend.recorder
    pairs = 8 * routed.n_used * recorder.max_tokens
    routed.order, routed.place = recorder.buffer(pairs, ONE), recorder.buffer(pairs, ONE)
    routed.starts = recorder.buffer(8 * routed.n_expert, ONE)
    routed.counts = recorder.buffer(8 * routed.n_expert, ONE)
    recorder.row(
        "sort by expert",
        _sort,
        Work(slot=ONE),
        reads=[routed.ids],
        writes=[routed.order, routed.place, routed.starts, routed.counts],
        ids=routed.ids,
        n_used=routed.n_used,
        n_expert=routed.n_expert,
        order=routed.order,
        place=routed.place,
        starts=routed.starts,
        counts=routed.counts,
        state=recorder.state.address(),
    )
