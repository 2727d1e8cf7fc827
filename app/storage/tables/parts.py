"""What tables are made of: the metadata, types, and columns and checks that many have."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

from models.types import MAX_ID

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

STATES = ("active", "paused", "retired")
BID_TYPES = ("cpc", "cpm")
EVENT_TYPES = ("impression", "click", "conversion", "close")
VERDICTS = ("accepted", "repaired", "refused")
RUN_STATES = (
    "requested",
    "running",
    "accepted",
    "repaired",
    "refused",
    "skipped",
    "empty",
    "failed",
)
SCOPES = ("score", "ingest", "admin")
PROMOTION_REASONS = ("genesis", "training", "promotion", "rollback", "canary")
COMPARISON_KINDS = ("canary", "shadow")
COMPARISON_OUTCOMES = ("promoted", "rolled_back", "superseded", "ended")


class Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id: never reused, ordered by assignment, not by commit."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "XID8"


TIME = TIMESTAMP(timezone=True)
NOW = sa.func.now()


def own_id(name: str = "id") -> sa.Column[int]:
    """A caller's own id."""
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def single() -> sa.Column[bool]:
    """The key of a table that has one row."""
    return sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.text("true"))


def id_range() -> sa.CheckConstraint:
    """A caller's own id is a positive number that JSON holds exactly."""
    return sa.CheckConstraint(f"id BETWEEN 1 AND {MAX_ID}", name="id_range")


def one_of(column: str, choices: tuple[str, ...]) -> sa.CheckConstraint:
    """A column has one of these texts."""
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def is_single() -> sa.CheckConstraint:
    """A table has one row."""
    return sa.CheckConstraint("single", name="single_row")
