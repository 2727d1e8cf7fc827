"""A token given out before a rotation is good after it; a key goes when no token of it counts."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.serving.tokens import TokenContent, Tokens
from app.settings import Settings
from app.storage import keys
from app.storage.engine import Database
from app.storage.errors import Conflict
from jobs import retention
from jobs.context import Context
from tests.integration.making import now_ms
from tests.integration.test_retrain import context

pytestmark = pytest.mark.anyio
__all__ = ["context"]

LIFETIME_MS = 86_400_000


async def _tokens(database: Database) -> Tokens:
    """What a worker opens and seals with now."""
    known, current = await keys.token_keys(database)
    return Tokens(known, current, LIFETIME_MS)


def _sealed(tokens: Tokens) -> str:
    return tokens.seal(
        TokenContent(uuid4(), now_ms(), 7, 0, uuid4(), 1, 1000, 1.0, "home", False, b"packed")
    )


async def _age(database: Database, by: str) -> None:
    update = f"UPDATE token_keys SET created_at = created_at - interval '{by}'"  # noqa: S608
    async with database.begin() as connection:
        await connection.execute(sa.text(update))


async def test_tokens_in_flight_survive_rotations(database: Database) -> None:
    """Through ten rotations every token opens, and each time another key seals."""
    given = [_sealed(await _tokens(database))]
    for _ in range(10):
        await keys.rotate_token_key(database)
        await _age(database, "2 minutes")
        given.append(_sealed(await _tokens(database)))
    tokens = await _tokens(database)
    assert len({token[:3] for token in given}) == 11
    assert [tokens.open(token, now_ms()).ad_id for token in given] == [7] * 11


async def test_a_new_key_opens_before_it_seals(database: Database) -> None:
    """A worker that read the keys just after a rotation opens what one that seals later made."""
    early = await _tokens(database)
    await keys.rotate_token_key(database)
    following = await _tokens(database)
    await _age(database, "2 minutes")
    late = await _tokens(database)
    assert following.open(_sealed(late), now_ms()).ad_id == 7
    assert late.open(_sealed(early), now_ms()).ad_id == 7


async def test_keys_outlive_every_event_of_their_tokens(context: Context) -> None:
    """The job keeps a replaced key for the longest of all windows, then drops it."""
    settings: Settings = replace(context.settings, event_retention_days=2)
    kept = replace(context, settings=settings)
    _, first = await keys.token_keys(context.database)
    second = await keys.rotate_token_key(context.database)
    await _age(context.database, "7 days")
    await retention.keep_token_keys(kept)
    assert set((await keys.token_keys(context.database))[0]) == {first, second}
    await _age(context.database, "2 hours")
    await retention.keep_token_keys(kept)
    assert set((await keys.token_keys(context.database))[0]) == {second}


async def test_an_id_that_is_in_use_is_not_given_again(database: Database) -> None:
    """A token names its key by one byte; two keys of one id would open each other's as forged."""
    await keys.token_keys(database)
    fill = """
    INSERT INTO token_keys (id, secret, created_at)
    SELECT n, decode(repeat('ab', 32), 'hex'), now() + n * interval '1 second'
    FROM generate_series(1, 255) AS n
    """
    async with database.begin() as connection:
        await connection.execute(sa.text(fill))
    with pytest.raises(Conflict, match="still needed"):
        await keys.rotate_token_key(database)
