"""kill -9 of what serves, under load."""

from __future__ import annotations

import os
import signal
import time

from tests.faults.accounts import count
from tests.faults.deployment import Deployment
from tests.faults.processes import wait_for
from tests.faults.report import Seen
from tests.faults.traffic import BROKEN, NOBODY, VISITORS


def test_killed_worker(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of one of two workers: what was under way on its connections fails, nothing else."""
    with deployment.visited():
        time.sleep(2)
        victim = deployment.workers()[0]
        since = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in deployment.workers(), "the worker's end")
        deployment.wait_until_served()
        joined = time.monotonic() - since
        time.sleep(1)
    seen.serving(deployment.ledger, since)
    seen.recovered(events=deployment.ledger.stored_again_s(since), workers=joined)
    failed = deployment.ledger.failed_since(since)
    assert failed.keys() <= BROKEN
    assert failed.total() <= VISITORS, failed
    seen.accounts(count(deployment))


def test_killed_serve(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of all of serve, parent and workers: nobody answers until it is started again."""
    with deployment.visited():
        time.sleep(2)
        workers, since = deployment.workers(), time.monotonic()
        deployment.serve.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        deployment.serve.start()
        deployment.wait_until_served()
        joined = time.monotonic() - since
        time.sleep(1)
    seen.serving(deployment.ledger, since)
    seen.recovered(events=deployment.ledger.stored_again_s(since), workers=joined)
    # 503 while the first worker listens and has not loaded the model yet.
    assert deployment.ledger.failed_since(since).keys() <= BROKEN | NOBODY | {"503"}
    seen.accounts(count(deployment))


def test_killed_serve_parent(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of the parent alone: its workers answer what they have and end; none is left over."""
    with deployment.visited():
        time.sleep(1)
        workers, since = deployment.workers(), time.monotonic()
        deployment.serve.kill()
        ended = wait_for(lambda: not any(map(_is_running, workers)), "the workers' end")
        deployment.serve.start()
        deployment.wait_until_served()
        time.sleep(1)
    seen.serving(deployment.ledger, since)
    seen.recovered(workers_ended=ended, events=deployment.ledger.stored_again_s(since + ended))
    seen.accounts(count(deployment))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
