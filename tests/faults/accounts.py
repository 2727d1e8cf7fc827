"""Counting: every acknowledged event stored once, every impression accounted for once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from models import snapshot as snapshot_folder
from tests.faults.deployment import Deployment
from tests.faults.processes import wait_for
from tests.faults.traffic import PLACEMENT

_KEYS = "SELECT decision_id::text, slot, type FROM events WHERE placement = $1"
_UNTRAINED = """
SELECT count(*) FROM events, training_cursor
WHERE type = 'impression' AND quarantined_by IS NULL AND xid >= impressions_xid
"""
_UNCOUNTED = """
SELECT count(*) FROM events, statistics_cursor
WHERE quarantined_by IS NULL AND events.xid >= statistics_cursor.xid
"""
_RUNS = "SELECT state, events FROM retrain_runs"
_LINE = """
WITH RECURSIVE line AS (
    SELECT snapshots.id, parent_id, verdict FROM snapshots JOIN serving ON id = head_id
    UNION ALL
    SELECT s.id, s.parent_id, s.verdict FROM snapshots s JOIN line ON s.id = line.parent_id
)
SELECT id FROM line
"""
_ACCOUNTED = ("accepted", "repaired", "skipped")


@dataclass(frozen=True, slots=True)
class Accounts:
    """What was counted, all of it over the life of one deployment.

    `acknowledged` and `stored` events of the visitors; `lost`: acknowledged and not stored;
    `doubled`: stored more than once, or accepted more often than stored; `strange`: stored, never
    sent; `impressions` stored that can be trained, `trained`: the sum over the chunks of all runs
    that moved the cursor; `runs`: how many of these there were.
    """

    acknowledged: int
    stored: int
    lost: int
    doubled: int
    strange: int
    rejected: int
    impressions: int
    trained: int
    runs: int
    counted: int
    countable: int

    @property
    def is_right(self) -> bool:
        """Whether nothing was lost, doubled, invented, or trained or counted other than once."""
        wrong = self.lost + self.doubled + self.strange
        once = self.trained == self.impressions and self.counted == self.countable
        return wrong == 0 and once and self.acknowledged > 0


def settle(deployment: Deployment) -> float:
    """Seconds until every stored impression was accounted for, every event in the statistics."""
    look = deployment.look

    def is_done() -> bool:
        return bool(look.value(_UNTRAINED) == 0 and look.value(_UNCOUNTED) == 0)

    return wait_for(is_done, "all impressions trained, all events counted")


def count(deployment: Deployment, *, has_one_line: bool = True) -> Accounts:
    """Wait until all is trained, count, and fail the test unless the books balance.

    `has_one_line`: nobody rolled back or promoted, so the served model descends from every
    accepted one.
    """
    settle(deployment)
    found = _counted(deployment)
    assert found.is_right, asdict(found)
    if has_one_line:
        _check_line(deployment, found.runs)
    return found


def _counted(deployment: Deployment) -> Accounts:
    look, ledger = deployment.look, deployment.ledger
    rows = [tuple(row) for row in look.fetch(_KEYS, PLACEMENT)]
    keys = set(rows)
    total = look.value("SELECT count(*) FROM events")
    assert total == len(rows) + deployment.bulk_events
    runs = look.fetch(_RUNS)
    ended = [row["events"] for row in runs if row["state"] in _ACCOUNTED]
    return Accounts(
        acknowledged=len(ledger.acknowledged),
        stored=len(rows),
        lost=len(ledger.acknowledged - keys),
        doubled=len(rows) - len(keys) + max(0, ledger.accepted - len(rows)),
        strange=len(keys - ledger.sent),
        rejected=ledger.rejected.total(),
        impressions=look.value(
            "SELECT count(*) FROM events WHERE type = 'impression' AND quarantined_by IS NULL"
        ),
        trained=sum(ended),
        runs=len(ended),
        counted=look.value("SELECT coalesce(sum(impressions + clicks), 0)::int FROM ad_statistics"),
        countable=look.value(
            "SELECT count(*) FROM events"
            " WHERE type IN ('impression', 'click') AND quarantined_by IS NULL"
        ),
    )


def _check_line(deployment: Deployment, runs: int) -> None:
    """The head descends from the result of every run that moved the cursor, and is sound on disk.

    Skipped runs have no result.
    """
    look = deployment.look
    line = [UUID(str(row["id"])) for row in look.fetch(_LINE)]
    skipped = look.value("SELECT count(*) FROM retrain_runs WHERE state = 'skipped'")
    assert len(line) == runs - skipped + 1  # and the genesis
    snapshot_folder.verify(deployment.store / str(line[0]))
