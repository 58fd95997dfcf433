"""The chain: logit bias, penalties, truncation, temperature, draw, in the parameters' order.

One sampler belongs to one sequence: it remembers the tokens it was told to accept. It knows
nothing about models or text, except that DRY's breakers need a tokenizer.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.runtime.sampling import penalties, truncation
from ggq.runtime.sampling.candidates import Candidates, draw, softmax
from ggq.runtime.sampling.mirostat import Mirostat
from ggq.runtime.sampling.params import SamplingParams

_COLDEST = 1e-6  # below it a float32 division overflows; the highest logit has won long before


class Constraint(Protocol):
    """What a grammar must offer: it is asked about one token, and about all only when refused."""

    def allows(self, token: int) -> bool:
        """Return whether ``token`` may come next."""

    def mask(self, logits: np.ndarray) -> np.ndarray:
        """Return ``logits`` with -inf at every token that may not come next."""

    def accept(self, token: int) -> None:
        """Move on by ``token``."""


class Sampler:
    """Chooses tokens for one sequence; the same seed and logits give the same tokens."""

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: object | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """Take the parameters; ``tokenizer`` is used only for DRY's breakers."""
        self.params = params
        self.seed = secrets.randbits(32) if params.seed is None else params.seed
        self._rng = np.random.default_rng(self.seed)
        self._redraws = np.random.default_rng((self.seed, 1))
        self._constraint = constraint
        self._history: list[int] = []
        self._counts: Counter[int] = Counter()
        self._mirostat: Mirostat | None = None
        self._breakers: penalties.Breakers = {}
        if params.dry_multiplier > 0 and tokenizer is not None:
            self._breakers = penalties.breaker_tokens(tokenizer, params.dry_breakers)
        self._steps = [self._STEPS[letter] for letter in params.sequence]

    def accept(self, token: int) -> None:
        """Remember a token of the sequence for the penalties and the constraint."""
        self._remember(token)
        if self._constraint is not None:
            self._constraint.accept(token)

    def prime(self, prompt: Sequence[int]) -> None:
        """Remember the prompt's tokens: penalties count them, a constraint does not see them."""
        windows = (self.params.repeat_last_n, self.params.dry_last_n)
        prompt = [token for token in prompt if token >= 0]  # the others are pictures'
        for token in prompt if min(windows) < 0 else prompt[max(len(prompt) - max(windows), 0) :]:
            self._remember(token)

    def sample(self, logits: np.ndarray) -> int:
        """Return the next token for float32 ``logits`` of shape (n_vocab,)."""
        token = self._pick(logits)
        if self._constraint is not None and not self._constraint.allows(token):
            token = self._pick_again(self._constraint.mask(logits))
        return token

    def _pick_again(self, logits: np.ndarray) -> int:
        """Pick in place of a refused token, with random numbers of their own.

        So that `_rng` serves every token of the text alike, refused or not.
        """
        if self._mirostat is not None:
            self._mirostat.undo()
        self._rng, self._redraws = self._redraws, self._rng
        try:
            return self._pick(logits)
        finally:
            self._rng, self._redraws = self._redraws, self._rng

    def candidates(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and probabilities of the tokens that the chain leaves in play."""
        c = self._chain(self._start(logits))
        ids = np.arange(len(c)) if c.ids is None else c.ids
        return ids, softmax(c.logits)

    def _pick(self, logits: np.ndarray) -> int:
        c = self._start(logits)
        if self.params.temperature <= 0:
            return self._greedy(c)
        if self.params.mirostat:
            return self._pick_mirostat(c)
        c = self._chain(c)
        return c.token(draw(softmax(c.logits), self._rng))

    def _start(self, logits: np.ndarray) -> Candidates:
        c = Candidates(np.asarray(logits, np.float32))
        c = penalties.add_bias(c, self.params.logit_bias)
        highest = c.logits.max()
        if np.isnan(highest) or highest == np.inf:
            raise ModelError("the model computed logits that are not finite")
        if highest == -np.inf:
            raise UsageError("every token is forbidden: logit_bias or the grammar leaves none")
        return c

    def _greedy(self, c: Candidates) -> int:
        # Truncation cannot change which token is highest (typical and XTC are about sampling).
        for step in self._steps:
            if step in (Sampler._penalties, Sampler._dry):
                c = step(self, c)
        return c.token(int(np.argmax(c.logits)))

    def _pick_mirostat(self, c: Candidates) -> int:
        if self._mirostat is None:
            p = self.params
            self._mirostat = Mirostat(p.mirostat, p.mirostat_tau, p.mirostat_eta, len(c))
        ordered = self._temperature(self._dry(self._penalties(c))).sorted()
        return ordered.token(self._mirostat.pick(ordered, self._rng))

    def _chain(self, c: Candidates) -> Candidates:
        for step in self._steps:
            c = step(self, c)
        return c

    def _remember(self, token: int) -> None:
        self._history.append(token)
        window = self.params.repeat_last_n
        if window:
            self._counts[token] += 1
            if 0 < window < len(self._history):
                oldest = self._history[-1 - window]
                self._counts[oldest] -= 1
                if not self._counts[oldest]:
                    del self._counts[oldest]

    def _penalties(self, c: Candidates) -> Candidates:
        p = self.params
        args = (p.repeat_penalty, p.presence_penalty, p.frequency_penalty)
        return penalties.penalise(c, self._counts, *args)

    def _dry(self, c: Candidates) -> Candidates:
        p = self.params
        if p.dry_multiplier <= 0 or p.dry_last_n == 0:
            return c
        window = self._history if p.dry_last_n < 0 else self._history[-p.dry_last_n :]
        lengths = penalties.repeat_lengths(window, p.dry_allowed_length, p.dry_base, self._breakers)
        return penalties.dry(c, lengths, p.dry_multiplier, p.dry_base, p.dry_allowed_length)

    def _temperature(self, c: Candidates) -> Candidates:
        temperature = self.params.temperature
        if self.params.dynatemp_range > 0 and len(c) > 1:
            temperature = self._dynamic_temperature(c)
        if temperature <= 0:
            return c.top(1)
        scaled = (c.logits - c.logits.max()) / np.float32(max(temperature, _COLDEST))
        return c.with_logits(scaled, c.is_sorted)

    def _dynamic_temperature(self, c: Candidates) -> float:
        """Return a temperature within the range, by the entropy relative to its maximum."""
        p = self.params
        probabilities = softmax(c.logits).astype(np.float64)
        probabilities = probabilities[probabilities > 0]
        entropy = -float(probabilities @ np.log(probabilities)) / float(np.log(len(c)))
        low = max(0.0, p.temperature - p.dynatemp_range)
        high = p.temperature + p.dynatemp_range
        found: float = low + (high - low) * max(entropy, 0.0) ** p.dynatemp_exponent
        return found

    _STEPS: dict[str, Callable[["Sampler", Candidates], Candidates]] = {  # noqa: RUF012
        "e": _penalties,
        "d": _dry,
        "s": lambda self, c: truncation.top_n_sigma(c, self.params.top_n_sigma),
        "k": lambda self, c: truncation.top_k(c, self.params.top_k),
        "y": lambda self, c: truncation.typical(c, self.params.typical_p),
        "p": lambda self, c: truncation.top_p(c, self.params.top_p),
        "m": lambda self, c: truncation.min_p(c, self.params.min_p),
        "x": lambda self, c: truncation.xtc(
            c, self.params.xtc_probability, self.params.xtc_threshold, self._rng
        ),
        "t": _temperature,
    }
