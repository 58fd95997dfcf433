"""How good a file is: perplexity, and how far its predictions lie from a base model's.

The protocol is llama-perplexity's: windows of n_ctx tokens, each begins with BOS, the second half
is scored. Both models run window by window, so that no logits are ever stored. It knows no file
but GGUF.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ggq.arguments import checked
from ggq.errors import ModelError, UsageError, printable

__all__ = [
    "PERCENTILES",
    "Comparison",
    "Evaluation",
    "compare_rows",
    "evaluate",
    "evaluate_all",
    "log_softmax",
    "summary",
    "windows",
]

_FILE_NAME = re.compile(r"\S+\.(txt|md|raw|jsonl?|csv|py)")

PERCENTILES = (99.9, 99.0, 95.0, 90.0, 10.0, 5.0, 1.0, 0.1)
_ROWS = 64  # rows of logits in float64 at a time
_COMPARING = 2  # threads that compare rows while the models run

Progress = Callable[[int, int, str], None]
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass
class Comparison:
    """Distances from the base over the scored positions; KLD in nats, probabilities in 0..1."""

    base_ppl: float
    base_ppl_error: float
    ln_ratio: float
    ln_ratio_error: float
    ppl_ratio: float
    correlation: float
    kld: float
    kld_error: float
    kld_median: float
    kld_max: float
    kld_min: float
    delta_p: float
    delta_p_error: float
    delta_p_rms: float
    same_top: float
    same_top_error: float
    kld_percentiles: dict[str, float] = field(default_factory=dict)
    delta_p_percentiles: dict[str, float] = field(default_factory=dict)


@dataclass
class Evaluation:
    """Perplexity of ``model`` over ``n_scored`` positions, and the comparison where asked for."""

    model: str
    nbytes: int
    n_ctx: int
    n_windows: int
    n_scored: int
    ppl: float
    ppl_error: float
    against: str | None = None
    comparison: Comparison | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def windows(
    ids: Any, n_ctx: int, bos: int | None = None, limit: int | None = None
) -> Iterator[np.ndarray]:
    """Yield int64 windows of ``n_ctx`` ids, the first replaced by ``bos``; UsageError if none."""
    ids = np.asarray(ids, np.int64)
    if limit is not None and limit < 1:
        raise UsageError(f"{limit} windows: nothing to score")
    if n_ctx < 4:
        raise UsageError(f"windows of {n_ctx} tokens are too short to score")
    count = len(ids) // n_ctx
    if not count:
        raise UsageError(f"the text has {len(ids)} tokens, one window needs {n_ctx}")
    for i in range(count if limit is None else min(count, limit)):
        window = ids[i * n_ctx : (i + 1) * n_ctx].copy()
        if bos is not None:
            window[0] = bos
        yield window


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log probabilities, float64, of logits (rows, n_vocab)."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    found: np.ndarray = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return found


def compare_rows(logits: np.ndarray, base: np.ndarray | None, targets: np.ndarray) -> np.ndarray:
    """Return float64 (rows, 5): nll, base nll, KL(base || model), change of p, same top (0 or 1).

    ``logits`` and ``base`` are (rows, n_vocab), ``targets`` the ids that came next. Without a base
    only the first column is filled.
    """
    out = np.zeros((len(logits), 5))
    for start in range(0, len(logits), _ROWS):
        part = slice(start, start + _ROWS)
        index = targets[part, None]
        ours = log_softmax(logits[part])
        true = np.take_along_axis(ours, index, 1)[:, 0]
        out[part, 0] = -true
        if base is None:
            continue
        theirs = log_softmax(base[part])
        true_base = np.take_along_axis(theirs, index, 1)[:, 0]
        out[part, 1] = -true_base
        out[part, 2] = (np.exp(theirs) * (theirs - ours)).sum(-1)
        out[part, 3] = np.exp(true) - np.exp(true_base)
        out[part, 4] = ours.argmax(-1) == theirs.argmax(-1)
    return out


def summary(rows: np.ndarray) -> Comparison:
    """Return the statistics of `compare_rows`' columns, standard errors over positions."""
    nll, base, kld, delta, same = rows.T
    n = len(rows)
    ppl, _ = _perplexity(nll)
    base_ppl, base_error = _perplexity(base)
    difference = nll - base
    spread = float(nll.std() * base.std())
    covariance = float(((nll - nll.mean()) * (base - base.mean())).mean())

    def percentiles(values: np.ndarray) -> dict[str, float]:
        return {f"{p:g}": float(np.percentile(values, p)) for p in PERCENTILES}

    return Comparison(
        base_ppl=base_ppl,
        base_ppl_error=base_error,
        ln_ratio=float(difference.mean()),
        ln_ratio_error=_error(difference),
        ppl_ratio=ppl / base_ppl,
        correlation=covariance / spread if spread else 1.0,
        kld=float(kld.mean()),
        kld_error=_error(kld),
        kld_median=float(np.median(kld)),
        kld_max=float(kld.max()),
        kld_min=float(kld.min()),
        delta_p=float(delta.mean()),
        delta_p_error=_error(delta),
        delta_p_rms=math.sqrt(float((delta**2).mean())),
        same_top=float(same.mean()),
        same_top_error=math.sqrt(float(same.mean() * (1 - same.mean())) / max(n - 1, 1)),
        kld_percentiles=percentiles(kld),
        delta_p_percentiles=percentiles(delta),
    )


def _error(values: np.ndarray) -> float:
    """Return the standard error of the mean."""
    return float(values.std() / math.sqrt(max(len(values) - 1, 1)))


def _perplexity(nll: np.ndarray) -> tuple[float, float]:
    ppl = float(np.exp(nll.mean()))
    return ppl, ppl * _error(nll)


def score(
    sequences: list[np.ndarray],
    models: Sequence[Logits],
    base: Logits | None = None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Return `compare_rows` of the second half of every window for each model, windows in order.

    The base runs once for all; rows are compared while the next logits are computed.
    """
    found: list[list[Future[np.ndarray]]] = [[] for _ in models]
    with ThreadPoolExecutor(_COMPARING) as pool:
        for done, ids in enumerate(sequences):
            targets = ids[len(ids) // 2 + 1 :]
            theirs = None if base is None else base(ids)
            for logits, rows in zip(models, found, strict=True):
                ours = logits(ids)
                if not np.isfinite(ours).all():
                    raise ModelError(f"the model gives NaN or infinite logits in window {done}")
                rows.append(pool.submit(compare_rows, ours, theirs, targets))
                if len(rows) > 1:
                    rows[-2].result()  # no more than one window's logits wait
            if progress:
                progress(done + 1, len(sequences), "")
        made = [np.concatenate([f.result() for f in rows]) for rows in found]
    if not all(np.isfinite(rows).all() for rows in made):
        raise ModelError("the base model gives NaN or infinite logits")
    return made


def scored_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """Return the logits of the scored positions of one window, float32 (n, n_vocab)."""
    first = len(ids) // 2
    sequence = model.engine.sequence()
    try:
        model.engine.evaluate(sequence, ids[:first])
        logits: np.ndarray = model.engine.evaluate(sequence, ids[first:-1], every=True)
        return logits
    finally:
        sequence.free()


@checked
def evaluate(model: Any, text: str | Path, against: Any = None, **options: Any) -> Evaluation:
    """Return the perplexity of ``model`` on ``text``; its distance from ``against`` where given.

    ``model`` and ``against`` are GGUF paths or open models; ``text`` is the text itself, or the
    Path of a file. Options and errors are those of `evaluate_all`.
    """
    return evaluate_all([model], text, against, **options)[0]


def _words(text: str | Path) -> str:
    """Return the text itself; a file's name given as text is most likely meant as its Path."""
    if isinstance(text, Path):
        return read_text(text)
    if len(text) < 1024 and "\n" not in text:
        if os.path.isfile(text):
            how = f"give pathlib.Path({text!r}) to score it"
            raise UsageError(f"{printable(text)} is a file: {how}")
        if _FILE_NAME.fullmatch(text):
            raise UsageError(f"{printable(text)}: no such file, and no text to score")
    return text


@checked
def evaluate_all(
    models: Sequence[Any],
    text: str | Path,
    against: Any = None,
    n_ctx: int = 512,
    chunks: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Return `evaluate` of several models of one vocabulary, the base being run once.

    Windows have min(n_ctx, trained context) tokens, ``chunks`` of them at most. GGQError names
    what is wrong.
    """
    with ExitStack() as stack:
        tested = [_opened(model, n_ctx, threads, stack) for model in models]
        base = None if against is None else _opened(against, n_ctx, threads, stack)
        for other in [*tested[1:], *([base] if base else [])]:
            _check_pair(tested[0], other)
        first = tested[0]
        words = _words(text)
        ids = first.tokenizer.encode(words, add_special=True, parse_special=False)
        size = min([n_ctx, *(n for m in tested for n in (m.n_ctx, m.hparams.n_ctx_train) if n)])
        bos = first.tokenizer.bos_id if first.tokenizer.add_bos else None
        if isinstance(text, Path) and len(ids) < size:
            what = f"too short to score: {len(ids)} tokens, one window needs {size}"
            raise UsageError(f"{printable(text)}: {what}")
        sequences = list(windows(ids, size, bos, chunks))
        run = [partial(scored_logits, m) for m in tested]
        rows = score(sequences, run, partial(scored_logits, base) if base else None, progress)
        return [_evaluation(m, r, base, size) for m, r in zip(tested, rows, strict=True)]


def _evaluation(model: Any, rows: np.ndarray, base: Any, size: int) -> Evaluation:
    ppl, error = _perplexity(rows[:, 0])
    return Evaluation(
        model=str(model.gguf.path),
        nbytes=_size(model.gguf),
        n_ctx=size,
        n_windows=len(rows) // (size - size // 2 - 1),
        n_scored=len(rows),
        ppl=ppl,
        ppl_error=error,
        against=None if base is None else str(base.gguf.path),
        comparison=None if base is None else summary(rows),
    )


def read_text(path: Path) -> str:
    """Return a text file's content; UsageError where it cannot be read as UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from None


def _opened(model: Any, n_ctx: int, threads: int | None, stack: ExitStack) -> Any:
    """Return an open model; one opened here caches keys and values in float32."""
    if not isinstance(model, (str, Path)):
        if not hasattr(model, "engine"):
            raise UsageError(f"neither a file nor an open model: {printable(repr(model))}")
        return model
    from ggq.runtime.model import load

    return stack.enter_context(load(model, n_ctx=n_ctx, threads=threads, cache_type="f32"))


def _check_pair(model: Any, base: Any) -> None:
    """Refuse two models whose predictions cannot be compared."""
    ours, theirs = model.hparams.n_vocab, base.hparams.n_vocab
    if ours != theirs:
        raise UsageError(f"the models have {ours} and {theirs} tokens: nothing to compare")


def _size(gguf: Any) -> int:
    paths = getattr(gguf, "paths", None) or [gguf.path]
    return sum(Path(p).stat().st_size for p in paths)
