"""What all workers of a server share: imported once, in the process that they are forked from.

Importing takes a second and 70 MB; a forked worker has it for nothing, as long as nobody writes
there. Hence the freeze: the collector of garbage would write to every object that it looks at.
None of this may leave a thread behind, which a fork would lose.
"""

from __future__ import annotations

import gc
import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.beside import give_way

SHARED = (
    *("app.main", "app.connection.draining"),
    *("uvicorn.protocols.http.httptools_impl", "uvloop"),
)

# In a restart the workers of before answer meanwhile, and come first. Workers get the priority of
# this process, which is as it was.
with ThreadPoolExecutor(1, initializer=give_way) as beside:
    for _ in beside.map(importlib.import_module, SHARED):
        pass

# Each worker counts in files of its own; those that were opened here would stand for one more.
for _file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob(f"*_{os.getpid()}.db"):
    _file.unlink()
gc.collect()
gc.freeze()
