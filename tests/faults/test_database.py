"""PostgreSQL killed, restarted, stopped, frozen, cut off; and a transaction that stays open."""

from __future__ import annotations

import os
import signal
import time

import httpx

from tests.faults.accounts import count
from tests.faults.deployment import Deployment, url_of
from tests.faults.phases import cut
from tests.faults.processes import wait_for
from tests.faults.report import Seen

_SHORT_S, _LONG_S = 20.0, 60.0


def test_killed_postgres(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of PostgreSQL's main process: `adscent db` starts it again; decisions never stop."""
    with deployment.visited():
        time.sleep(2)
        killed, since = deployment.postgres(), time.monotonic()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: _is_new(deployment, killed), "a new PostgreSQL")
        _wait_until_whole(deployment, seen, since)
    _check(deployment, seen, since)


def test_killed_backend(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of one session's process: PostgreSQL ends all sessions and recovers by itself."""
    with deployment.visited():
        time.sleep(2)
        backend = deployment.look.value(
            "SELECT pid FROM pg_stat_activity WHERE query ILIKE '%into events%staged%' LIMIT 1"
        )
        since = time.monotonic()
        os.kill(backend, signal.SIGKILL)
        _wait_until_whole(deployment, seen, since)
    _check(deployment, seen, since)


def test_killed_database_supervisor(deployment: Deployment, seen: Seen) -> None:
    """kill -9 of `adscent db`: PostgreSQL ends with it and is back when that is started again."""
    with deployment.visited():
        time.sleep(2)
        since = time.monotonic()
        deployment.database.kill()
        deployment.database.start()
        assert url_of(deployment.home, deployment.database) == deployment.look.url
        _wait_until_whole(deployment, seen, since)
    _check(deployment, seen, since)


def test_restarted_postgres(deployment: Deployment, seen: Seen) -> None:
    """`adscent db` stopped and started: sessions are ended in mid-transaction, nothing is lost."""
    with deployment.visited():
        time.sleep(2)
        since = time.monotonic()
        deployment.database.stop()
        deployment.database.start()
        _wait_until_whole(deployment, seen, since)
    _check(deployment, seen, since)


def test_stopped_postgres(deployment: Deployment, seen: Seen, is_long: bool) -> None:
    """The database is down for 20 s (a minute with --long): decisions go on, events wait."""
    seconds = _LONG_S if is_long else _SHORT_S
    with deployment.visited():
        time.sleep(2)
        since = time.monotonic()
        deployment.database.stop()
        time.sleep(seconds)
        assert deployment.readiness()["status"] == "degraded"
        back = time.monotonic()
        deployment.database.start()
        _wait_until_whole(deployment, seen, back)
    seen.note(down_s=seconds)
    _check(deployment, seen, since)


def test_frozen_postgres(deployment: Deployment, seen: Seen, is_long: bool) -> None:
    """Every process of PostgreSQL is stopped (SIGSTOP) for 20 s or a minute: nothing answers."""
    seconds = _LONG_S if is_long else _SHORT_S
    with deployment.visited():
        time.sleep(2)
        since = time.monotonic()
        deployment.freeze_database(signal.SIGSTOP)
        time.sleep(seconds)
        assert deployment.readiness()["status"] == "degraded"
        back = time.monotonic()
        deployment.freeze_database(signal.SIGCONT)
        _wait_until_whole(deployment, seen, back)
    seen.note(frozen_s=seconds)
    _check(deployment, seen, since)


def test_cut_connections(deployment: Deployment, seen: Seen) -> None:
    """Every session of the product is ended, five times in a row, in whatever it was doing."""
    with deployment.visited():
        time.sleep(1)
        since = time.monotonic()
        ended = 0
        for _ in range(5):
            ended += cut(deployment)
            time.sleep(0.7)
        _wait_until_whole(deployment, seen, time.monotonic())
    seen.note(sessions_ended=ended)
    _check(deployment, seen, since)


def test_long_open_transaction(deployment: Deployment, seen: Seen) -> None:
    """A transaction stays open for 10 s: training waits for it, and its late event is trained."""
    look, late = deployment.look, _LATE_EVENT
    with deployment.visited():
        time.sleep(3)
        since = time.monotonic()
        with look.holding(late) as open_:
            mine = open_.value("SELECT pg_current_xact_id()::text::bigint")
            time.sleep(10)
            cursor = look.value("SELECT impressions_xid::text::bigint FROM training_cursor")
            waiting = look.value(
                "SELECT count(*) FROM events WHERE xid > $1 AND type = 'impression'", mine
            )
            age_s = _oldest_transaction_s(deployment)
        deployment.bulk_events += 1
        deployment.bulk_impressions += 1
        closed = time.monotonic()
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - closed)
    assert cursor <= mine
    assert waiting > 0
    assert age_s > 8  # what an alert is about
    seen.note(transaction_s=10, impressions_waiting=waiting)
    _check(deployment, seen, since)


_LATE_EVENT = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
SELECT decided_at, gen_random_uuid(), slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, 'late', features
FROM events WHERE type = 'impression' LIMIT 1
"""


def _wait_until_whole(deployment: Deployment, seen: Seen, since: float) -> None:
    """Until events are stored, workers follow and a training run has ended; notes when."""
    wait_for(lambda: _stored_since(deployment, since), "an acknowledged event")
    seen.recovered(events=deployment.ledger.stored_again_s(since))
    deployment.wait_until_served()
    deployment.wait_until_trained()
    seen.recovered(training=time.monotonic() - since)
    wait_for(lambda: deployment.readiness().get("status") == "ready", "readiness")


def _stored_since(deployment: Deployment, since: float) -> bool:
    return any(at >= since for at in deployment.ledger.acknowledged_at[-100:])


def _check(deployment: Deployment, seen: Seen, since: float) -> None:
    """No decision failed, and the books balance."""
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert not deployment.ledger.failed_since(since)


def _is_new(deployment: Deployment, killed: int) -> bool:
    try:
        return deployment.postgres() != killed
    except (FileNotFoundError, IndexError):
        return False


def _oldest_transaction_s(deployment: Deployment) -> float:
    text = httpx.get(f"http://127.0.0.1:{deployment.jobs_metrics_port}/metrics").text
    name = "adscent_oldest_transaction_seconds "
    return next(
        float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)
    )
