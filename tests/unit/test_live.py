"""The live catalog follows every change and keeps its rows aligned with whatever index serves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.bitmaps import among
from app.serving.live import LiveCatalog
from app.serving.retrieval import UserSide, retrieve
from models.features import Encoder
from models.types import Ad, Advertiser, Campaign, CatalogChanges, Clause, Targeting
from tests.unit import market

ADS = [market.ad(key) for key in range(1, 60)]
USED = market.model(1)


def live_of(ads: list[Ad]) -> LiveCatalog:
    """A catalog over an index of exactly these ads."""
    others = {"campaigns": market.campaigns(), "advertisers": market.advertisers()}
    return market.bundle_of(ads, USED, **others).live


def serving(live: LiveCatalog, user: market.User = market.USER) -> set[int]:
    """The ids of the eligible ads."""
    mask = live.eligibility.mask(user, market.NOW)
    return set(live.columns.ad_ids[among(mask, np.arange(len(live)))].tolist())


def overlay(live: LiveCatalog) -> set[int]:
    """The ids of the ads that every request scores."""
    return set(live.columns.ad_ids[live.overlay].tolist())


def chosen(live: LiveCatalog) -> list[int]:
    """The ids of the twenty best ads."""
    mask = live.eligibility.mask(market.USER, market.NOW)
    found = retrieve(live.searchable, mask, user_side(live), 20)
    return live.columns.ad_ids[found.rows].tolist()


def user_side(live: LiveCatalog) -> UserSide:
    """The usual user under the catalog's model."""
    latent, main = live._parts.model.user_vector(market.ENCODER.encode_user(market.USER))
    return UserSide(latent, live._parts.model.bias + main)


def scores_of(live: LiveCatalog, ads: list[Ad]) -> np.ndarray:
    """s of some ads for the usual user."""
    return live.searchable.scores(live.rows_of([item.id for item in ads]), user_side(live))


def test_an_indexed_catalog_has_no_overlay() -> None:
    """When the index holds every ad as it is, nothing has to be scored aside."""
    live = live_of(ADS)
    assert (overlay(live), live.version, len(live)) == (set(), 1, len(ADS))


def test_pausing_and_resuming_an_ad_changes_only_its_eligibility() -> None:
    """A paused ad is gone, a resumed one is back; vectors, index and targeting are shared."""
    live = live_of(ADS)
    paused = live.apply(market.changes(2, [replace(ADS[4], state="paused")]))
    resumed = paused.apply(market.changes(3, [ADS[4]]))
    assert serving(live) - serving(paused) == {ADS[4].id}
    assert serving(resumed) == serving(live)
    assert paused.searchable.bounded is live.searchable.bounded
    assert paused.columns.targets is live.columns.targets
    assert paused.columns.creatives is live.columns.creatives


def test_a_paused_campaign_or_advertiser_pauses_its_ads() -> None:
    """A state above the ad holds for its ads, for those that come later too."""
    live = live_of(ADS)
    paused = live.apply(CatalogChanges(2, campaigns=(Campaign(3, 1, "paused"),)))
    assert serving(live) - serving(paused) == {ad.id for ad in ADS if ad.campaign_id == 3}
    newer = paused.apply(market.changes(3, [market.ad(300, campaign_id=3)]))
    assert 300 not in serving(newer)
    retired = live.apply(CatalogChanges(2, advertisers=(Advertiser(2, "retired"),)))
    assert serving(live) - serving(retired) == {ad.id for ad in ADS if ad.advertiser_id == 2}


def test_an_older_change_does_not_undo_a_newer_one() -> None:
    """Changes up to a version that is already applied are ignored: a pause stays."""
    live = live_of(ADS).apply(market.changes(5, [replace(ADS[0], state="paused")]))
    assert live.apply(market.changes(5, ADS)) is live
    assert live.apply(market.changes(4, ADS)) is live


def test_only_a_raised_bid_enters_the_overlay() -> None:
    """The index's bound stays true for a lowered bid, not for a raised one."""
    higher = replace(ADS[0], bid_micros=ADS[0].bid_micros + 1000)
    lower = replace(ADS[1], bid_micros=ADS[1].bid_micros - 1000)
    live = live_of(ADS).apply(market.changes(2, [higher, lower]))
    assert overlay(live) == {ADS[0].id}
    assert live.columns.bid_micros[live.row_of(ADS[1].id)] == lower.bid_micros
    assert overlay(live.apply(market.changes(3, [ADS[0]]))) == set()


def test_a_new_ad_is_scored_by_the_model() -> None:
    """An ad newer than the index is in the overlay, with the vector the model gives it."""
    newer = market.ad(200)
    live = live_of(ADS).apply(market.changes(2, [newer]))
    assert overlay(live) == {200}
    np.testing.assert_allclose(
        scores_of(live, [newer]), market.scores([newer], USED, market.USER), rtol=1e-9
    )


def test_a_changed_feature_is_scored_by_the_model() -> None:
    """A newer features_version than the index's means a vector composed anew."""
    moved = replace(ADS[7], campaign_id=9, features={"category": ["trips"]}, features_version=2)
    live = live_of(ADS).apply(market.changes(2, [moved]))
    assert overlay(live) == {moved.id}
    np.testing.assert_allclose(
        scores_of(live, [moved]), market.scores([moved], USED, market.USER), rtol=1e-9
    )


def test_an_ad_that_catches_up_with_the_index_uses_its_vector() -> None:
    """A catalog behind its index composes the old vector until the change arrives."""
    newer = replace(ADS[7], features={"category": ["trips"]}, features_version=3)
    indexed = [newer if ad.id == newer.id else ad for ad in ADS]
    index = market.index_of(indexed, USED)
    behind = LiveCatalog.load(market.changes(1, ADS), index, USED, market.ENCODER)
    caught_up = behind.apply(market.changes(3, [newer]))
    assert (overlay(behind), overlay(caught_up)) == ({newer.id}, set())
    for live, ad in ((behind, ADS[7]), (caught_up, newer)):
        np.testing.assert_allclose(
            scores_of(live, [ad]), market.scores([ad], USED, market.USER), rtol=1e-9
        )


def test_a_bid_above_the_indexed_one_is_noticed_at_a_swap() -> None:
    """A snapshot's index may hold older, lower bids than the live catalog."""
    lower = [replace(ad, bid_micros=ad.bid_micros // 2) for ad in ADS[:9]]
    live = live_of(ADS).attach(market.index_of([*lower, *ADS[9:]], USED), USED)
    assert overlay(live) == {ad.id for ad in ADS[:9]}


def test_an_ad_of_unseen_values_is_scored_by_what_is_known() -> None:
    """Values that the model has never seen are zeros, no error."""
    newer = market.ad(90_000, campaign_id=77_000, features={"category": ["never seen"]})
    live = live_of(ADS).apply(market.changes(2, [newer]))
    assert np.isfinite(scores_of(live, [newer])).all()


def test_an_ad_that_no_longer_fits_the_schema_does_not_stop_a_change() -> None:
    """Unknown features of a stored ad are left out: the pause beside it still holds."""
    stale = market.ad(200, features={"gone": "x", "category": ["cars"]})
    live = live_of(ADS).apply(market.changes(2, [stale, replace(ADS[0], state="paused")]))
    assert ADS[0].id not in serving(live)
    plain = market.ad(200, features={"category": ["cars"]})
    np.testing.assert_allclose(
        scores_of(live, [stale]), market.scores([plain], USED, market.USER), rtol=1e-9
    )


def test_a_catalog_without_an_index_makes_its_own() -> None:
    """Before the first index the catalog is searchable all the same."""
    live = LiveCatalog.load(market.changes(1, ADS[::-1]), None, USED, market.ENCODER)
    assert overlay(live) == set()
    np.testing.assert_allclose(
        scores_of(live, ADS), market.scores(ADS, USED, market.USER), rtol=1e-9
    )


def test_an_empty_catalog_is_a_catalog() -> None:
    """No ads at all: nothing is found, and the first ad can be added."""
    live = LiveCatalog.load(CatalogChanges(0), None, USED, market.ENCODER)
    assert (len(live), live.row_of(1)) == (0, None)
    assert serving(live.apply(market.changes(1, [ADS[0]]))) == {ADS[0].id}


def test_an_indexed_ad_that_the_catalog_lacks_is_unknown() -> None:
    """An index newer than this worker's catalog adds no ads to it; they come with the catalog."""
    index = market.index_of(ADS, USED)
    live = LiveCatalog.load(market.changes(1, ADS[:10]), index, USED, market.ENCODER)
    assert live.row_of(ADS[20].id) is None
    assert serving(live) == {ad.id for ad in ADS[:10]}
    caught_up = live.apply(market.changes(2, ADS[10:]))
    assert serving(caught_up) == {ad.id for ad in ADS}
    assert (overlay(caught_up), len(caught_up)) == (set(), len(ADS))


def test_rows_of_finds_indexed_and_newer_ads() -> None:
    """Ids are found wherever their rows are; unknown ones are −1."""
    live = live_of(ADS).apply(market.changes(2, [market.ad(300), market.ad(200)]))
    rows = live.rows_of([300, 1, 77_777, 200, 59])
    assert (rows >= 0).tolist() == [True, True, False, True, True]
    assert live.columns.ad_ids[rows[rows >= 0]].tolist() == [300, 1, 200, 59]


def test_creatives_and_features_stay_with_their_ads() -> None:
    """After changes and a move to another index each row still has its own ad's content."""
    live = live_of(ADS).apply(market.changes(2, [market.ad(200, creative={"title": "new"})]))
    moved = live.attach(market.index_of([market.ad(200), *ADS[30:]], USED), USED)
    for ad in (*ADS, market.ad(200)):
        row = moved.row_of(ad.id)
        assert row is not None
        assert moved.columns.creative(row)["title"] == ("new" if ad.id == 200 else f"ad {ad.id}")
        encoded = market.ENCODER.encode_ad(market.ENCODER.ad_values(ad))
        np.testing.assert_array_equal(moved.columns.features(row, 3).ids, encoded.ids)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 99), st.integers(0, 10**6), st.sampled_from(["ad", "swap", "campaign"])
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_changes_equals_loading_the_result(
    steps: list[tuple[int, int, str]],
) -> None:
    """However it got there, a catalog serves and scores as one loaded at the end would."""
    latest, paused = {ad.id: ad for ad in ADS}, dict.fromkeys(range(1, 18), "active")
    live, used = live_of(ADS), USED
    for version, (key, seed, kind) in enumerate(steps, start=2):
        random = np.random.default_rng(seed)
        if kind == "ad":
            latest[key] = replace(market.random_ad(key, random), features_version=version)
            live = live.apply(market.changes(version, [latest[key]]))
        elif kind == "campaign":
            campaign = Campaign(1 + key % 17, 1, str(random.choice(["active", "paused"])))
            paused[campaign.id] = campaign.state
            live = live.apply(CatalogChanges(version, campaigns=(campaign,)))
        else:
            used = market.model(seed % 5)
            indexed = [replace(ad, bid_micros=1 + ad.bid_micros * seed // 10**6) for ad in ADS]
            live = live.attach(market.index_of(indexed[seed % 30 :], used), used)
    campaigns = tuple(Campaign(key, 1, state) for key, state in paused.items())
    whole = CatalogChanges(99, ads=tuple(latest.values()), campaigns=campaigns)
    fresh = LiveCatalog.load(whole, None, used, market.ENCODER)
    assert serving(live) == serving(fresh)
    ads = list(latest.values())
    np.testing.assert_allclose(scores_of(live, ads), scores_of(fresh, ads), rtol=1e-6)
    assert chosen(live) == chosen(fresh)
    assert live.columns.ad_ids[live.searchable.by_bid].tolist() == (
        fresh.columns.ad_ids[fresh.searchable.by_bid].tolist()
    )


def test_a_change_leaves_the_old_catalog_as_it_was() -> None:
    """Requests that hold the former catalog see nothing of a change."""
    live = live_of(ADS)
    before = serving(live)
    live.apply(market.changes(2, [replace(ad, state="retired", bid_micros=1) for ad in ADS]))
    assert serving(live) == before
    assert live.columns.bid_micros[live.row_of(13)] == ADS[12].bid_micros


def test_changed_targeting_holds_at_once() -> None:
    """A change of targeting alone is noticed and compiled."""
    only_uk = Targeting(all=(Clause("user.geo", ("uk",)),))
    live = live_of(ADS).apply(market.changes(2, [replace(ADS[0], targeting=only_uk)]))
    assert ADS[0].id not in serving(live, {"geo": "us"})
    assert ADS[0].id in serving(live, {"geo": "uk"})


def test_the_encoder_is_kept_through_swaps() -> None:
    """A swap needs no encoder: that of the schema is kept."""
    encoder = Encoder(market.SCHEMA)
    live = LiveCatalog.load(market.changes(1, ADS), None, USED, encoder)
    assert live.attach(None, market.model(2))._parts.encoder is encoder
