"""Asks the system for the pages of chosen experts before they are needed. It knows no layer.

Where a model is larger than the memory, a page of an expert is read from disk when it is first
touched: one at a time, by the threads that wait for it, and what lies around it is read as well.
Told before (madvise, MADV_WILLNEED) the system reads exactly what is needed, in the order of use,
while the threads go on.
"""

from ggq.jit import kernel
from ggq.runtime.kernels.system import WILL_NEED
from ggq.simd import INT, ROWS, call_kernel, int64, load

__all__ = ["ask"]


@kernel(
    ids=ROWS,  # int64 [token][rank]: the chosen experts
    n_used=INT,
    weights=INT,  # address of the first expert's first byte that is needed
    expert_bytes=INT,  # from one expert to the next
    needed_bytes=INT,
    page_bytes=INT,
    advise=INT,  # address of madvise
)
def ask(args, first, last):
    """Ask for the experts of pairs of token and rank."""
    page = args.page_bytes
    for pair in range(first, last):
        ids = args.ids + pair // args.n_used * args.ids_stride
        expert = load(ids + 8 * (pair % args.n_used), int64)
        start = args.weights + expert * args.expert_bytes
        end = start + args.needed_bytes
        start = start // page * page
        # madvise(void *, size_t, int): three registers, as a kernel's; what it returns is not asked
        call_kernel(args.advise, start, end - start, int64(WILL_NEED))
