"""clamp(x, limit, low=None) -> x kept between low (by default -limit) and limit."""
