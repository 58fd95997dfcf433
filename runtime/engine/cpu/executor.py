"""Threads that execute plans: the caller's own and persistent workers. It knows no operation.

Between two steps the workers spin for a moment, then sleep; within a step no Python runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from ggq.runtime.backends.numba.plan import Plan
from ggq.runtime.kernels import walk as w
from ggq.runtime.kernels.system import system_calls

__all__ = ["Executor"]

_SPINS = 2300  # rounds that an idle worker waits (about 20 ms, most of it asleep) before it parks
_SLICE_NS = 50_000_000  # the calling thread looks at signals this often


class Executor:
    """Runs plans on ``n_threads`` threads; one caller at a time."""

    def __init__(self, n_threads: int):
        self.n_threads = n_threads
        self._control = np.zeros(w.CONTROL_WORDS, np.int64)
        self._address = self._control.ctypes.data
        self._control[w.YIELD], self._control[w.SLEEP], self._control[w.CLOCK] = system_calls()
        self._control[w.SHARES] = n_threads
        self._step = 0
        # A worker may wake up late, in a plan that its owner has dropped for another.
        self._held: tuple[Plan | None, Plan | None] = (None, None)
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def run(
        self,
        plan: Plan,
        profile: dict[str, int] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Execute one step of ``plan``; KeyboardInterrupt leaves the workers idle and sound.

        ``profile``: where it adds nanoseconds per kind of row, as the calling thread saw them;
        ``progress``: told the share of rows that are begun, between two looks at signals. An
        exception that it raises ends the step as KeyboardInterrupt does.
        """
        self._start_workers()
        if profile is None:
            self._run(plan, progress)
            return
        spent = np.zeros(plan.n_rows, np.int64)
        self._control[w.PROFILE] = spent.ctypes.data
        try:
            self._run(plan, progress)
        finally:
            self._control[w.PROFILE] = 0
        for label, nanoseconds in zip(plan.labels, spent.tolist(), strict=True):
            profile[label] = profile.get(label, 0) + nanoseconds

    def _run(self, plan: Plan, progress: Callable[[float], None] | None) -> None:
        self._step += 1
        self._held = self._held[-1], plan
        counters, row = plan.counters_for(self.n_threads), 0
        try:  # from here on workers may be inside: Ctrl-C between any two lines
            w.prepare(
                self._address,
                self._step,
                plan.table.ctypes.data,
                plan.n_rows,
                plan.n_levels,
                counters,
                plan.state_address,
            )
            with self._wake:
                self._wake.notify_all()
            while row >= 0:
                row = w.walk(self._address, row, self._step, _SLICE_NS, 0)
                if progress is not None:
                    progress(row / plan.n_rows if row >= 0 else 1.0)
            assert row == w.FINISHED, row
            w.end_step(self._address)
        except BaseException:
            w.abandon(self._address)
            raise

    def close(self) -> None:
        """End the workers."""
        self._closed = True
        self._control[w.STEP] = -1
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_workers(self) -> None:
        while len(self._threads) < self.n_threads - 1:
            number = len(self._threads) + 1
            thread = threading.Thread(
                target=self._work, args=(number,), name="ggq-worker", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _work(self, number: int) -> None:
        last = 0
        while True:
            last = w.serve(self._address, last, _SPINS, number)
            if last < 0:
                return
            with self._wake:
                while self._step == last and not self._closed:
                    self._wake.wait()
