"""Two snapshots of one deployment, its catalog changed in between, and what each must answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import msgspec
import numpy as np

from app.api.schemas import DecisionRequest
from app.serving import loading, pipeline
from app.serving.bundle import Bundle
from app.serving.image import mapped
from app.serving.live import LiveCatalog
from app.serving.tokens import Tokens
from app.storage import keys, snapshots
from app.storage.catalog import Catalog
from jobs.bench.client import Answer, AnsweredAd, Kept
from jobs.bench.deployment import BenchmarkBroken, Deployment
from models.features import Encoder, stack
from models.types import Ad

_TOLERANCE = 1e-6
"""Largest difference of a pCTR from the model's own: an index holds vectors as float32."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What each snapshot, by its id, answers to each body, and a bundle of it to look closer."""

    answers: Mapping[str, Sequence[Answer]]
    bundles: Mapping[str, Bundle]

    def check(self, kept: Sequence[Kept]) -> int:
        """How many answers there were, each of one snapshot alone. Raises `BenchmarkBroken`."""
        for one in kept:
            of = self.answers.get(one.answer.snapshot_id)
            wanted = None if of is None else of[one.body]
            if one.answer != wanted:
                raise BenchmarkBroken(f"body {one.body}: {one.answer} in place of {wanted}")
        return sum(one.count for one in kept)


async def two_snapshots(deployment: Deployment, events: int, changes: int) -> tuple[UUID, UUID]:
    """Learn `events`, change `changes` ads in each of four ways, learn as many events again.

    Flights are taken away: one that ends meanwhile would change what is to be answered.
    """
    async with deployment.context.database.session(command_timeout=None) as connection:
        await connection.execute("UPDATE ads SET flight_start = NULL, flight_end = NULL")
    await deployment.ingest(events)
    await deployment.train(events)
    first = await deployment.served()
    await _change(deployment, changes)
    await deployment.ingest(events)
    await deployment.train(events)
    return first, await deployment.served()


async def expected(
    deployment: Deployment, ids: Sequence[UUID], bodies: Sequence[str], per_advertiser: int
) -> Expected:
    """The answers of each snapshot, from a bundle that no swap has touched."""
    database = deployment.context.database
    secrets, current = await keys.token_keys(database)
    tokens = Tokens(secrets, current, 3_600_000)
    queries = [_query(body, per_advertiser) for body in bodies]
    bundles = {str(id_): await _bundle(deployment, id_) for id_ in ids}
    answers = {
        id_: await asyncio.to_thread(_answers, bundle, queries, tokens, deployment.context.clock())
        for id_, bundle in bundles.items()
    }
    return Expected(answers, bundles)


def _answers(
    bundle: Bundle, queries: Sequence[pipeline.DecisionQuery], tokens: Tokens, now_ms: int
) -> list[Answer]:
    """One to each query. Raises `BenchmarkBroken` where a pCTR is not what the model says."""
    found = []
    for query in queries:
        ads = pipeline.decide(bundle, query, now_ms, UUID(int=0), tokens).ads
        told = [AnsweredAd(ad.ad_id, ad.pctr, ad.ecpm_micros) for ad in ads]
        _check_pctr(bundle, query, told)
        found.append(Answer(str(bundle.snapshot_id), told))
    return found


def _check_pctr(bundle: Bundle, query: pipeline.DecisionQuery, ads: Sequence[AnsweredAd]) -> None:
    """Against the model, which knows nothing of indexes, catalogs and retrieval."""
    columns, schema = bundle.live.columns, bundle.schema
    rows = bundle.live.rows_of([ad.ad_id for ad in ads]).tolist()
    if not rows:
        return
    user = bundle.encoder.encode_user({"placement": query.placement, **query.user})
    shown = [columns.features(row, len(schema.ad)) for row in rows]
    sides = stack([user] * len(rows), len(schema.user)), stack(shown, len(schema.ad))
    pctr = 1.0 / (1.0 + np.exp(-bundle.model.score(*sides)))
    if not np.allclose(pctr, [ad.pctr or 0.0 for ad in ads], rtol=_TOLERANCE, atol=0.0):
        raise BenchmarkBroken(f"snapshot {bundle.snapshot_id} gives other pCTRs than its model")


def _query(body: str, per_advertiser: int) -> pipeline.DecisionQuery:
    asked = msgspec.json.decode(body, type=DecisionRequest)
    limit = asked.per_advertiser or per_advertiser
    return pipeline.DecisionQuery(
        asked.user, asked.slots, asked.placement, asked.exclude, asked.floor_micros, limit
    )


async def _bundle(deployment: Deployment, snapshot_id: UUID) -> Bundle:
    """A bundle of the snapshot over the catalog as it is now."""
    context = deployment.context
    encoder = Encoder(context.schema)
    recorded = (await snapshots.get_snapshot(context.database, snapshot_id)).manifest
    folder = context.store / str(snapshot_id)
    found, image = loading.served(folder, recorded, encoder), mapped(folder, recorded)
    if image is None:
        raise BenchmarkBroken(f"snapshot {snapshot_id} has no image of the catalog")
    given = (image.version, image.columns, image.placements, found.index, found.model, encoder)
    live = LiveCatalog.over(*given)
    changes = await Catalog(context.database).changes_since(live.version)
    return loading.bundled(found, live.apply(changes), encoder)


async def _change(deployment: Deployment, count: int) -> None:
    """Raise bids, pause, retire and add `count` ads each, in one change."""
    catalog = Catalog(deployment.context.database)
    found = await catalog.list_ads(4 * count, state="active")
    raised, paused, retired, like = (found[at::4] for at in range(4))
    first = deployment.market.size + 1
    changed: list[Ad] = [replace(ad, bid_micros=2 * ad.bid_micros) for ad in raised]
    changed += [replace(ad, state="paused") for ad in paused]
    changed += [replace(ad, state="retired") for ad in retired]
    changed += [replace(ad, id=first + number) for number, ad in enumerate(like)]
    await catalog.import_catalog([], [], changed, "bench")
