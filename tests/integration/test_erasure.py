"""Erasures in the database: no stored event keeps an erased value, however it came in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.storage import erased_events, erasures, partitions
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.errors import NotFound
from app.storage.events import EventWriter
from jobs.transfer.importing import import_file
from models.erasure import Erased
from models.features import Encoder, pack
from models.schema import parse_schema
from models.tombstone import Tombstone, tombstone
from models.types import Ad, Advertiser, Campaign, Clause, Targeting
from tests.integration.making import event, now_ms

pytestmark = pytest.mark.anyio

SCHEMA = parse_schema(
    """
    version = 1
    [user.visitor]
    kind = "categorical"
    [user.interests]
    kind = "multi"
    [ad.category]
    kind = "multi"
    """
)
ENCODER = Encoder(SCHEMA)
ANN = tombstone(SCHEMA, "visitor", "ann")
GOLF = tombstone(SCHEMA, "interests", "golf")


def blob(visitor: str | None, *interests: str) -> bytes:
    """Packed features of a visitor and an ad about shoes."""
    user = ENCODER.encode_user({"visitor": visitor, "interests": list(interests)})
    return pack(user, ENCODER.encode_ad({"category": ["shoes"]}))


async def erase(database: Database, *stones: Tombstone) -> Erased:
    """Erase values; everything that is erased by then."""
    for stone in stones:
        await erasures.erase(database, stone.feature, stone.hash, stone.missing, "test")
    return await erasures.read(database)


async def stored(database: Database) -> list[bytes]:
    """The features of all impressions, in the order of their decisions."""
    query = "SELECT features FROM events WHERE type = 'impression' ORDER BY decided_at, decision_id"
    async with database.begin() as connection:
        return list((await connection.execute(sa.text(query))).scalars())


async def test_stored_events_lose_erased_values(writer: EventWriter, database: Database) -> None:
    """Every day is rewritten; other values, other events and the order of training stay."""
    yesterday = now_ms() - 86_400_000
    await writer.write(
        [
            event(decided_ms=yesterday, features=blob("ann", "golf", "chess")),
            event(decided_ms=yesterday + 1, features=blob("bob", "golf")),
            event(features=blob("ann")),
            event("click"),
            event(decided_ms=now_ms() + 1, features=b"no packed features at all"),
        ]
    )
    async with database.begin() as connection:
        query = sa.text("SELECT decision_id, xid FROM events ORDER BY 1")
        before = (await connection.execute(query)).all()
    erased = await erase(database, ANN, GOLF)
    assert await erased_events.count(database, erased) == 3
    counts = await erased_events.rewrite(database, erased)
    assert counts == {ANN.hash: 2, GOLF.hash: 2}
    assert await stored(database) == [
        *(blob(None, "chess"), blob("bob"), blob(None)),
        b"no packed features at all",
    ]
    assert await erased_events.count(database, erased) == 0
    async with database.begin() as connection:
        assert (await connection.execute(query)).all() == before


async def test_a_day_of_many_pages_is_read_to_its_end(
    writer: EventWriter, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass goes over a partition a few pages at a time and misses none of them."""
    monkeypatch.setattr(erased_events, "_PAGES", 3)
    now = now_ms()
    given = [event(decided_ms=now + n, features=blob("ann", f"i{n}")) for n in range(400)]
    await writer.write(given)
    erased = await erase(database, ANN)
    assert (await erased_events.rewrite(database, erased)).total() == 400
    assert await stored(database) == [blob(None, f"i{n}") for n in range(400)]


async def test_a_writer_that_has_not_heard_of_it_stores_without_the_value(
    database: Database,
) -> None:
    """The transaction itself finds out: no message has to arrive first."""
    await partitions.ensure_partitions(database, now_ms())
    told: list[int] = []
    hearing = EventWriter(database, told_erased=lambda: told.append(1))
    await hearing.write([event(features=blob("bob"))])
    await erase(database, ANN)
    given = event(features=blob("ann", "golf"))
    assert await hearing.write([given, event("click", given.decided_ms)]) == ["accepted"] * 2
    assert await hearing.write([given]) == ["duplicate"]
    assert sorted(await stored(database)) == sorted([blob("bob"), blob(None, "golf")])
    assert len(told) >= 1
    await hearing.close()


async def test_who_rewrites_waits_for_transactions_that_do_not_know(
    writer: EventWriter, database: Database
) -> None:
    """A writer that looked before the erasure and commits after it is waited for."""
    await writer.write([event(features=blob("bob"))])
    async with database.session() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("SELECT pg_current_xact_id()")
        await erase(database, ANN)
        assert not await erased_events.settled(database, patience_s=0.2)
        waiting = asyncio.create_task(erased_events.settled(database, patience_s=10))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await transaction.commit()
        assert await waiting


async def test_an_import_leaves_erased_values_out(database: Database, tmp_path: Path) -> None:
    """Files hold the values themselves, or an export of before the erasure: neither brings one in.

    Days with and without a partition alike.
    """
    await erase(database, ANN, GOLF)
    await partitions.ensure_partitions(database, now_ms())
    path = tmp_path / "log.csv"
    path.write_text(
        "decided_at,ad_id,user.visitor,user.interests,ad.category\n"
        "2026-01-02T10:00:00Z,7,ann,golf|chess,shoes\n"
        "2026-01-02T11:00:00Z,7,bob,golf,shoes\n"
        f"{now_ms()},7,ann,,shoes\n"
    )
    packed = tmp_path / "export.csv"
    packed.write_text(
        "decided_at,ad_id,features\n"
        f"2026-01-03T10:00:00Z,7,{blob('ann', 'golf', 'tea').hex()}\n"
        f"2026-01-03T10:00:01Z,7,{blob('bob').hex()}\n"
    )
    for file in (path, packed):
        await import_file(database, file, SCHEMA, tmp_path / "ledgers")
    assert await stored(database) == [
        *(blob(None, "chess"), blob("bob"), blob(None, "tea"), blob("bob"), blob(None)),
    ]


async def test_versions_are_in_the_order_of_commits(database: Database) -> None:
    """Who has read up to one version has read all below it, however many erase at once."""
    stones = [tombstone(SCHEMA, "visitor", f"v{n}") for n in range(20)]
    known = await erase(database, ANN)
    await asyncio.gather(*(erase(database, stone) for stone in stones))
    found = await erasures.read(database, known)
    assert (found.version, len(found.missing)) == (21, 21)
    assert await erasures.read(database, found) is found


async def test_a_second_erasure_is_the_first(database: Database) -> None:
    """Erasing again changes nothing, and the audit has one row."""
    given = (ANN.feature, ANN.hash, ANN.missing, "test")
    first = await erasures.erase(database, *given)
    assert await erasures.erase(database, *given) == first == await erasures.get(database, ANN.hash)
    async with database.begin() as connection:
        count = await connection.scalar(sa.text("SELECT count(*) FROM audit"))
    assert count == 1
    with pytest.raises(NotFound):
        await erasures.get(database, GOLF.hash)


async def test_what_is_finished_is_noted(writer: EventWriter, database: Database) -> None:
    """An erasure says how many events it took, and is not gone over again."""
    await writer.write([event(features=blob("ann")), event(features=blob("ann"))])
    await erase(database, ANN)
    pending = await erasures.unfinished(database)
    await erasures.finish(database, pending, await erased_events.rewrite(database, pending))
    found = await erasures.get(database, ANN.hash)
    assert (found.events, found.events_ms is not None) == (2, True)
    assert not await erasures.unfinished(database)


async def test_ads_that_name_the_value_are_found(database: Database) -> None:
    """Targeting is the catalog's, and no erasure's to change: who erases is told of it."""
    clause = Clause("user.visitor", ("bob", "Zoë"))
    ads = [
        Ad(1, 1, 1, 5, targeting=Targeting(any=(clause,))),
        Ad(2, 1, 1, 5, targeting=Targeting(none=(Clause("user.interests", ("bob",)),))),
        Ad(3, 1, 1, 5, targeting=Targeting(all=(clause,))),
    ]
    await Catalog(database).import_catalog([Advertiser(1)], [Campaign(1, 1)], ads, "test")
    assert await erasures.ads_naming(database, "user.visitor", "bob") == [1, 3]
    assert await erasures.ads_naming(database, "user.visitor", "Zoë") == [1, 3]
    assert await erasures.ads_naming(database, "user.visitor", "b") == []
