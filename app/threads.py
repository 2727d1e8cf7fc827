"""Thread limits of the numeric libraries. Import it before anything that imports NumPy or FAISS.

A serving worker is one core: parallel loops inside a request would only contend with the other
workers. OpenMP and BLAS read these variables once, when they are loaded; setting them later, or by
a call, does not reach threads that are made afterwards. Values that are already set are kept.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads() -> None:
    """Limit OpenMP and BLAS to one thread, and give compiled kernels a cache they can write to."""
    for name in LIMITS:
        os.environ.setdefault(name, "1")
    # Per user: the code's own folder may be read-only, and /tmp may hold another user's cache.
    cache = Path(tempfile.gettempdir()) / f"adscent-numba-{os.getuid()}"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache))


limit_threads()
