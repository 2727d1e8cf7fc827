"""How far training is behind what happens, by the database's own clock."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from app.storage.engine import Database
from app.storage.tables import horizons, training_cursor


@dataclass(frozen=True, slots=True)
class Lag:
    """Ages in seconds, None where there is nothing yet.

    `horizon_s`: of the last horizon, which the jobs process records every few seconds; `cursor_s`:
    since the training cursor last moved, so since a chunk was last accounted for.
    """

    horizon_s: float | None
    cursor_s: float | None


async def lag(database: Database) -> Lag:
    """The present lag."""
    now = sa.func.clock_timestamp()
    ages = [
        sa.select(sa.func.extract("epoch", now - sa.func.max(column))).scalar_subquery()
        for column in (horizons.c.recorded_at, training_cursor.c.moved_at)
    ]
    async with database.read() as connection:
        horizon, cursor = (await connection.execute(sa.select(*ages))).one()
    return Lag(_seconds(horizon), _seconds(cursor))


def _seconds(value: object) -> float | None:
    return None if value is None else max(float(str(value)), 0.0)
