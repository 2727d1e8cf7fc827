"""Alembic's environment: runs on the connection that `app.storage.migrate` hands over.

To write a new revision, pass such a connection to `alembic.command.revision` in the same way.
"""

from __future__ import annotations

from typing import Any

from alembic import context

from app.storage.tables import metadata


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Partitions are made and dropped by the day: they are no part of the schema."""
    return not (kind == "table" and name is not None and name.startswith("events_"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=is_ours,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
