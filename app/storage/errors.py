"""Everything that can go wrong inside `app.storage`: one root, names that state the fault."""

from __future__ import annotations


class StorageError(Exception):
    """Root of all errors raised by `app.storage`."""


class NotFound(StorageError):
    """No row has this id."""

    def __init__(self, kind: str, row_id: object) -> None:
        super().__init__(f"there is no {kind} {row_id}; list the {kind}s to see which there are")
        self.kind, self.row_id = kind, row_id


class Conflict(StorageError):
    """The change contradicts what is stored, such as a retired ad made active."""

    def __init__(self, field: str, value: object, limit: str, remedy: str) -> None:
        super().__init__(f"{field}: {value!r} is in conflict: {limit}. {remedy}")
        self.field, self.value, self.limit, self.remedy = field, value, limit, remedy


class ConstraintBroken(StorageError):
    """A value that a named constraint of the schema forbids, such as an unknown campaign."""

    def __init__(self, field: str, value: object, limit: str, remedy: str) -> None:
        super().__init__(f"{field}: {value!r} is not allowed: {limit}. {remedy}")
        self.field, self.value, self.limit, self.remedy = field, value, limit, remedy


class DatabaseUnavailable(StorageError):
    """The database did not answer, or the connection broke before the commit was known.

    Repeating the call is safe: every write of events and every cursor move carries its key.
    """


class BufferFull(StorageError):
    """More events are waiting to be written than the buffer takes; repeat a little later."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} events are waiting and the buffer takes {limit}; repeat later")
        self.waiting, self.limit = waiting, limit


class CursorMoved(StorageError):
    """Another process moved the training cursor first; this chunk has been accounted for."""


class ClusterChanged(StorageError):
    """The cursor was written in another PostgreSQL cluster, so its transaction ids mean nothing."""

    def __init__(self, recorded: int, present: int) -> None:
        super().__init__(
            f"the training cursor belongs to the PostgreSQL cluster {recorded}, this one is"
            f" {present}: after a restore transaction ids start again. Run `adscent db rebase` to"
            " go on from the restored events"
        )
        self.recorded, self.present = recorded, present


class StoreUnavailable(StorageError):
    """The snapshot store did not answer, or refused; what is served goes on."""


class MigrationsPending(StorageError):
    """The database's tables are not those of this version."""

    def __init__(self, found: str | None, expected: str) -> None:
        super().__init__(
            f"the database is at migration {found or 'none'} and this version needs {expected};"
            " run `adscent db migrate`"
        )
        self.found, self.expected = found, expected


class LeadLost(StorageError):
    """The session that holds the leader lock is gone; another process may lead by now."""


class EmbeddedError(StorageError):
    """Root of what can go wrong with the embedded PostgreSQL."""


class EmbeddedBusy(EmbeddedError):
    """Another process runs the embedded PostgreSQL of this home already."""


class EmbeddedFailed(EmbeddedError):
    """A program of the embedded PostgreSQL ended with an error; the message has its last words."""


class EmbeddedVersionMismatch(EmbeddedError):
    """The data folder was made by another major version of PostgreSQL."""
