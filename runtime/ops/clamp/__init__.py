"""clamp(x, limit) -> x kept between -limit and limit, (n_tokens, width)."""
