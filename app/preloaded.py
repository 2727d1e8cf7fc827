"""What all workers of a server share: imported once, in the process that they are forked from.

Importing takes a second and 70 MB; a forked worker has it for nothing, as long as nobody writes
there. Hence the freeze: the collector of garbage would write to every object that it looks at.
None of this may start a thread, which a fork would lose.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import uvicorn.protocols.http.httptools_impl
import uvloop

from app import main
from app.connection import draining

SHARED = (main, draining, uvicorn, uvloop)

# Each worker counts in files of its own; those that were opened here would stand for one more.
for _file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"*_{os.getpid()}.db"):
    _file.unlink()
gc.collect()
gc.freeze()
