"""Matmul kernels: the argument block, the skeletons that all types share, one unpack per type."""
