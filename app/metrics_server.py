"""The metrics of all workers together, served by their parent process on an address of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client import mmap_dict as _mmap_dict
from prometheus_client import multiprocess as _multiprocess
from prometheus_client import start_http_server as _start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_untyped: Any = _multiprocess  # it carries no types
MmapedDict: Any = _mmap_dict.MmapedDict

RESIDENT = ("adscent_worker_resident_bytes", "Memory of each worker, shared pages included")
PROCESSOR = ("adscent_worker_cpu_seconds", "Time of the processor that each worker has taken")
_ENDED = "ended"
_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class _AllWorkers(Collector):
    """The sum over all workers, those that are gone included, and what each of the others takes.

    The files of a worker that is gone are added to one file for all of them: a server that replaces
    its workers for weeks would otherwise read more and more of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = _untyped.MultiProcessCollector(None, str(folder))
        self._turn = threading.Lock()  # one reader at a time: files go while others are read

    def collect(self) -> Iterable[Metric]:
        """All families."""
        with self._turn:
            pids = {int(file.stem.rpartition("_")[2]) for file in self._folder.glob("*_[0-9]*.db")}
            for pid in pids:
                if not _is_running(pid):
                    _absorb(self._folder, pid)
            found: Iterable[Metric] = self._workers.collect()
            return [*found, *_processes(filter(_is_running, sorted(pids)))]


def _absorb(folder: Path, pid: int) -> None:
    """Keep the counts of a worker that is gone, and forget its files."""
    for kind in ("counter", "histogram"):
        file = folder / f"{kind}_{pid}.db"
        if file.exists():
            _add(file, folder / f"{kind}_{_ENDED}.db")
            file.unlink()
    _untyped.mark_process_dead(pid, str(folder))


def _add(file: Path, total: Path) -> None:
    sums = MmapedDict(str(total))
    for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(file)):
        sums.write_value(key, sums.read_value(key)[0] + value, timestamp)
    sums.close()


def _processes(pids: Iterable[int]) -> Iterable[Metric]:
    """Memory and time of the processor of each worker (Linux; elsewhere nothing)."""
    resident = GaugeMetricFamily(*RESIDENT, labels=["pid"])
    processor = CounterMetricFamily(*PROCESSOR, labels=["pid"])
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            resident.add_metric([str(pid)], int(fields[21]) * _PAGE)
            processor.add_metric([str(pid)], (int(fields[11]) + int(fields[12])) / _TICKS)
    return resident, processor


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
