"""The parent of the workers: replaces one that ends, and all of them one by one on SIGHUP."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

READY_S = 60.0
"""How long a new worker may take until it can decide; after that the restart is given up."""

_log = logging.getLogger(__name__)


class Supervisor(Multiprocess):
    """uvicorn's own, with workers that take over only once they can decide.

    `first`: how workers start with the server; `later`: how one starts in the place of another;
    `renewed` reads settings anew before a restart and tells how workers start from then on.
    """

    def __init__(
        self,
        first: uvicorn.Config,
        later: uvicorn.Config,
        sockets: list[socket.socket],
        renewed: Callable[[], uvicorn.Config],
    ) -> None:
        super().__init__(first, sockets)
        self._later, self._renewed = later, renewed
        self._former: list[int] = []

    def init_processes(self) -> None:
        """Start the first workers."""
        super().init_processes()
        self.config = self._later

    def restart_all(self) -> None:
        """Put a new worker in the place of each: it decides before the old one is told to stop.

        What was asked of the old one is answered. A new worker that is not ready in time ends the
        restart, and the old ones stay.
        """
        try:
            config = self._renewed()
        except Exception as error:
            _log.error("the workers are not restarted: %s", error)
            return
        former = _forget_code()
        self._former = [one for one in self._former if not _has_ended(one)]
        self._former += [] if former is None else [former]
        for index, old in enumerate(self.processes):
            new = Process(config, self.sockets)
            new.start()
            if not self._becomes_ready(new):
                new.kill()
                new.join()
                if not self._is_told_to_stop():
                    _log.error("a new worker was not ready; %s and those after it stay", old.pid)
                return
            old.terminate()
            old.join()
            self.processes[index] = new
        _log.info("all workers are new")

    def _becomes_ready(self, process: Process) -> bool:
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._is_told_to_stop():
            if not process.process.is_alive():
                return False
            if process.is_ready(timeout=1):
                return True
            time.sleep(0.05)
        return False

    def _is_told_to_stop(self) -> bool:
        return any(number in self.signal_queue for number in (signal.SIGINT, signal.SIGTERM))


def _forget_code() -> int | None:
    """Leave the process that workers are forked from alone; the next one imports the code as it is.

    It ends with the last of its workers. Returns its number: this process has to take notice.
    """
    server: Any = forkserver._forkserver  # there is no public way
    with server._lock:
        number: int | None = server._forkserver_pid
        if number is not None:
            os.close(server._forkserver_alive_fd)
        server._forkserver_pid = server._forkserver_alive_fd = None
        server._forkserver_address = None
    return number


def _has_ended(number: int) -> bool:
    """Whether this child has ended; it is then taken notice of."""
    try:
        return os.waitpid(number, os.WNOHANG)[0] == number
    except ChildProcessError:
        return True
