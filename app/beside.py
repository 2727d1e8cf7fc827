"""Long work of a worker beside its requests, in threads that give way to the one that answers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")
_NICER = 5
"""How much lower the threads' priority is. Where both cores of a machine are busy a request then
waits a third as long for its processor; much lower, and it would wait for what such a thread holds,
the interpreter above all."""
_MOST_THREADS = 2


async def beside(
    function: Callable[_Given, _Found], *given: _Given.args, **named: _Given.kwargs
) -> _Found:
    """What the function returns, called in a thread of low priority.

    For what hashes, maps and sorts, which needs the interpreter little.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads(), lambda: function(*given, **named))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, "beside", give_way)


def give_way() -> None:
    """Lower the priority of this thread, which on Linux alone has one of its own."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, own + _NICER))
