"""Seeded rows for encoder tests, the same bits on every machine: integers and powers of two."""

import numpy as np


def bell(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return float32 values with a bell-shaped distribution around zero, spread about 1."""
    total = rng.integers(-(1 << 18), 1 << 18, (4, *shape)).sum(0)
    return (total / 2**18).astype(np.float32)


def importance(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return positive float32 weights (n,) over five powers of ten, a few of them zero."""
    weights = rng.integers(1, 1 << 16, n) / np.float32(2) ** rng.integers(0, 16, n)
    weights[rng.integers(0, n, n // 32)] = 0
    return weights.astype(np.float32)


def power(exponents: np.ndarray) -> np.ndarray:
    """Return 2**exponents as exact float32, subnormals included."""
    return np.ldexp(np.float32(1), exponents).astype(np.float32)


def hard_rows(rng: np.random.Generator, n: int = 512) -> dict[str, np.ndarray]:
    """Return named float32 (4, n) rows on which a careless encoder goes wrong."""

    def noise() -> np.ndarray:
        return bell(rng, 4, n)

    def each(chance: float) -> np.ndarray:
        return rng.random((4, n)) < chance

    rows = {f"2**{e}": noise() * power(e) for e in (-148, -140, -127, -100, -60, -47, -24, -6)}
    rows |= {f"2**{e}": noise() * power(e) for e in (0, 10, 15, 17, 40, 63, 80, 123)}
    rows |= {
        "positive": np.abs(noise()),
        "negative": -np.abs(noise()),
        "offset": noise() * power(-6) - np.float32(5),
        "nearly constant": noise() * power(-22) + np.float32(1),
        "constant": np.repeat(bell(rng, 4, 1), n, 1),
        "zeros": np.zeros((4, n), np.float32),
        "negative zeros": -np.zeros((4, n), np.float32),
        "sparse": noise() * each(0.02),
        "spikes": noise() * power(-12) + each(0.01) * np.float32(100),
        "ties": np.round(noise() * 4) / np.float32(2),
        "signs": np.sign(noise()),
        "just below powers of two": np.nextafter(
            np.sign(noise()) * power(rng.integers(-60, 60, (4, n))), np.float32(0)
        ),
        "blocks of all sizes": noise()
        * np.repeat(power(rng.integers(-100, 60, (4, n // 32))), 32, 1),
        "groups of all sizes": noise()
        * np.repeat(power(rng.integers(-30, 10, (4, n // 16))), 16, 1),
        "weights of all sizes": noise() * power(rng.integers(-40, 10, (4, n))),
    }
    return {name: np.ascontiguousarray(x, np.float32) for name, x in rows.items()}


def tame(kind, x: np.ndarray) -> np.ndarray:
    """Return rows for which ggml's encoder of a lattice type neither ends the process nor errs.

    It aborts where squares overflow. Its IQ3_S writes what follows a group of zeros in the group's
    own place; a small value in the group avoids that.
    """
    if not kind.name.startswith(("IQ1", "IQ2", "IQ3")):
        return x
    x = np.clip(x, -(2.0**20), 2.0**20).astype(np.float32)
    if kind.name == "IQ3_S":
        groups = x.reshape(-1, 8, 32)
        nothing = ~groups.any(2) & groups.any((1, 2))[:, None]
        groups[..., 0] += nothing * np.float32(2.0**-20)
    return x


def pinned_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return name -> (rows, importance) whose encodings tests/data/encoder_hashes.json pins."""
    rng = np.random.default_rng(2)
    plain = bell(rng, 24, 768) * power(-5)
    hard = np.concatenate(list(hard_rows(rng).values()))
    return {
        "plain": (plain, importance(rng, 768)),
        "hard": (hard, importance(rng, 512)),
    }
