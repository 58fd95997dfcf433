"""The CPU back end: plans of compiled kernels, recorded on first use, run by persistent threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ggq.models.hparams import HParams
from ggq.runtime.backends.numba.backend import DECODE_TOKENS, NumbaOps, record
from ggq.runtime.backends.numba.plan import Plan, Recorder, State
from ggq.runtime.cache.kinds import Kind
from ggq.runtime.cache.kvcache import KVCache
from ggq.runtime.engine.backend import Architecture, Output, Part, cache_positions, step_tokens
from ggq.runtime.engine.cpu.executor import Executor
from ggq.runtime.engine.cpu.inputs import Inputs
from ggq.runtime.engine.headless import Tap, ending_with

__all__ = ["CPUBackend"]


class CPUBackend:
    """Runs steps on ``n_threads`` threads (ggq.runtime.engine.backend.Backend).

    ``check_unchanged`` is called before each step: it raises where the weights' file was cut, since
    reading pages beyond its new end would end the process.
    """

    def __init__(
        self,
        architecture: Architecture,
        hp: HParams,
        weights: Mapping[str, Any],
        *,
        n_ctx: int,
        n_threads: int,
        cache_type: Kind,
        check_unchanged: Callable[[], None] = lambda: None,
    ):
        self.max_tokens = step_tokens(hp, n_ctx)
        self.cache = KVCache(hp.memories, cache_positions(hp, n_ctx), cache_type)
        self.profile: dict[str, int] | None = None
        self._hp, self._architecture, self._weights = hp, architecture, weights
        self._check_unchanged = check_unchanged
        self._state = State()
        self._adapters: Sequence[Any] = getattr(weights, "adapters", ())  # a dictionary has none
        self._inputs = Inputs(
            self.max_tokens,
            self._state,
            DECODE_TOKENS,
            hp.causal,
            len(self._adapters),
            (1 + hp.deepstack, hp.n_embd) if hp.pictures else None,
        )
        self._plans: dict[tuple[Output, int], Plan] = {}
        self._executor = Executor(n_threads)
        self._n_ctx, self._tap = n_ctx, Tap()

    def run(self, parts: list[Part], output: Output) -> np.ndarray:
        """Evaluate the parts of a step; return a row for each token that wants one."""
        n_tokens = sum(len(part.ids) for part in parts)
        if any(glimpse.span[1] for part in parts for glimpse in part.pictures):
            n_tokens = max(n_tokens, DECODE_TOKENS + 1)  # keys are there before they are looked at
        plan = self._plan(n_tokens, output)
        self._check_unchanged()
        n_rows = self._inputs.fill(parts)
        self._executor.run(plan, self.profile)
        if plan.tapped is not None and self._tap.listener is not None:
            n = sum(len(part.ids) for part in parts)
            self._tap.listener(parts, plan.tapped_rows(n, self._hp.n_embd))
        return plan.output_rows(n_rows, output.width(self._hp))

    def _plan(self, n_tokens: int, output: Output) -> Plan:
        """Return the plan for a step of ``n_tokens``, recorded on first use."""
        key = output, DECODE_TOKENS if n_tokens <= DECODE_TOKENS else self.max_tokens
        if key not in self._plans:
            recorder = Recorder(key[1], self._state)
            ops = NumbaOps(self._weights, recorder, self._inputs, self.cache, self._adapters)
            graph = ending_with(output, self._architecture)
            if self._tap.listener is not None and output is Output.LOGITS:
                graph = self._tap.on(graph)
            self._plans[key] = record(graph, self._hp, ops)
        return self._plans[key]

    def tap(self, tap: Tap) -> None:
        """Tell a listener of the hidden states of all tokens of the steps from now on."""
        self._tap = tap
        self._plans.clear()

    def beside(
        self, architecture: Architecture, hp: HParams, weights: Mapping[str, Any]
    ) -> CPUBackend:
        """Return a back end of another graph, with a cache of its own, on the same threads."""
        other = CPUBackend(
            architecture,
            hp,
            weights,
            n_ctx=self._n_ctx,
            n_threads=self._executor.n_threads,
            cache_type=self.cache.kinds,
            check_unchanged=self._check_unchanged,
        )
        other._executor = self._executor
        return other

    def close(self) -> None:
        """End the threads."""
        self._executor.close()
