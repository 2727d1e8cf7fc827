"""A trained model's index over a seeded market of any size, ready to be searched: no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.serving.retrieval import Searchable, UserSide
from jobs.catalog_ads import ad_set
from jobs.market import Market
from jobs.market.traffic import batch, draw_impressions, encode
from jobs.market.truth import Spreads
from models.features import Schema, load_schema
from models.index import AdIndex, AdSet, packed
from models.offset import Model, genesis
from models.publish import Published, publish
from models.trainer import TrainerSettings, train
from models.types import Bools, Bytes, Float32s, Int64s

FEATURES = Path(__file__).resolve().parents[2] / "features.toml"
WIDE = Spreads(within=1.6, interaction=1.5)
"""A market whose interactions are four times as strong as those of public logs."""
_CHUNK = 250_000


@dataclass(frozen=True, slots=True)
class IndexedMarket:
    """n ads as retrieval reaches them, and visitors of the market.

    `campaigns`: int64 [n]; `creatives`: float32 [n, D+1], the own part of each ad's vector and main
    effect, without what it has from its campaign, advertiser, category and format.
    """

    searchable: Searchable
    users: Sequence[UserSide]
    campaigns: Int64s
    creatives: Float32s
    typical_length: float

    def __len__(self) -> int:
        return len(self.searchable.ad_ids)

    def eligible(self, share: float, seed: int) -> Bytes:
        """A part of the ads, each as likely as any other: a packed bitmap."""
        return packed(np.random.default_rng(seed).random(len(self)) < share)


def indexed_market(
    seed: int, ads: int, events: int, users: int, spreads: Spreads | None = None
) -> IndexedMarket:
    """A market's catalog under a model that has learned `events` of its impressions."""
    market, schema = Market(seed, ads, spreads=spreads), load_schema(FEATURES)
    catalog = ad_set(market.catalog()[2], schema)
    published = _learned(market, catalog, schema, events)
    ads_of = market.ads
    campaigns = ads_of.campaign[:ads]
    return IndexedMarket(
        _searchable(
            published.index,
            ads_of.bid_micros[:ads],
            ads_of.is_cpc[:ads],
            ads_of.advertiser[campaigns],
        ),
        _users(market, published.model, schema, users),
        campaigns,
        _own_parts(published.model, catalog, schema),
        float(published.index.bounds.lengths[-1]) / 2.0,
    )


def repeated(market: IndexedMarket, times: int, seed: int) -> IndexedMarket:
    """So many times as many ads, made of trained parts: each campaign again and again, every time
    with the creatives and the bids of other ads."""
    random, n = np.random.default_rng(seed), len(market)
    first = market.searchable
    whole = np.empty((times * n, first.index.vectors.shape[1]), np.float32)
    bids, per_click = np.empty(times * n, np.int64), np.empty(times * n, np.bool_)
    for time in range(times):
        part = slice(time * n, (time + 1) * n)
        other, bidder = random.permutation(n), random.permutation(n)
        whole[part] = first.index.vectors
        whole[part, :-1] += market.creatives[other] - market.creatives
        whole[part, -1] = first.index.log_bid[bidder]
        bids[part], per_click[part] = first.bid_micros[bidder], first.per_click[bidder]
    ids = np.arange(times * n)
    index = AdIndex.build(ids, np.zeros_like(ids), whole, market.typical_length)
    assert first.advertisers is not None  # noqa: S101 - every market has them
    apart = np.repeat(np.arange(times), n)
    owners = np.tile(first.advertisers, times) * times + apart
    return IndexedMarket(
        _searchable(index, bids, per_click, owners),
        market.users,
        np.tile(market.campaigns, times) * times + apart,
        np.zeros((0, 0), np.float32),
        market.typical_length,
    )


def _learned(market: Market, catalog: AdSet, schema: Schema, events: int) -> Published:
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    settings = TrainerSettings.of(schema)
    for start in range(0, events, _CHUNK):
        drawn = batch(market, min(_CHUNK, events - start), schema, market.seed + start)
        state = train(state, drawn, schema, settings).state
    return publish(state, catalog, schema, settings.radii)


def _searchable(index: AdIndex, bids: Int64s, per_click: Bools, advertisers: Int64s) -> Searchable:
    rows = np.arange(len(index))
    by_impression = np.flatnonzero(~per_click)
    order = np.lexsort((by_impression, -bids[by_impression]))
    return Searchable(
        index=index,
        composed_at=np.full(len(index), -1),
        composed=np.zeros((0, index.vectors.shape[1]), np.float32),
        always=rows[:0],
        bounded=packed(per_click),
        by_bid=by_impression[order],
        ad_ids=index.ad_ids,
        bid_micros=bids,
        per_click=per_click,
        advertisers=advertisers,
    )


def _users(market: Market, model: Model, schema: Schema, count: int) -> list[UserSide]:
    """Visitors as they come to the market, not those that were learned from."""
    sides = encode(market, draw_impressions(market, count, market.seed + 1_000_003), schema).user
    latent, main = model.user_vectors(sides)
    return [UserSide(one, model.bias + float(of)) for one, of in zip(latent, main, strict=True)]


def _own_parts(model: Model, catalog: AdSet, schema: Schema) -> Float32s:
    """The part of each ad's row that is its creative's alone."""
    at = [feature.name for feature in schema.ad].index("creative")
    ids = catalog.features.ids[catalog.features.ptr[at :: len(schema.ad)][: len(catalog)]]
    places = np.minimum(model.ad_keys.searchsorted(ids), len(model.ad_keys) - 1)
    parts = np.column_stack((model.ad_latent[places], model.ad_main[places]))
    parts[model.ad_keys[places] != ids] = 0.0
    return parts
