"""kill -9 of `adscent jobs` in each phase of a retrain."""

from __future__ import annotations

import time

import pytest

from tests.faults.accounts import count
from tests.faults.deployment import Deployment
from tests.faults.phases import PHASES, Phase, held
from tests.faults.processes import wait_for
from tests.faults.report import Seen

_IMPRESSIONS = 60_000


@pytest.mark.parametrize("phase", PHASES)
def test_killed_jobs(deployment: Deployment, seen: Seen, phase: Phase) -> None:
    """kill -9 in one phase of a retrain: the next leader takes the same chunk, if it is due."""
    look = deployment.look
    with deployment.visited():
        before = look.value("SELECT fence FROM training_cursor")
        incumbent = look.value("SELECT snapshot_id FROM serving")
        with held(deployment, phase, _IMPRESSIONS):
            moved = look.value("SELECT fence FROM training_cursor") - before
            since = time.monotonic()
            deployment.jobs.kill()
        time.sleep(1)  # a service manager waits as well
        state = look.value("SELECT (SELECT state FROM retrain_runs ORDER BY id DESC LIMIT 1)")
        if phase == "notify":
            assert state == "accepted"
            told = _wait_until_all_serve(deployment, since)
            seen.recovered(swap=told)
        elif phase != "read":
            assert state == "running"
        if phase in ("write", "rename", "record") and not moved:
            assert look.value("SELECT snapshot_id FROM serving") == incumbent
        deployment.jobs.start()
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - since)
    seen.serving(deployment.ledger, since)
    assert not deployment.ledger.failed_since(since)
    seen.accounts(count(deployment))
    assert look.value("SELECT count(*) FROM retrain_runs WHERE state = 'running'") == 0


def _wait_until_all_serve(deployment: Deployment, since: float) -> float:
    """Seconds from a moment until every worker serves what is promoted."""
    query = (
        "SELECT bool_and(workers.snapshot_id = serving.snapshot_id) FROM workers, serving"
        " WHERE seen_at > clock_timestamp() - interval '3 seconds'"
    )
    wait_for(lambda: deployment.look.value(query), "the swap")
    return time.monotonic() - since
