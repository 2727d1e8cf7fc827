"""The seeded market: reproducible, calibrated to public logs, true interactions in it."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.market import Market, Visitors
from jobs.market.people import DAY_CURVE, INTERESTS
from jobs.market.traffic import LOG_COLUMNS, Impressions, batch, draw_impressions, log, write_log
from models.features import Encoder, load_schema, stack
from models.types import Ad, Batch, Clause, FeatureValue, Float64s, Int64s

SCHEMA = load_schema(Path(__file__).parents[2] / "features.toml")
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def market() -> Market:
    """A market of the default size."""
    return Market(seed=7)


@pytest.fixture(scope="module")
def impressions(market: Market) -> Impressions:
    """A log of that market, shown by popularity."""
    return draw_impressions(market, 300_000, seed=1)


@pytest.fixture(scope="module")
def visitors(market: Market) -> Visitors:
    """Some visitors of that market."""
    return market.visitors(np.random.default_rng(3), 400)


@pytest.fixture(scope="module")
def logits(market: Market, visitors: Visitors) -> Float64s:
    """float64 [visitors, ads live at the start]: their true logits at the start."""
    rows, start = np.arange(market.shape.ads), market.shape.start_ms
    each = [visitors.take(np.array([i])) for i in range(len(visitors))]
    return np.array([market.truth.logits(visitor, rows, start) for visitor in each])


def test_the_same_seed_gives_the_same_market() -> None:
    """Catalog and log depend on the seed alone."""
    first, second, other = (Market(seed, ads=300) for seed in (5, 5, 6))
    assert first.catalog() == second.catalog()
    assert list(log(first, 50)) == list(log(second, 50))
    assert first.catalog() != other.catalog()


def test_another_log_of_the_same_market_differs() -> None:
    """The log's own seed changes who comes and what is clicked, not the market."""
    market = Market(5, ads=300)
    assert list(log(market, 50, seed=1)) != list(log(market, 50, seed=2))


def test_the_catalog_is_consistent(market: Market) -> None:
    """Owners exist, ids ascend, bids are positive, every ad is live at the start."""
    advertisers, campaigns, ads = market.catalog()
    owner = {campaign.id: campaign.advertiser_id for campaign in campaigns}
    assert [ad.id for ad in ads] == list(range(1, 2_001))
    assert all(ad.advertiser_id == owner[ad.campaign_id] for ad in ads)
    assert set(owner.values()) <= {advertiser.id for advertiser in advertisers}
    assert all(ad.bid_micros >= 1 for ad in ads)
    assert all(_is_live(ad, market.shape.start_ms) for ad in ads)
    assert all(ad.creative["landing_url"].startswith("https://example.com/") for ad in ads)


def _is_live(ad: Ad, now_ms: int) -> bool:
    assert ad.flight_start_ms is not None
    return ad.flight_start_ms <= now_ms and (ad.flight_end_ms is None or now_ms < ad.flight_end_ms)


@pytest.mark.parametrize("rate", [0.005, 0.04])
def test_the_click_rate_is_the_wanted_one(rate: float) -> None:
    """The mean true probability of shown ads is `click_rate`, whatever drifts and is born."""
    drawn = draw_impressions(Market(seed=2, click_rate=rate), 100_000, seed=1)
    assert drawn.probability.mean() == pytest.approx(rate, rel=0.12)
    assert drawn.label.mean() == pytest.approx(drawn.probability.mean(), rel=0.12)


def test_ads_differ_as_in_public_logs(logits: Float64s) -> None:
    """Standard deviation of the mean logit between ads: 0.86."""
    assert logits.mean(axis=0).std() == pytest.approx(0.86, abs=0.06)


def test_visitors_differ_as_in_public_logs(logits: Float64s) -> None:
    """Standard deviation of the mean logit between visitors: 0.87."""
    assert logits.mean(axis=1).std() == pytest.approx(0.87, abs=0.08)


def test_one_ad_varies_between_visitors_as_in_public_logs(
    logits: Float64s, visitors: Visitors
) -> None:
    """Standard deviation within an ad, as far as features tell: 0.45."""
    within = (logits - visitors.hidden[:, None]).std(axis=0)
    assert np.sqrt((within**2).mean()) == pytest.approx(0.45, abs=0.05)


def test_effects_of_ads_drift_as_in_public_logs(market: Market) -> None:
    """The change of an ad's effect over the run has a standard deviation of about 0.5."""
    rows = np.arange(market.shape.ads)
    before, after = (
        market.truth.ad_logits(rows, at) for at in (market.shape.start_ms, market.end_ms)
    )
    assert (after - before).std() == pytest.approx(0.5, abs=0.08)


def test_campaign_sizes_are_those_of_public_logs(market: Market) -> None:
    """Ads a campaign: mean about 4, median 1, 95th percentile about 15; six campaigns each."""
    sizes = np.bincount(market.ads.campaign)
    assert 3.2 <= sizes.mean() <= 5.2
    assert np.median(sizes) == 1
    assert 10 <= np.percentile(sizes, 95) <= 20
    owners = int(market.ads.advertiser.max()) + 1
    assert len(sizes) / owners == pytest.approx(6, rel=0.1)


def test_bids_are_those_of_public_logs(market: Market) -> None:
    """Log-normal, σ 1.20 for CPC and 1.39 for CPM, 85 % CPC, uncorrelated with the click rate."""
    ads = market.ads
    first = np.unique(ads.campaign, return_index=True)[1]
    bids, is_cpc = np.log(ads.bid_micros[first]), ads.is_cpc[first]
    assert is_cpc.mean() == pytest.approx(0.85, abs=0.05)
    assert bids[is_cpc].std() == pytest.approx(1.20, abs=0.12)
    assert bids[~is_cpc].std() == pytest.approx(1.39, abs=0.25)
    effects = market.truth.ad_effect[first][is_cpc]
    assert abs(np.corrcoef(bids[is_cpc], effects)[0, 1]) < 0.12


def test_ads_are_as_young_as_in_public_logs(market: Market) -> None:
    """A third of the live ads is under 7 days old, and 5 to 7 % are born on a weekday."""
    born = market.ads.born_ms
    ages = (market.shape.start_ms - born[: market.shape.ads]) / DAY_MS
    assert (ages < 7).mean() == pytest.approx(1 / 3, abs=0.05)
    weekdays = (born > market.shape.start_ms) & (born < market.shape.start_ms + 5 * DAY_MS)
    assert 0.05 <= weekdays.sum() / 5 / market.shape.ads <= 0.07


def test_every_ad_of_the_run_is_born_once(market: Market) -> None:
    """Births over neighbouring spans add up to all later ads, in the order of their ids."""
    middle = (market.shape.start_ms + market.end_ms) // 2
    born = market.births(market.shape.start_ms, middle) + market.births(middle, market.end_ms)
    assert [ad.id for ad in born] == list(range(market.shape.ads + 1, market.size + 1))


def test_impressions_are_as_concentrated_as_in_public_logs(
    market: Market, impressions: Impressions
) -> None:
    """The top 1 % of ads has about 17 % of the impressions, the top 10 % about 60 %."""
    counts = np.sort(np.bincount(impressions.rows, minlength=market.size))[::-1] / 300_000
    assert 0.12 <= counts[: market.size // 100].sum() <= 0.24
    assert 0.50 <= counts[: market.size // 10].sum() <= 0.68


def test_requests_follow_the_day(market: Market, impressions: Impressions) -> None:
    """Trough of 0.8 % of the day at 04 h, peaks of 6 to 7 % at 11 h and 22 h; times ascend."""
    shares = np.bincount(impressions.visitors.hour, minlength=24) / 300_000
    np.testing.assert_allclose(shares, DAY_CURVE, atol=0.004)
    assert shares.argmin() == 4
    assert (np.diff(impressions.time_ms) >= 0).all()
    assert impressions.time_ms[0] >= market.shape.start_ms
    assert impressions.time_ms[-1] <= market.end_ms


def test_only_eligible_ads_were_shown(market: Market, impressions: Impressions) -> None:
    """Each logged ad was live and targeted its visitor."""
    for i in range(0, 300_000, 10_000):
        visitor = impressions.visitors.take(np.array([i]))
        assert market.eligible(visitor, int(impressions.time_ms[i]))[impressions.rows[i]]


def test_competition_is_that_of_public_logs(market: Market, visitors: Visitors) -> None:
    """About 115 ads are eligible for a request, and the runner-up's eCPM is near the winner's."""
    counts, ratios = [], []
    for i in range(len(visitors)):
        visitor = visitors.take(np.array([i]))
        ids = np.flatnonzero(market.eligible(visitor)) + 1
        second, first = np.sort(market.true_ecpm_micros(visitor, ids))[-2:]
        counts.append(len(ids))
        ratios.append(second / first)
    assert 72 <= np.mean(counts) <= 163
    assert 0.7 <= np.median(ratios) <= 0.95
    assert 0.3 <= np.percentile(ratios, 10) <= 0.65


def test_eligibility_is_what_the_clauses_say(market: Market, visitors: Visitors) -> None:
    """The bits agree with a literal reading of every ad's targeting and flight."""
    ads = market.catalog()[2] + market.births(market.shape.start_ms, market.end_ms)
    now_ms = market.shape.start_ms + 3 * DAY_MS
    for i in range(25):
        user = {f"user.{name}": v for name, v in visitors.features(i).items()}
        expected = [_targets(ad, user) and _is_live(ad, now_ms) for ad in ads]
        found = market.eligible(visitors.take(np.array([i])), now_ms)
        assert found.tolist() == expected


def _targets(ad: Ad, user: dict[str, FeatureValue]) -> bool:
    wanted = ad.targeting
    if not all(_meets(clause, user) for clause in wanted.all):
        return False
    if wanted.any and not any(_meets(clause, user) for clause in wanted.any):
        return False
    return not any(_meets(clause, user) for clause in wanted.none)


def _meets(clause: Clause, user: dict[str, FeatureValue]) -> bool:
    value = user.get(clause.feature)
    if value is None:
        return False
    if clause.values is None:
        assert isinstance(value, int)
        assert clause.minimum is not None
        assert clause.maximum is not None
        return clause.minimum <= value <= clause.maximum
    values = value if isinstance(value, list) else [value]
    return any(item in clause.values for item in values)


def test_the_oracle_is_the_best_eligible_ad(market: Market, visitors: Visitors) -> None:
    """No eligible ad has a larger true eCPM, and a mask takes ads out of the running."""
    visitor = visitors.take(np.array([0]))
    ids = np.flatnonzero(market.eligible(visitor)) + 1
    best = market.oracle(visitor)
    assert best == ids[market.true_ecpm_micros(visitor, ids).argmax()]
    without_best = np.arange(1, market.size + 1) != best
    assert market.oracle(visitor, mask=without_best) not in (None, best)
    assert market.oracle(visitor, mask=np.zeros(market.size, np.bool_)) is None


def test_the_random_control_is_eligible(market: Market, visitors: Visitors) -> None:
    """The control draws among eligible ads, evenly."""
    visitor, random = visitors.take(np.array([1])), np.random.default_rng(0)
    eligible = set((np.flatnonzero(market.eligible(visitor)) + 1).tolist())
    drawn = {market.random_choice(visitor, random) for _ in range(2_000)}
    assert drawn == eligible


def test_one_visitor_or_many_have_the_same_truth(market: Market, visitors: Visitors) -> None:
    """The probability of a pair does not depend on how many pairs are asked for."""
    ids = np.random.default_rng(0).integers(1, market.size + 1, len(visitors))
    together = market.true_pctr(visitors, ids)
    alone = [
        market.true_pctr(visitors.take(np.array([i])), ids[i : i + 1])[0] for i in range(len(ids))
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_click_delays_have_the_heavy_tail_of_public_logs() -> None:
    """At scale 1 the quartiles are those of conversions: 52 s, 198 s, 81 min."""
    market = Market(1, ads=10, delay_scale=1.0)
    delays = market.click_delay_s(np.random.default_rng(0), 200_000)
    quartiles = np.percentile(delays, (25, 50, 75))
    np.testing.assert_allclose(quartiles, (52, 198, 81 * 60), rtol=0.05)


def test_a_batch_is_what_the_encoder_gives(market: Market) -> None:
    """Encoding by columns gives the hashes of encoding row by row."""
    made = batch(market, 200, SCHEMA, seed=4)
    drawn = draw_impressions(market, 200, seed=4)
    encoder = Encoder(SCHEMA)
    users = [encoder.encode_user(drawn.visitors.features(i)) for i in range(200)]
    ads = [encoder.encode_ad(encoder.ad_values(market.ads.ad(int(row)))) for row in drawn.rows]
    for found, expected in ((made.user, stack(users, 6)), (made.ad, stack(ads, 5))):
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.ptr, expected.ptr)
    np.testing.assert_array_equal(made.ad_id, drawn.rows + 1)
    np.testing.assert_array_equal(made.label, drawn.label)


def test_a_log_is_written_as_replay_reads_it(tmp_path: Path) -> None:
    """Columns as documented, lists joined by a bar, a missing value empty, ids as features."""
    market = Market(3, ads=50)
    path = tmp_path / "log.csv.gz"
    write_log(path, log(market, 500))
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    assert tuple(rows[0]) == LOG_COLUMNS
    assert all(row["ad.creative"] == row["ad_id"] for row in rows)
    assert any("|" in row["user.interest"] for row in rows)
    assert any(row["user.age"] == "" for row in rows)
    interests = {value for row in rows for value in row["user.interest"].split("|")}
    assert interests == {*INTERESTS, ""}


def test_a_linear_model_reaches_the_usual_auc(market: Market) -> None:
    """Main effects alone, fitted on the first days, rank the last days with AUC 0.65 to 0.75."""
    data = batch(market, 200_000, SCHEMA, seed=1)
    columns, rows = _one_hot(data)
    trained = rows < 140_000
    scores = _fitted(columns, rows, data.label.astype(np.float64), trained)
    assert 0.65 <= _auc(scores[140_000:], data.label[140_000:]) <= 0.75


def _one_hot(data: Batch) -> tuple[Int64s, Int64s]:
    """Column and row of every feature value of both sides."""
    ids = np.concatenate((data.user.ids, data.ad.ids))
    rows = [
        np.repeat(np.arange(len(data)), np.diff(side.ptr[:: side.features]))
        for side in (data.user, data.ad)
    ]
    return np.unique(ids, return_inverse=True)[1], np.concatenate(rows)


def _fitted(columns: Int64s, rows: Int64s, label: Float64s, trained: np.ndarray) -> Float64s:
    """Scores of logistic regression with a Gaussian prior, by damped diagonal Newton steps."""
    weights, learned = np.zeros(columns.max() + 1), columns[trained]
    of = rows[trained]
    scores = np.full(len(label), np.log(label.mean() / (1 - label.mean())))
    level = scores[0]
    for _ in range(60):
        p = 1 / (1 + np.exp(-scores))
        slope = np.bincount(learned, (label - p)[of], len(weights)) - weights * 10
        curvature = np.bincount(learned, (p * (1 - p))[of], len(weights)) + 10
        weights += slope / curvature / 13  # about as many values as a row has
        scores = level + np.bincount(rows, weights[columns], len(label))
    return scores


def _auc(scores: Float64s, label: np.ndarray) -> float:
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(len(scores))
    clicks = label.sum()
    return float((ranks[label == 1].sum() - clicks * (clicks - 1) / 2) / clicks / sum(label == 0))


def test_interactions_matter(market: Market, impressions: Impressions) -> None:
    """Knowing them beats the best predictor without them in expected log loss.

    That one has the true main effects, its level and slope fitted to the true probabilities.
    """
    truth = market.truth
    arguments = impressions.visitors, impressions.rows, impressions.time_ms
    without = replace(truth, ad_vectors=np.zeros_like(truth.ad_vectors))
    hidden = impressions.visitors.hidden
    losses = [
        _best_loss(model.logits(*arguments) - hidden, impressions.probability)
        for model in (truth, without)
    ]
    assert losses[1] - losses[0] > 0.001


def _best_loss(scores: Float64s, probability: Float64s) -> float:
    """Expected log loss of level + slope · scores at the best level and slope (Newton)."""
    design = np.column_stack((np.ones_like(scores), scores))
    weights = np.array([0.0, 1.0])
    for _ in range(10):
        p = 1 / (1 + np.exp(-design @ weights))
        curvature = (design * (p * (1 - p))[:, None]).T @ design
        weights += np.linalg.solve(curvature, design.T @ (probability - p))
    p = 1 / (1 + np.exp(-design @ weights))
    return float(-(probability * np.log(p) + (1 - probability) * np.log1p(-p)).mean())


def test_unknown_ads_are_refused(market: Market, visitors: Visitors) -> None:
    """An id outside the market raises instead of wrapping around."""
    with pytest.raises(IndexError, match="1 to"):
        market.true_pctr(visitors.take(np.array([0])), np.array([0]))


@pytest.mark.parametrize(
    "arguments", [{"ads": 3}, {"click_rate": 0.0}, {"days": -1.0}, {"delay_scale": 0.0}]
)
def test_impossible_markets_are_refused(arguments: dict[str, float]) -> None:
    """Arguments out of range raise."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Market(1, **arguments)  # type: ignore[arg-type]


def test_a_scaled_day_scales_births_and_flights() -> None:
    """A market whose day lasts a minute sees a day's births in a minute."""
    market = Market(1, ads=2_000, day_ms=60_000)
    born = market.births(market.shape.start_ms, market.shape.start_ms + 60_000)
    assert 0.04 <= len(born) / 2_000 <= 0.08
    assert market.hour_of(market.shape.start_ms + 30_000) == 12
