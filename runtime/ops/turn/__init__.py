"""turn(x, n_head, angles, kind) -> x with the pairs of each head's columns turned by ``angles``.

x (n, n_head * width), angles (n, width / 2) radians, numpy's, the same for every head. Pair i is of
columns 2i and 2i + 1 for kind "norm", i and i + width / 2 for "neox"; "halves" are two heads of
"neox", the first of them with the first half of the angles (arXiv 2104.09864; two dimensions: arXiv
2403.13298).
"""
