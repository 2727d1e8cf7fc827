"""The ads of the seeded market: hierarchy, features, bids and flights, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.market.targeting import Audience, audience_of, draw_targeting
from models.types import Ad, Advertiser, Bools, Campaign, Float64s, Int64s, Targeting

CATEGORIES: Final = (
    "shoes",
    "running",
    "sportswear",
    "cars",
    "phones",
    "laptops",
    "games",
    "films",
    "concerts",
    "cosmetics",
    "furniture",
    "garden",
    "groceries",
    "flights",
    "hotels",
    "insurance",
)
FORMATS: Final = ("banner", "card", "native", "video")
_FORMAT_SHARES = (0.30, 0.30, 0.28, 0.12)
_BRANDS: Final = ("Alder", "Birch", "Cedar", "Dune", "Ember", "Fjord", "Grove", "Harbor", "Isle")
_OFFERS: Final = (
    "New in",
    "Ends Sunday",
    "Top rated",
    "Back in stock",
    "Made for you",
    "From 9.90",
)

CPC_SHARE: Final = 0.85
MEDIAN_CPC_MICROS: Final = 350_000
CPC_SD: Final = 1.20
CPM_SD: Final = 1.39
_SIBLING_SD: Final = 0.05
_SMALL_CAMPAIGN: Final = 4
_BID_BOUND: Final = 2.2
_BOUNDED_SD: Final = 0.91
CAMPAIGNS_PER_ADVERTISER: Final = 6.0
_CAMPAIGN_SIZE = (-0.3, 1.79)
MEAN_AGE_DAYS: Final = 17.0
_FLIGHTED_SHARE: Final = 0.7
_MEAN_FLIGHT_DAYS: Final = 14.0
WEEKDAY_BIRTHS: Final = 0.06
WEEKEND_BIRTHS: Final = 0.025
FOREVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Shape:
    """What the caller chooses: live ads at the start, the run's first ms and its days and their ms.

    `click_rate` only sets the level of CPM bids, so that both kinds compete. `bid_spread` scales
    the spread of log bids.
    """

    ads: int
    click_rate: float
    start_ms: int
    days: float
    day_ms: int
    bid_spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Ads:
    """n ads in the order of their ids 1 … n, the ones born during the run last, in time order.

    `campaign`: int64 [n] row of the campaign, whose id is one more; `advertiser`: int64 [m] row of
    each campaign's advertiser; `categories`: bool [n, 16]; `format`: int8 [n]; `is_cpc`: bool [n];
    `bid_micros`: int64 [n]; `born_ms`, `end_ms`: int64 [n], start inclusive, end exclusive;
    `targetings` and `audience`: of the m campaigns.
    """

    campaign: Int64s
    advertiser: Int64s
    categories: Bools
    format: npt.NDArray[np.int8]
    is_cpc: Bools
    bid_micros: Int64s
    born_ms: Int64s
    end_ms: Int64s
    targetings: tuple[Targeting, ...]
    audience: Audience

    def __len__(self) -> int:
        return len(self.campaign)

    def ad(self, row: int) -> Ad:
        """Row `row` as the catalog holds it."""
        campaign = int(self.campaign[row])
        end = int(self.end_ms[row])
        categories = [CATEGORIES[code] for code in np.flatnonzero(self.categories[row])]
        return Ad(
            id=row + 1,
            campaign_id=campaign + 1,
            advertiser_id=int(self.advertiser[campaign]) + 1,
            bid_micros=int(self.bid_micros[row]),
            bid_type="cpc" if self.is_cpc[row] else "cpm",
            features={"category": list(categories), "format": FORMATS[self.format[row]]},
            targeting=self.targetings[campaign],
            flight_start_ms=int(self.born_ms[row]),
            flight_end_ms=None if end == FOREVER else end,
            creative=_creative(row + 1, categories[0], _brand(int(self.advertiser[campaign]))),
        )

    def campaigns(self) -> list[Campaign]:
        """All campaigns, those whose ads are yet to be born included."""
        return [
            Campaign(row + 1, int(owner) + 1, name=f"{_brand(int(owner))} {row + 1}")
            for row, owner in enumerate(self.advertiser)
        ]

    def advertisers(self) -> list[Advertiser]:
        """All advertisers."""
        return [Advertiser(row + 1, name=_brand(row)) for row in range(self.advertiser.max() + 1)]


def _brand(row: int) -> str:
    return f"{_BRANDS[row % len(_BRANDS)]} {row // len(_BRANDS) + 1}"


def _creative(ad_id: int, category: str, brand: str) -> dict[str, str]:
    offer = _OFFERS[ad_id % len(_OFFERS)]
    return {
        "title": f"{brand} {category}: {offer}",
        "image_url": f"https://example.com/images/{ad_id}.png",
        "landing_url": f"https://example.com/landing/{ad_id}",
    }


def draw_ads(random: np.random.Generator, shape: Shape) -> Ads:
    """Draw the hierarchy, then what hangs on each of its levels."""
    births = _births(random, shape)
    n = shape.ads + len(births)
    campaign = _hierarchy(random, n)
    m = int(campaign.max()) + 1
    is_cpc, bid_micros = _bids(random, campaign, m, shape)
    small = np.bincount(campaign) <= _SMALL_CAMPAIGN
    targetings = [draw_targeting(random, may_reach_all=bool(is_small)) for is_small in small]
    targetings[campaign[0]] = Targeting()  # with its endless flight: no request finds no ad
    born_ms, end_ms = _flights(random, shape, births)
    return Ads(
        campaign=campaign,
        advertiser=_owners(random, m),
        categories=_categories(random, campaign, m),
        format=random.choice(len(FORMATS), n, p=_FORMAT_SHARES).astype(np.int8),
        is_cpc=is_cpc,
        bid_micros=bid_micros,
        born_ms=born_ms,
        end_ms=end_ms,
        targetings=tuple(targetings),
        audience=audience_of(targetings),
    )


def _births(random: np.random.Generator, shape: Shape) -> Int64s:
    """Sorted birth times during the run; the fifth and sixth day of each week are a weekend."""
    times = []
    for day in range(int(np.ceil(shape.days))):
        rate = WEEKEND_BIRTHS if day % 7 in (5, 6) else WEEKDAY_BIRTHS
        times.append(day + random.random(random.poisson(rate * shape.ads)))
    days = np.sort(np.concatenate(times)) if times else np.empty(0)
    return shape.start_ms + (days[days < shape.days] * shape.day_ms).astype(np.int64)


def _hierarchy(random: np.random.Generator, n: int) -> Int64s:
    """Campaign of each ad: sizes with median 1, mean 4.5 and a heavy tail, ads in random order.

    The first ad has a campaign to itself; see `draw_ads`.
    """
    sizes = 1 + random.lognormal(*_CAMPAIGN_SIZE, n).astype(np.int64)
    # No campaign may hold a large part of a small market.
    campaign = np.repeat(np.arange(n), np.minimum(sizes, max(1, n // 40)))[:n]
    random.shuffle(campaign)
    return np.where(np.arange(n) == 0, campaign.max() + 1, campaign)


def _owners(random: np.random.Generator, campaigns: int) -> Int64s:
    advertisers = max(1, round(campaigns / CAMPAIGNS_PER_ADVERTISER))
    # Each advertiser has a first campaign; the others fall where they may.
    owners = np.concatenate((np.arange(advertisers), random.integers(0, advertisers, campaigns)))
    return owners[:campaigns].astype(np.int64)


def _categories(random: np.random.Generator, campaign: Int64s, campaigns: int) -> Bools:
    """A campaign's one or two categories, plus one of the ad's own for some ads."""
    found = np.zeros((len(campaign), len(CATEGORIES)), np.bool_)
    for _ in range(2):
        found[np.arange(len(found)), random.integers(0, len(CATEGORIES), campaigns)[campaign]] = 1
    own = np.flatnonzero(random.random(len(found)) < 0.2)
    found[own, random.integers(0, len(CATEGORIES), len(own))] = True
    return found


def _bids(
    random: np.random.Generator, campaign: Int64s, campaigns: int, shape: Shape
) -> tuple[Bools, Int64s]:
    """Kind and bid of each ad: log-normal by campaign, siblings close to each other."""
    is_cpc = (random.random(campaigns) < CPC_SHARE)[campaign]
    sd = np.where(is_cpc, CPC_SD, CPM_SD)
    noise = _bounded_normal(random, campaigns)[campaign] * np.sqrt(sd**2 - _SIBLING_SD**2)
    noise += random.normal(0.0, _SIBLING_SD, len(campaign))
    noise *= shape.bid_spread
    noise[0] = -2.0  # a house ad: it is eligible everywhere and should win only where nobody bids
    median: Float64s = np.where(is_cpc, 1.0, 1000 * shape.click_rate) * MEDIAN_CPC_MICROS
    return is_cpc, np.maximum(1, np.rint(median * np.exp(noise))).astype(np.int64)


def _bounded_normal(random: np.random.Generator, n: int) -> Float64s:
    """Unit spread, but none far out: one bid of 100 times the median would win every request."""
    drawn = random.normal(0.0, 1.0, 2 * n + 10)
    kept: Float64s = drawn[np.abs(drawn) < _BID_BOUND][:n] / _BOUNDED_SD
    return kept


def _flights(random: np.random.Generator, shape: Shape, births: Int64s) -> tuple[Int64s, Int64s]:
    """Start and end of each ad; every ad that is there at the start is live then."""
    ages = random.exponential(MEAN_AGE_DAYS * shape.day_ms, shape.ads).astype(np.int64)
    first = np.full(shape.ads, shape.start_ms, np.int64)
    born = np.concatenate((first - ages, births))
    live_from = np.concatenate((first, births))
    rest = random.exponential(_MEAN_FLIGHT_DAYS * shape.day_ms, len(born)).astype(np.int64)
    flighted = random.random(len(born)) < _FLIGHTED_SHARE
    flighted[0] = False
    return born, np.where(flighted, live_from + 1 + rest, FOREVER)
