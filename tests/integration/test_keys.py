"""API keys are checked by hash; token keys are made once and rotate without a gap."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.storage import keys
from app.storage.audit import list_audit
from app.storage.engine import Database
from app.storage.errors import Conflict, ConstraintBroken, NotFound
from tests.integration.making import now_ms

pytestmark = pytest.mark.anyio


async def test_secret_verifies_and_is_not_stored(database: Database) -> None:
    """The secret opens its key, another one nothing, and no table holds it."""
    key_id, secret = await keys.create_api_key(database, "shop", ["score", "ingest"], now_ms())
    assert secret.startswith("adscent_")
    found = await keys.verify(database, secret)
    assert found is not None
    assert (found.id, found.name, found.scopes) == (key_id, "shop", {"score", "ingest"})
    assert await keys.verify(database, secret + "x") is None
    async with database.begin() as connection:
        rows = (await connection.execute(sa.text("SELECT api_keys::text FROM api_keys"))).all()
    assert secret not in str(rows)
    assert secret not in str(await list_audit(database, 9))


async def test_revoked_key_opens_nothing(database: Database) -> None:
    """A revoked key is still listed but neither live nor verified."""
    key_id, secret = await keys.create_api_key(database, "shop", ["score"], now_ms())
    revoked = await keys.revoke_api_key(database, key_id, 1_795_305_600_000)
    assert revoked.revoked_ms == 1_795_305_600_000
    again = await keys.revoke_api_key(database, key_id, now_ms())
    assert again.revoked_ms == revoked.revoked_ms
    assert await keys.verify(database, secret) is None
    assert await keys.live_api_keys(database) == []
    assert await keys.list_api_keys(database) == [revoked]


async def test_unknown_key_cannot_be_revoked(database: Database) -> None:
    """The error names the id."""
    with pytest.raises(NotFound):
        await keys.revoke_api_key(database, uuid4(), now_ms())


@pytest.mark.parametrize("scopes", [[], ["root"], ["score", "root"]])
async def test_unknown_scope_is_refused(database: Database, scopes: list[str]) -> None:
    """A key has at least one scope, of the three there are."""
    with pytest.raises(ConstraintBroken, match="score, ingest, admin"):
        await keys.create_api_key(database, "shop", scopes, now_ms())


async def test_expired_key_opens_nothing(database: Database) -> None:
    """From its end on a key is neither live nor verified, and cannot be rotated."""
    made_ms = now_ms() - 10_000
    key_id, secret = await keys.create_api_key(
        database, "shop", ["score"], made_ms, expires_ms=made_ms + 5_000
    )
    assert await keys.verify(database, secret) is None
    assert await keys.live_api_keys(database) == []
    with pytest.raises(Conflict, match="it has ended"):
        await keys.rotate_api_key(database, key_id, now_ms(), 0)


async def test_rotation_leaves_no_gap(database: Database) -> None:
    """Both secrets verify during the grace; the new key is like the old one, and lives as long."""
    start_ms = now_ms()
    end_ms = start_ms + 90 * 86_400_000
    old_id, old = await keys.create_api_key(
        *(database, "shop", ["score", "ingest"], start_ms), expires_ms=end_ms, requests_per_s=7.5
    )
    later_ms = start_ms + 3_600_000
    new_id, new = await keys.rotate_api_key(database, old_id, later_ms, 60_000)
    first, second = await keys.verify(database, old), await keys.verify(database, new)
    assert first is not None
    assert second is not None
    assert first.expires_ms == later_ms + 60_000
    assert (second.id, second.replaces, second.name) == (new_id, old_id, "shop")
    assert (second.scopes, second.requests_per_s) == ({"score", "ingest"}, 7.5)
    assert second.expires_ms == end_ms + 3_600_000


async def test_rotation_never_prolongs_the_old_key(database: Database) -> None:
    """A grace longer than what the old key had left does not keep it alive."""
    start_ms = now_ms()
    old_id, old = await keys.create_api_key(
        database, "shop", ["score"], start_ms, expires_ms=start_ms + 60_000
    )
    await keys.rotate_api_key(database, old_id, start_ms, 86_400_000)
    found = await keys.verify(database, old)
    assert found is not None
    assert found.expires_ms == start_ms + 60_000


async def test_every_change_of_a_key_is_audited(database: Database) -> None:
    """Each row has the key before and after, and never its secret or the hash of it."""
    key_id, secret = await keys.create_api_key(database, "shop", ["score"], now_ms())
    await keys.limit_api_key(database, key_id, 3.0)
    await keys.rotate_api_key(database, key_id, now_ms(), 60_000)
    await keys.revoke_api_key(database, key_id, now_ms())
    rows = await list_audit(database, 9, subject=f"api_key:{key_id}")
    assert [row.action for row in rows] == ["revoke", "expire", "limit", "create"]
    revoke, expire, limited, created = rows
    assert created.before is None
    assert limited.before is not None
    assert limited.after is not None
    assert (limited.before["requests_per_s"], limited.after["requests_per_s"]) == (None, 3.0)
    for row, field in ((expire, "expires_at"), (revoke, "revoked_at")):
        assert row.before is not None
        assert row.after is not None
        assert row.before[field] is None
        assert row.after[field] is not None
    assert secret not in str(rows)
    assert "sha256" not in str(rows)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
async def test_rate_that_is_none_is_refused(database: Database, rate: float) -> None:
    """A limit is a positive number; one of nothing would be a revocation by another name."""
    with pytest.raises(ConstraintBroken, match="positive number"):
        await keys.create_api_key(database, "shop", ["score"], now_ms(), requests_per_s=rate)


async def test_end_in_the_past_is_refused(database: Database) -> None:
    """A key that has ended before it was made is a mistake."""
    with pytest.raises(ConstraintBroken, match="a time to come"):
        await keys.create_api_key(database, "shop", ["score"], now_ms(), expires_ms=now_ms() - 1)


async def test_first_token_key_is_made_once(database: Database) -> None:
    """Workers that start together agree on one key of 32 bytes."""
    found = await asyncio.gather(*(keys.token_keys(database) for _ in range(4)))
    assert all(one == found[0] for one in found)
    secrets, current = found[0]
    assert list(secrets) == [current]
    assert len(secrets[current]) == 32


async def test_new_token_key_seals_after_a_minute(database: Database) -> None:
    """At once it opens tokens; it seals when every worker has had the time to read it."""
    _, first = await keys.token_keys(database)
    second = await keys.rotate_token_key(database)
    secrets, current = await keys.token_keys(database)
    assert (set(secrets), current) == ({first, second}, first)
    await _age(database, "61 seconds")
    assert (await keys.token_keys(database))[1] == second


async def test_replaced_token_keys_are_dropped_in_time(database: Database) -> None:
    """A key goes once it was replaced long enough ago; the sealing one never goes."""
    _, first = await keys.token_keys(database)
    second = await keys.rotate_token_key(database)
    assert await keys.drop_token_keys(database, now_ms() - 3_600_000) == []
    await _age(database, "2 hours")
    assert await keys.drop_token_keys(database, now_ms() - 3_600_000) == [first]
    secrets, current = await keys.token_keys(database)
    assert (set(secrets), current) == ({second}, second)


async def _age(database: Database, by: str) -> None:
    update = f"UPDATE token_keys SET created_at = created_at - interval '{by}'"  # noqa: S608
    async with database.begin() as connection:
        await connection.execute(sa.text(update))
