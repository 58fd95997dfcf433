"""The one compiled function that executes a plan; every thread runs it. It knows no operation.

A plan is a table of rows. A row's items are cut into one share per thread, so that each thread
reads a contiguous run of the weights (streams of small pieces in turns reach half the bandwidth:
15 of 26 GB/s here). Threads claim chunks of their share, then of the others', and go on to the next
row; a row of a new level waits until all items of the level before are done. A thread that lost its
core between two chunks holds nobody up. Counters carry the step's number, so that a thread which
wakes up in a later step notices and leaves.
"""

from ggq.jit import entry, njit
from ggq.runtime.kernels.system import CLOCK_ID, SLEEP_ARGUMENT
from ggq.simd import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_clock,
    call_kernel,
    call_plain,
    compare_exchange,
    int64,
    load,
    pause,
    stack,
    store,
)

# A row of the table, int64 each.
KERNEL, ARGS, ITEMS, ITEMS_SLOT, CHUNK, LEVEL = range(6)
ROW_FIELDS = 6
# The control block: int64 each, the hot ones on cache lines of their own.
STEP, STOP, TABLE, N_ROWS, COUNTERS, STATE = 0, 8, 16, 17, 18, 19
YIELD, SLEEP, CLOCK, PROFILE, SHARES = 20, 21, 22, 23, 24
CONTROL_WORDS = 40
ACTIVE = 32  # workers inside a step
# Per share of a row a cache line for claims, per level one for the items left.
LINE = 64
_STEP_SHIFT = 40  # claims: step number above, next item below
_ITEM_MASK = (1 << _STEP_SHIFT) - 1
# Pauses before the core is offered to others (tens of microseconds: levels mostly end sooner), and
# offers before a thread sleeps: pure spinning collapses where another program takes a core.
_SPINS, _YIELDS = 2000, 50

FINISHED, STOPPED, STALE = -1, -2, -3


@njit
def _word(control, index):
    return load(control + 8 * index, int64)


@njit
def _shared(control, index):
    """Load a word that the calling thread may be about to change."""
    return atomic_load(control + 8 * index)


@njit
def _now(control, buffer):
    """Return monotonic nanoseconds, 0 where there is no clock."""
    clock = _word(control, CLOCK)
    if clock == 0:
        return int64(0)
    call_clock(clock, int64(CLOCK_ID), buffer)
    return load(buffer, int64) * 1000000000 + load(buffer + 8, int64)


@njit
def _relax(control, turns):
    """Spin, then offer the core, then sleep: a waiting thread must not starve a working one."""
    if turns < _SPINS:
        pause()
    elif turns < _SPINS + _YIELDS:
        call_plain(_word(control, YIELD), int64(0))
    else:
        call_plain(_word(control, SLEEP), int64(SLEEP_ARGUMENT))


@njit
def _await_level(control, left, step):
    """Wait until no item of a level is left; return False if stopped or if the step is over."""
    turns = 0
    while True:
        value = atomic_load(left)
        if value >> _STEP_SHIFT != step:
            return False
        if value & _ITEM_MASK == 0:
            return True
        if atomic_load(control + 8 * STOP):
            return False
        _relax(control, turns)
        turns += 1


@njit
def _claim(counter, chunk, items, step):
    """Return the first item of a claimed chunk; -1: none left, -2: the step is over."""
    while True:
        value = atomic_load(counter)
        if value >> _STEP_SHIFT != step:
            return int64(-2)
        first = value & _ITEM_MASK
        if first >= items:
            return int64(-1)
        if compare_exchange(counter, value, value + chunk):
            return first


@njit
def _share_start(share, shares, items, chunk):
    """Return the first item of a share: whole chunks, as even as they come."""
    chunks = (items + chunk - 1) // chunk
    return share * chunks // shares * chunk


@njit
def _run_share(row, counter, left, end, step):
    """Execute chunks up to item ``end`` until none is left; return False if the step is over."""
    chunk, kernel, args = _field(row, CHUNK), _field(row, KERNEL), _field(row, ARGS)
    while True:
        first = _claim(counter, chunk, end, step)
        if first == -1:
            return True
        if first == -2:
            return False
        last = min(first + chunk, end)
        call_kernel(kernel, args, first, last)
        atomic_add(left, first - last)


@njit
def _run_row(row, counters, left, items, step, me, shares):
    """Execute a thread's own share of a row, then help with the others'."""
    chunk = _field(row, CHUNK)
    for i in range(shares):
        share = (me + i) % shares
        end = min(items, _share_start(share + 1, shares, items, chunk))
        if not _run_share(row, counters + LINE * share, left, end, step):
            return False
    return True


@njit
def _field(row, index):
    return load(row + 8 * index, int64)


@njit
def _charge(control, profile, index, before, scratch):
    """Add the nanoseconds since ``before`` to row ``index``'s; return now.

    Waiting for a level's end counts as its last row: what others still work on.
    """
    now = _now(control, scratch)
    store(profile + 8 * index, load(profile + 8 * index, int64) + now - before)
    return now


@entry(returns=True)
def walk(control, start, step, slice_ns, me):
    """Execute the plan from row ``start`` as thread ``me``.

    Returns FINISHED, STOPPED, STALE or the row to go on from.

    Returns early at a row after ``slice_ns`` nanoseconds (0: never), so that a caller in Python can
    look at signals. With PROFILE set it adds each row's nanoseconds to the table there.
    """
    scratch = stack(64)
    table, n_rows = _shared(control, TABLE), _shared(control, N_ROWS)
    counters, state = _shared(control, COUNTERS), _shared(control, STATE)
    if _shared(control, STEP) != step:  # what was read may be of two steps
        return int64(STALE)
    shares = _word(control, SHARES)
    levels = counters + LINE * n_rows * shares
    profile = _word(control, PROFILE) if slice_ns else int64(0)  # the calling thread's alone
    deadline = _now(control, scratch) + slice_ns if slice_ns else int64(0)
    before = _now(control, scratch) if profile else int64(0)
    level = _field(table + 8 * ROW_FIELDS * start, LEVEL) if start else int64(0)
    for index in range(start, n_rows):
        row = table + 8 * ROW_FIELDS * index
        if _field(row, LEVEL) != level:
            if not _await_level(control, levels + LINE * level, step):
                return int64(STOPPED if atomic_load(control + 8 * STOP) else STALE)
            level = _field(row, LEVEL)
            if profile:
                before = _charge(control, profile, index - 1, before, scratch)
            if slice_ns and _now(control, scratch) > deadline:
                return int64(index)
        items = _field(row, ITEMS) * load(state + 8 * _field(row, ITEMS_SLOT), int64)
        claims, left = counters + LINE * index * shares, levels + LINE * level
        if not _run_row(row, claims, left, items, step, me, shares):
            return int64(STALE)
        if atomic_load(control + 8 * STOP):
            return int64(STOPPED)
        if profile:
            before = _charge(control, profile, index, before, scratch)
    if not _await_level(control, levels + LINE * level, step):
        return int64(STOPPED if atomic_load(control + 8 * STOP) else STALE)
    if profile:
        _charge(control, profile, n_rows - 1, before, scratch)
    return int64(FINISHED)


_walk = walk.njit


@entry(returns=True)
def serve(control, last_step, patience, me):
    """A worker's loop: wait for a step after ``last_step``, execute it, repeat.

    Returns the last step seen after ``patience`` turns without work, or -1 when told to stop for
    good (step number -1).
    """
    turns = 0
    while turns < patience:
        step = atomic_load(control + 8 * STEP)
        if step < 0:
            return int64(-1)
        if step != 0 and step != last_step:  # a tuple's "in" may raise, says numba
            last_step = step
            atomic_add(control + 8 * ACTIVE, 1)
            _walk(control, 0, step, int64(0), me)
            atomic_add(control + 8 * ACTIVE, -1)
            turns = 0
        else:
            _relax(control, turns)
            turns += 1
    return last_step


@entry()
def prepare(control, step, table, n_rows, n_levels, counters, state):
    """Install a plan, reset its counters for ``step`` and publish the step to the workers.

    While the words change the step is 0, so that a worker which read some of them notices.
    """
    atomic_store(control + 8 * STEP, 0)
    atomic_store(control + 8 * TABLE, table)
    atomic_store(control + 8 * N_ROWS, n_rows)
    atomic_store(control + 8 * COUNTERS, counters)
    atomic_store(control + 8 * STATE, state)
    shares = _word(control, SHARES)
    levels = counters + LINE * n_rows * shares
    tag = step << _STEP_SHIFT
    for level in range(n_levels):
        atomic_store(levels + LINE * level, tag)
    for index in range(n_rows):
        row = table + 8 * ROW_FIELDS * index
        items = _field(row, ITEMS) * load(state + 8 * _field(row, ITEMS_SLOT), int64)
        for share in range(shares):
            start = _share_start(share, shares, items, _field(row, CHUNK))
            atomic_store(counters + LINE * (index * shares + share), tag + start)
        atomic_add(levels + LINE * _field(row, LEVEL), items)
    atomic_store(control + 8 * STEP, step)


@entry()
def end_step(control):
    """Close every counter: a late worker must not claim once the state's counts change.

    Step 0 never runs, so that each of its claims finds the step over.
    """
    claims, counters = _word(control, N_ROWS) * _word(control, SHARES), _word(control, COUNTERS)
    for index in range(claims):
        atomic_store(counters + LINE * index, 0)


_end_step = end_step.njit


@entry()
def abandon(control):
    """Stop the step under way: no further chunk is claimed; return when every worker has left."""
    atomic_store(control + 8 * STOP, 1)
    _end_step(control)
    turns = 0
    while atomic_load(control + 8 * ACTIVE) != 0:
        _relax(control, turns)
        turns += 1
    atomic_store(control + 8 * STOP, 0)


ENTRIES = tuple(e.function for e in (walk, serve, prepare, end_step, abandon))
