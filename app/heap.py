"""Giving freed memory back to the system: the C library keeps what large arrays leave behind."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _found() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc, which alone has it
        return None


_malloc_trim = _found()


def give_back() -> None:
    """Return free pages, wherever they lie. Takes a few ms and lets other threads run."""
    if _malloc_trim is not None:
        _malloc_trim(0)
