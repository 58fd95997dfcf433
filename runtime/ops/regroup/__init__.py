"""regroup(x, index, how) -> a row for each row of ``index``, made of those of x that it names.

x (n, width), index int (m, k). "join": the rows one after the other, (m, k * width); "interleave":
their first columns, then their second ones, ..., (m, width * k); "mean": (m, width).
"""
