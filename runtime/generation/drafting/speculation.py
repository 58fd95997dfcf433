"""When to guess and how far: what a model's steps take against how often its guesses are right.

Every answer has a purse, in the time of one token: it begins with a part, earns a little with every
token, pays for guesses that cost more than they saved and is paid for others. Where guessing does
not help, so, an answer takes at most that much longer. Nothing here changes what is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ggq.runtime.cache.layout import STEP_TOKENS
from ggq.runtime.generation.drafting.base import Draft, Drafter
from ggq.runtime.generation.drafting.odds import Costs, Odds

__all__ = ["DRAFT_TOKENS", "Speculation", "Writer"]

DRAFT_TOKENS = 15  # most guesses of a step
_START, _EARNED, _MOST = 0.75, 0.01, 8.0  # the purse: at first, with each token, at most
_WORTH = 1.05  # a step with guesses must promise this times the tokens per second
_ANY = -1  # the grade that counts all guesses
_ANY_CHANCE = 0.7


class Writer:
    """One answer's guesses: ``drafted`` and ``accepted`` count them."""

    def __init__(self, drafter: Drafter, known: Odds) -> None:
        """Begin an answer; ``known``: the chances in the model's earlier answers."""
        self.drafted = self.accepted = 0
        self.purse = _START
        self.draft = Draft()
        self.right = 0  # of the draft: how many the model wrote, too ...
        self.refuted = False  # ... and whether it wrote something else then
        self.odds = Odds(known.chance, weight=6, memory=40)
        self.thinking = 0.0  # seconds that the draft took
        self._guesser = drafter.start()

    def guess(self, ids: list[int], limit: int) -> Draft:
        """Return what may follow ``ids``."""
        return self._guesser.guess(ids, limit)

    def accept(self, token: int) -> bool:
        """Return whether the model's token is the next guess; it counts where it is."""
        at, tokens = self.right, self.draft.tokens
        if at >= len(tokens):
            return False
        self.refuted = tokens[at] != token
        self.right += not self.refuted
        return not self.refuted

    def plan(self, draft: Draft) -> None:
        """Take the draft of the next step."""
        self.draft, self.right, self.refuted = draft, 0, False

    def forget(self) -> None:
        """Begin a step without guesses."""
        self.plan(Draft())
        self.thinking = 0.0

    def close(self) -> None:
        """End the answer."""
        self._guesser.close()


class Speculation:
    """A model's drafter and what is known of it; for one thread at a time.

    ``replays``: whether tokens before a wrong guess must be evaluated again (recurrent layers).
    """

    def __init__(self, drafter: Drafter, most: int = DRAFT_TOKENS, replays: bool = False) -> None:
        """Take the drafter and the most guesses of a step."""
        self.drafter, self.most, self.replays = drafter, most, replays
        self._costs = Costs()
        self._odds = Odds(self._prior, weight=12, memory=400)
        self._thought = 0.0  # seconds per guessed token

    def start(self) -> Writer:
        """Return what guesses for a new answer."""
        return Writer(self.drafter, self._odds)

    def close(self) -> None:
        """Give back what the drafter holds."""
        self.drafter.close()

    def plan(self, answers: Sequence[tuple[Writer, list[int], int]], n_tokens: int) -> None:
        """Choose each writer's ``draft`` for a step of ``n_tokens`` without any.

        ``answers``: (writer, prompt and answer so far, most guesses that there is room for).
        """
        chances: list[tuple[float, int]] = []  # that a guess is reached and right, whose it is
        for number, (writer, ids, room) in enumerate(answers):
            writer.forget()
            limit = self._affordable(writer, n_tokens, len(answers), min(room, self.most))
            if limit < 1:
                continue
            writer.plan(self._guess(writer, ids, limit))
            chance = 1.0
            for grade in writer.draft.grades:
                chance *= writer.odds.chance(grade)
                chances.append((chance, number))
        chances.sort(key=lambda pair: -pair[0])
        del chances[max(STEP_TOKENS - n_tokens, 0) :]
        kept = self._best([chance for chance, _ in chances], n_tokens, len(answers))
        counts = [0] * len(answers)
        for _, number in chances[:kept]:
            counts[number] += 1
        for (writer, _, _), n in zip(answers, counts, strict=True):
            writer.plan(Draft(writer.draft.tokens[:n], writer.draft.grades[:n]))

    def learn(self, answers: Sequence[tuple[Writer, int]], seconds: float) -> None:
        """Learn from a step of (writer, tokens that it evaluated) whose guesses are judged."""
        n_answers, n_tokens = len(answers), sum(n for _, n in answers)
        self._costs.learn(n_tokens, seconds)
        alone = self._costs.seconds(n_answers)
        seconds = min(seconds, 2 * self._costs.seconds(n_tokens))
        seconds += sum(writer.thinking for writer, _ in answers)
        lost = max(seconds / alone - 1, 0.0) * n_answers if n_tokens > n_answers else 0.0
        for writer, n in answers:
            share = (n - 1) / max(n_tokens - n_answers, 1)
            self._judge(writer)
            change = _EARNED + writer.right - lost * share
            writer.purse = min(writer.purse + change, _MOST)
            writer.forget()

    def _judge(self, writer: Writer) -> None:
        """Count a writer's guesses: behind a wrong one none was tried."""
        n, right = len(writer.draft.tokens), writer.right
        for odds in (writer.odds, self._odds):
            for at, grade in enumerate(writer.draft.grades[: right + writer.refuted]):
                odds.learn(grade, at < right)
                odds.learn(_ANY, at < right)
        writer.odds.fade(0.98)
        writer.drafted, writer.accepted = writer.drafted + n, writer.accepted + right

    def _prior(self, grade: int) -> float:
        return _ANY_CHANCE if grade == _ANY else self.drafter.prior[grade]

    def _affordable(self, writer: Writer, n_tokens: int, n_answers: int, most: int) -> int:
        """Return how many guesses the writer can pay for if all of them are wrong."""
        base = self._costs.seconds(n_tokens)
        if not base or writer.purse <= 0:
            return 0
        room = base * (1 + writer.purse / n_answers)
        while most > 0 and self._costs.seconds(n_tokens + most) + most * self._thought > room:
            most -= 1
        return most

    def _guess(self, writer: Writer, ids: list[int], limit: int) -> Draft:
        if not self.drafter.thinks:
            return writer.guess(ids, limit)
        chance = writer.odds.chance(_ANY)
        limit = self._best([chance**i for i in range(1, limit + 1)], 1, 1)
        if not limit:
            return Draft()
        started = time.perf_counter()
        draft = writer.guess(ids, limit)
        spent = time.perf_counter() - started
        writer.thinking = spent
        if draft.tokens:
            each = spent / len(draft.tokens)
            self._thought += 0.2 * (each - self._thought) if self._thought else each
        return draft

    def _best(self, chances: Sequence[float], n_tokens: int, n_answers: int) -> int:
        """Return how many guesses give most tokens per second, 0 where none are worth it."""
        base = self._costs.seconds(n_tokens)
        best, rate, expected = 0, _WORTH * n_answers, float(n_answers)
        for n, chance in enumerate(chances, 1):
            expected += chance
            seconds = self._costs.seconds(n_tokens + n) + n * self._thought
            if self.replays:  # what was right before a wrong guess is evaluated again
                again = self._costs.seconds(n_tokens + n // 2 + 1) - base
                seconds += (1 - chance) * max(again, 0.0)
            if expected * base > rate * seconds:
                best, rate = n, expected * base / seconds
        return best
