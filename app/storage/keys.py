"""API keys, of which only a hash is kept, and the keys that seal tokens."""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

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
    """One API key: the hash of its secret stands for it, the secret nobody can read again.

    `expires_ms`: when it ends by itself, None for never; `requests_per_s`: its own limit in each
    worker, None for the deployment's; `replaces`: the key that it was made to take over from.
    """

    id: UUID
    name: str
    sha256: bytes
    scopes: frozenset[Scope]
    created_ms: int
    revoked_ms: int | None
    expires_ms: int | None = None
    requests_per_s: float | None = None
    replaces: UUID | None = None


async def create_api_key(
    database: Database,
    name: str,
    scopes: Iterable[str],
    now_ms: int,
    actor: str = "cli",
    *,
    expires_ms: int | None = None,
    requests_per_s: float | None = None,
) -> tuple[UUID, str]:
    """Make a key: its id and its secret, which is shown this once.

    Raises `ConstraintBroken` for an unknown scope or none, an end that is past, or a limit that is
    no positive number.
    """
    listed = sorted(set(scopes))
    _check_scopes(listed)
    _check_end(expires_ms, now_ms)
    _check_rate(requests_per_s)
    values: dict[str, Any] = {"name": name, "scopes": listed, "requests_per_s": requests_per_s}
    values["expires_at"] = maybe(at, expires_ms)
    async with database.begin() as connection:
        return await _add_api_key(connection, values, now_ms, actor)


async def rotate_api_key(
    database: Database, key_id: UUID, now_ms: int, grace_ms: int, actor: str = "cli"
) -> tuple[UUID, str]:
    """Make a key like this one, which ends `grace_ms` from now: the new id and secret.

    A key that expires is followed by one of the same length of life. Raises `NotFound`, and
    `Conflict` for a key that has ended.
    """
    async with database.begin() as connection:
        old = _key(await _locked(connection, key_id))
        if old.revoked_ms is not None or _has_expired(old, now_ms):
            raise Conflict("API key", str(key_id), "it has ended", "Make a new one: `keys create`.")
        life_ms = None if old.expires_ms is None else old.expires_ms - old.created_ms
        values: dict[str, Any] = {"name": old.name, "scopes": sorted(old.scopes)}
        values |= {"requests_per_s": old.requests_per_s, "replaces": key_id}
        values["expires_at"] = None if life_ms is None else at(now_ms + life_ms)
        made = await _add_api_key(connection, values, now_ms, actor)
        end_ms = min(now_ms + grace_ms, old.expires_ms or now_ms + grace_ms)
        await _change(connection, key_id, "expire", actor, expires_at=at(end_ms))
    return made


async def limit_api_key(
    database: Database, key_id: UUID, requests_per_s: float | None, actor: str = "cli"
) -> ApiKey:
    """Set how many requests a second each worker admits with this key; None for the default.

    Raises `NotFound`, and `ConstraintBroken` for a limit that is no positive number.
    """
    _check_rate(requests_per_s)
    async with database.begin() as connection:
        return await _change(connection, key_id, "limit", actor, requests_per_s=requests_per_s)


async def verify(database: Database, secret: str) -> ApiKey | None:
    """The key with this secret; None when there is none, or it was revoked or has expired.

    The secret has 256 random bits, so a plain hash is enough and looking it up leaks nothing.
    """
    query = api_keys.select().where(api_keys.c.sha256 == _hash(secret), _is_live())
    async with database.begin() as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else _key(row)


async def list_api_keys(database: Database) -> list[ApiKey]:
    """All keys, those that have ended too, the oldest first."""
    async with database.begin() as connection:
        rows = (await connection.execute(api_keys.select().order_by(api_keys.c.id))).all()
    return [_key(row) for row in rows]


async def live_api_keys(database: Database) -> list[ApiKey]:
    """The keys that have not ended: what a worker holds in memory to check requests."""
    query = api_keys.select().where(_is_live()).order_by(api_keys.c.id)
    async with database.begin() as connection:
        return [_key(row) for row in await connection.execute(query)]


async def revoke_api_key(
    database: Database, key_id: UUID, now_ms: int, actor: str = "cli"
) -> ApiKey:
    """Make a key invalid for ever; raises `NotFound`. Revoking it again changes nothing."""
    async with database.begin() as connection:
        row = await _locked(connection, key_id)
        if row.revoked_at is not None:
            return _key(row)
        return await _change(connection, key_id, "revoke", actor, revoked_at=at(now_ms))


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
        for key_id in old:
            await audit.write(connection, "jobs", "drop", f"token_key:{key_id}", {"id": key_id})
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
    added = insert(tables.token_keys).values(row).on_conflict_do_nothing()
    async with database.begin() as connection:
        if (await connection.execute(added)).rowcount == 0:
            return
        after = {"id": key_id}
        await audit.write(connection, actor, "create", f"token_key:{key_id}", after=after)
        await connection.execute(notify("keys"))


async def _add_api_key(
    connection: AsyncConnection, values: Mapping[str, Any], now_ms: int, actor: str
) -> tuple[UUID, str]:
    key_id, secret = uuid7(now_ms), _PREFIX + secrets.token_urlsafe(32)
    row = {"id": key_id, "sha256": _hash(secret), "created_at": at(now_ms), **values}
    added = await connection.execute(api_keys.insert().values(row).returning(api_keys))
    after = _readable(added.one())
    await audit.write(connection, actor, "create", f"api_key:{key_id}", after=after)
    await connection.execute(notify("keys"))
    return key_id, secret


async def _locked(connection: AsyncConnection, key_id: UUID) -> Any:
    query = api_keys.select().where(api_keys.c.id == key_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("API key", key_id)
    return row


async def _change(
    connection: AsyncConnection, key_id: UUID, action: str, actor: str, **values: object
) -> ApiKey:
    """Change a key; the audit has it before and after. Raises `NotFound`."""
    before = _readable(await _locked(connection, key_id))
    update = api_keys.update().where(api_keys.c.id == key_id).values(values)
    row = (await connection.execute(update.returning(api_keys))).one()
    await audit.write(connection, actor, action, f"api_key:{key_id}", before, _readable(row))
    await connection.execute(notify("keys"))
    return _key(row)


def _is_live() -> sa.ColumnElement[bool]:
    revoked, expires = api_keys.c.revoked_at, api_keys.c.expires_at
    return sa.and_(revoked.is_(None), sa.or_(expires.is_(None), expires > sa.func.now()))


def _has_expired(key: ApiKey, now_ms: int) -> bool:
    return key.expires_ms is not None and key.expires_ms <= now_ms


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _readable(row: Any) -> Mapping[str, object]:
    """What the audit keeps of a key: everything but the hash of its secret."""
    return {name: value for name, value in row._mapping.items() if name not in ("id", "sha256")}


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        sha256=row.sha256,
        scopes=cast(frozenset[Scope], frozenset(row.scopes)),
        created_ms=ms_of(row.created_at),
        revoked_ms=maybe(ms_of, row.revoked_at),
        expires_ms=maybe(ms_of, row.expires_at),
        requests_per_s=row.requests_per_s,
        replaces=row.replaces,
    )


def _check_scopes(scopes: list[str]) -> None:
    known = get_args(Scope)
    if not scopes or not set(scopes) <= set(known):
        limit = f"one or more of {', '.join(known)}"
        raise ConstraintBroken("scopes", scopes, limit, "Name the scopes that the key needs.")


def _check_end(expires_ms: int | None, now_ms: int) -> None:
    if expires_ms is not None and expires_ms <= now_ms:
        raise ConstraintBroken("expires", expires_ms, "a time to come", "Give a later one.")


def _check_rate(requests_per_s: float | None) -> None:
    if requests_per_s is not None and not 0.0 < requests_per_s < math.inf:
        limit = "a positive number of requests a second"
        remedy = "Give one, or leave it out for the deployment's."
        raise ConstraintBroken("requests_per_s", requests_per_s, limit, remedy)
