"""The metrics of all workers together, served by their parent process on an address of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client import multiprocess as _multiprocess
from prometheus_client import start_http_server as _start_http_server
from prometheus_client.registry import Collector

_untyped: Any = _multiprocess  # it carries no types


class _AllWorkers(Collector):
    """The sum over all workers; files of workers that are gone stop counting as live."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = _untyped.MultiProcessCollector(None, str(folder))

    def collect(self) -> Iterable[Metric]:
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _is_running(pid):
                _untyped.mark_process_dead(pid, str(self._folder))
        found: Iterable[Metric] = self._workers.collect()
        return found


def serve(folder: Path, host: str, port: int) -> None:
    """Serve the sum of the workers' metrics on an address of its own, from a daemon thread."""
    registry = CollectorRegistry()
    registry.register(_AllWorkers(folder))
    _start_http_server(port, host, registry)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
