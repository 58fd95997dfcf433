"""Plain float32 twins of ggq.quants.encoders.search: one group and one operation at a time."""

import numpy as np

f32 = np.float32
TINY = f32(1e-15)


def _nearest(value, low, high):
    """Round half to even and hold between two integers; the tests keep values within 2**22."""
    return f32(min(max(int(np.rint(value)), low), high))


def _extreme(x):
    """Return the first value of largest magnitude."""
    return x[int(np.argmax(np.abs(x)))]


def _moments(x, w, levels):
    products = squares = f32(0)
    for v, weight, level in zip(x, w, levels, strict=True):
        products = products + weight * v * level
        squares = squares + weight * level * level
    return products, squares


def scale_search(x, w, nmax):
    """Return (scale, codes): the best of 19 inverse scales by explained square."""
    extreme = _extreme(x)
    if abs(extreme) < TINY:
        return f32(0), np.zeros(len(x), np.uint8)
    scale = best = levels = None
    for step in [0, *range(-9, 0), *range(1, 10)]:
        inverse = -(f32(nmax) + f32(0.1) * f32(step)) / extreme
        tried = [_nearest(inverse * v, -nmax, nmax - 1) for v in x]
        products, squares = _moments(x, w, tried)
        if best is None:
            scale = products / squares if squares else f32(0)
            best, levels = scale * products, tried
        elif squares > 0 and products * products > best * squares:
            scale = products / squares
            best, levels = scale * products, tried
    return scale, np.array(levels, np.int64).astype(np.uint8) + np.uint8(nmax)


def descent_search(x, nmax):
    """Return (scale, codes): start from the extreme, then move one code at a time."""
    extreme = _extreme(x)
    if abs(extreme) < TINY:
        return f32(0), np.zeros(len(x), np.uint8)
    inverse, w = f32(-nmax) / extreme, x * x
    levels = [_nearest(inverse * v, -nmax, nmax - 1) for v in x]
    moments = _descend(x, w, levels, -nmax, nmax - 1, *_moments(x, w, levels))
    return _ratio(*moments), (np.array(levels, np.int64) + nmax).astype(np.uint8)


def positive_search(x, w, nmax):
    """Return (scale, codes): the best of nine inverse scales, then moves of one code.

    Negative ``x`` asks for negative codes, which a byte keeps 256 higher.
    """
    top = x.max()
    if top < TINY:
        return f32(0), np.zeros(len(x), np.uint8)
    best = inverse = None
    for step in [0, *range(-4, 0), *range(1, 5)]:
        tried = (f32(0.1) * f32(step) + f32(nmax)) / top
        error = f32(0)
        for v, weight in zip(x, w, strict=True):
            level = _nearest(tried * v, -256, nmax)
            difference = v - f32(1) / tried * (level if step else level % f32(256))
            error = error + weight * difference * difference
        if best is None or error < best:
            best, inverse = error, tried
    levels = [_nearest(inverse * v, -256, nmax) for v in x]
    moments = _moments(x, w, levels)
    levels = [level % f32(256) for level in levels]
    moments = _descend(x, w, levels, None, nmax, *moments)
    return _ratio(*moments), np.array(levels, np.int64).astype(np.uint8)


def _descend(x, w, levels, low, high, products, squares):
    """Give each weight the level that the others' scale asks for, in at most 5 rounds.

    ``low`` None: as ggml does for levels kept in bytes.
    """
    for _ in range(5):
        changed = False
        for i, (v, weight) in enumerate(zip(x, w, strict=True)):
            others = products - weight * v * levels[i]
            rest = squares - weight * levels[i] * levels[i]
            if others <= 0 or (low is None and rest <= 0):
                continue
            new = _nearest(v * rest / others, -256 if low is None else low, high)
            with_new, rest_new = others + weight * v * new, rest + weight * new * new
            gains = with_new * with_new * squares > products * products * rest_new
            if new != levels[i] and (rest_new > 0 or low is None) and gains:
                levels[i] = new % f32(256) if low is None else new
                products, squares, changed = with_new, rest_new, True
        if not changed:
            break
    return products, squares


def _ratio(products, squares):
    return products / squares if squares > 0 else f32(0)


def scale_min_search(x, w, nmax, first, delta, steps, absolute):
    """Return (scale, minimum, codes): weighted least squares for steps + 1 inverse scales."""
    low, high = x[0], x[0]
    sum_w, sum_x = w[0], w[0] * x[0]
    for v, weight in zip(x[1:], w[1:], strict=True):
        low, high = min(low, v), max(high, v)
        sum_w, sum_x = sum_w + weight, sum_x + weight * v
    low = min(low, f32(0))
    if high <= low:
        return f32(0), -low, np.zeros(len(x), np.uint8)

    def error(levels, scale, low):
        total = f32(0)
        for v, weight, level in zip(x, w, levels, strict=True):
            difference = scale * level + low - v
            total = total + weight * (abs(difference) if absolute else difference * difference)
        return total

    inverse = f32(nmax) / (high - low)
    scale = f32(1) / inverse
    levels = [_nearest(inverse * (v - low), 0, nmax) for v in x]
    best = error(levels, scale, low)
    for step in range(steps + 1):
        inverse = (f32(first) + f32(delta) * f32(step) + f32(nmax)) / (high - low)
        tried = [_nearest(inverse * (v - low), 0, nmax) for v in x]
        sum_l = sum_l2 = sum_xl = f32(0)
        for v, weight, level in zip(x, w, tried, strict=True):
            sum_l = sum_l + weight * level
            sum_l2 = sum_l2 + weight * level * level
            sum_xl = sum_xl + weight * level * v
        determinant = sum_w * sum_l2 - sum_l * sum_l
        if determinant <= 0:
            continue
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        if new_low > 0:
            new_scale, new_low = sum_xl / sum_l2, f32(0)
        new_error = error(tried, new_scale, new_low)
        if new_error < best:
            best, scale, low, levels = new_error, new_scale, new_low, tried
    return scale, -low, np.array(levels, np.int64).astype(np.uint8)
