"""API keys, of which only a hash is kept, and the keys that seal tokens."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.ids import uuid7
from app.storage import audit, tables
from app.storage.engine import Database, at, maybe, ms_of, notify
from app.storage.errors import Conflict, ConstraintBroken, NotFound
from app.storage.tables import api_keys

Scope = Literal["score", "ingest", "admin"]

_PREFIX = "adscent_"
_KEY_IDS = 256
_SETTLED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One API key: the hash of its secret stands for it, the secret nobody can read again."""

    id: UUID
    name: str
    sha256: bytes
    scopes: frozenset[Scope]
    created_ms: int
    revoked_ms: int | None


async def create_api_key(
    database: Database, name: str, scopes: Iterable[str], now_ms: int, actor: str = "cli"
) -> tuple[UUID, str]:
    """Make a key: its id and its secret, which is shown this once.

    Raises `ConstraintBroken` for an unknown scope or none.
    """
    listed = sorted(set(scopes))
    _check_scopes(listed)
    key_id, secret = uuid7(now_ms), _PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "scopes": listed}
    async with database.begin() as connection:
        await connection.execute(
            api_keys.insert().values(id=key_id, sha256=_hash(secret), created_at=at(now_ms), **row)
        )
        await audit.write(connection, actor, "create", f"api_key:{key_id}", after=row)
        await connection.execute(notify("keys"))
    return key_id, secret


async def verify(database: Database, secret: str) -> ApiKey | None:
    """The key with this secret; None when there is none or it was revoked.

    The secret has 256 random bits, so a plain hash is enough and looking it up leaks nothing.
    """
    query = api_keys.select().where(api_keys.c.sha256 == _hash(secret))
    async with database.begin() as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None or row.revoked_at is not None else _key(row)


async def list_api_keys(database: Database) -> list[ApiKey]:
    """All keys, the revoked ones too, the oldest first."""
    async with database.begin() as connection:
        rows = (await connection.execute(api_keys.select().order_by(api_keys.c.id))).all()
    return [_key(row) for row in rows]


async def live_api_keys(database: Database) -> list[ApiKey]:
    """The keys that have not been revoked: what a worker holds in memory to check requests."""
    return [key for key in await list_api_keys(database) if key.revoked_ms is None]


async def revoke_api_key(
    database: Database, key_id: UUID, now_ms: int, actor: str = "cli"
) -> ApiKey:
    """Make a key invalid for ever; raises `NotFound`. Revoking it again changes nothing."""
    revoked_at = sa.func.coalesce(api_keys.c.revoked_at, at(now_ms))
    update = api_keys.update().where(api_keys.c.id == key_id).values(revoked_at=revoked_at)
    async with database.begin() as connection:
        row = (await connection.execute(update.returning(api_keys))).one_or_none()
        if row is None:
            raise NotFound("API key", key_id)
        await audit.write(connection, actor, "revoke", f"api_key:{key_id}")
        await connection.execute(notify("keys"))
    return _key(row)


async def token_keys(database: Database) -> tuple[dict[int, bytes], int]:
    """All keys that open tokens by id, and the id of the one that seals; makes the first.

    A new key seals only after a minute, when every worker has read it: a worker may be asked to
    open what another has sealed a moment ago.
    """
    keys = await _token_keys(database)
    if not keys:
        await _add_token_key(database, 0)
        keys = await _token_keys(database)
    settled = [key for key in keys if key.is_settled] or keys[:1]
    return {key.id: key.secret for key in keys}, settled[-1].id


async def rotate_token_key(database: Database, actor: str = "cli") -> int:
    """Add a key that will seal in a minute and return its id; the old ones still open tokens.

    Raises `Conflict` when all ids are those of keys that are still needed.
    """
    await token_keys(database)
    known: list[int] = [key.id for key in await _token_keys(database)]
    following = (known[-1] + 1) % _KEY_IDS
    if following in known:
        limit, remedy = "its key is still needed", "Rotate less often, or wait for the old to go."
        raise Conflict("token key", following, limit, remedy)
    await _add_token_key(database, following, actor)
    return following


async def drop_token_keys(database: Database, before_ms: int) -> list[int]:
    """Forget the keys that were replaced before `before_ms`: no token of theirs is valid."""
    keys = await _token_keys(database)
    replaced = itertools.pairwise(keys)
    old = [key.id for key, following in replaced if ms_of(following.created_at) < before_ms]
    async with database.begin() as connection:
        await connection.execute(tables.token_keys.delete().where(tables.token_keys.c.id.in_(old)))
    return old


async def _token_keys(database: Database) -> Sequence[Any]:
    """The rows, the oldest first, with `is_settled`."""
    made = tables.token_keys.c.created_at
    settled = (made < sa.func.now() - _SETTLED).label("is_settled")
    query = sa.select(tables.token_keys, settled).order_by(made, tables.token_keys.c.id)
    async with database.begin() as connection:
        return list(await connection.execute(query))


async def _add_token_key(database: Database, key_id: int, actor: str = "adscent") -> None:
    """Add a key unless another process was first."""
    row = {"id": key_id, "secret": secrets.token_bytes(32)}
    async with database.begin() as connection:
        await connection.execute(insert(tables.token_keys).values(row).on_conflict_do_nothing())
        await audit.write(connection, actor, "create", f"token_key:{key_id}")
        await connection.execute(notify("keys"))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Any) -> ApiKey:
    scopes = cast(frozenset[Scope], frozenset(row.scopes))
    return ApiKey(
        row.id, row.name, row.sha256, scopes, ms_of(row.created_at), maybe(ms_of, row.revoked_at)
    )


def _check_scopes(scopes: list[str]) -> None:
    known = get_args(Scope)
    if not scopes or not set(scopes) <= set(known):
        limit = f"one or more of {', '.join(known)}"
        raise ConstraintBroken("scopes", scopes, limit, "Name the scopes that the key needs.")
