"""Visitors: who sees the ads, as columns of codes.

Shares and day curve follow public logs in outline (a trough of 0.8 % of the day's requests at 04 h,
peaks of 6 to 7 % at 11 h and 22 h); the rest is invented.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from models.types import Bools, FeatureValue, Float64s, Int64s

Codes = npt.NDArray[np.int8]
Bits = npt.NDArray[np.uint64]

GEOS: Final = ("us", "in", "gb", "de", "br", "fr", "jp", "ca", "es", "it")
DEVICES: Final = ("mobile", "desktop", "tablet")
AGES: Final = ("<18", "18-24", "25-34", "35-44", "45-54", "55+", None)
INTERESTS: Final = (
    "autos",
    "beauty",
    "cooking",
    "fashion",
    "fitness",
    "gaming",
    "gardening",
    "movies",
    "music",
    "technology",
    "travel",
    "running",
)
PLACEMENTS: Final = ("home", "article", "feed", "search", "video", "sidebar")
HOURS: Final = 24

_GEO_SHARES = np.array([0.20, 0.14, 0.12, 0.11, 0.10, 0.09, 0.08, 0.06, 0.05, 0.05])
_DEVICE_SHARES = np.array([0.62, 0.28, 0.10])
_AGE_SHARES = np.array([0.06, 0.17, 0.26, 0.20, 0.14, 0.13, 0.04])
_INTEREST_SHARES = np.array([10, 7, 8, 9, 8, 11, 4, 9, 10, 10, 8, 6]) / 100
_INTEREST_COUNTS = np.array([0.08, 0.30, 0.30, 0.20, 0.12])
_PLACEMENT_SHARES = np.array([0.16, 0.20, 0.24, 0.12, 0.14, 0.14])
_MORNING = (3.9, 2.4, 1.5, 1.0, 0.8, 1.0, 1.7, 2.9, 4.2, 5.3, 6.0, 6.4)
_EVENING = (6.0, 5.4, 5.0, 4.8, 4.7, 4.7, 4.8, 5.0, 5.4, 6.0, 6.6, 5.4)
DAY_CURVE: Float64s = np.array(_MORNING + _EVENING) / sum(_MORNING + _EVENING)
"""float64 [24]: share of a day's requests in each hour."""

# One bit for every value a targeting clause can name; the values of one feature are neighbours.
GEO_BIT: Final = 0
DEVICE_BIT: Final = 10
HOUR_BIT: Final = 13
AGE_BIT: Final = 37
INTEREST_BIT: Final = 44
NO_INTEREST_BIT: Final = 56
PLACEMENT_BIT: Final = 57


@dataclass(frozen=True, slots=True)
class Visitors:
    """n visitors with their context at one request each.

    `geo`, `device`, `hour`, `age`, `placement`: int8 [n] codes into the tuples above; `interests`:
    bool [n, 12]; `hidden`: float64 [n], what no feature tells of a visitor's readiness to click,
    in logits; `bits`: uint64 [n], the same features for targeting.
    """

    geo: Codes
    device: Codes
    hour: Codes
    age: Codes
    interests: Bools
    placement: Codes
    hidden: Float64s
    bits: Bits

    def __len__(self) -> int:
        return len(self.geo)

    def take(self, rows: Int64s) -> Visitors:
        """The visitors `rows`, int64 [m], in that order."""
        return Visitors(*(getattr(self, column.name)[rows] for column in fields(self)))

    def features(self, row: int = 0) -> dict[str, FeatureValue]:
        """What a request says of visitor `row`, names without `user.`; a missing value is left out.

        `placement` is the context's; a decision request carries it beside the user's features.
        """
        interests = [INTERESTS[code] for code in np.flatnonzero(self.interests[row])]
        values: dict[str, FeatureValue] = {
            "geo": GEOS[self.geo[row]],
            "device": DEVICES[self.device[row]],
            "hour": int(self.hour[row]),
            "age": AGES[self.age[row]],
            "interest": list(interests) or None,
            "placement": PLACEMENTS[self.placement[row]],
        }
        return {name: value for name, value in values.items() if value is not None}


def draw_visitors(
    random: np.random.Generator, n: int, hidden_sd: float, hour: Codes | int | None = None
) -> Visitors:
    """n visitors; their hours are `hour` where it is given, and follow the day curve otherwise."""
    geo = _codes(random, _GEO_SHARES, n)
    device = _codes(random, _DEVICE_SHARES, n)
    hours = _codes(random, DAY_CURVE, n)
    if hour is not None:
        hours = np.broadcast_to(np.asarray(hour, np.int8), n)
    age = _codes(random, _AGE_SHARES, n)
    interests = _draw_interests(random, n)
    placement = _codes(random, _PLACEMENT_SHARES, n)
    hidden = random.normal(0.0, hidden_sd, n)
    bits = _one(geo, GEO_BIT) | _one(device, DEVICE_BIT) | _one(hours, HOUR_BIT)
    bits |= _one(age, AGE_BIT) | _one(placement, PLACEMENT_BIT) | _many(interests)
    return Visitors(geo, device, hours, age, interests, placement, hidden, bits)


def _codes(random: np.random.Generator, shares: Float64s, n: int) -> Codes:
    """int8 [n]: codes drawn with `shares`."""
    codes = np.searchsorted(np.cumsum(shares)[:-1], random.random(n), side="right")
    return codes.astype(np.int8)


def _draw_interests(random: np.random.Generator, n: int) -> Bools:
    """bool [n, 12]: none to four distinct interests each, popular ones more often."""
    counts = _codes(random, _INTEREST_COUNTS, n)
    # The smallest of exponential keys divided by the shares: weighted draws without replacement.
    keys = random.standard_exponential((n, len(INTERESTS)), np.float32)
    keys /= _INTEREST_SHARES.astype(np.float32)
    most = len(_INTEREST_COUNTS) - 1
    chosen = np.argpartition(keys, tuple(range(most)), axis=1)[:, :most]
    interests = np.zeros((n, len(INTERESTS)), np.bool_)
    np.put_along_axis(interests, chosen, np.arange(most) < counts[:, None], axis=1)
    return interests


def _one(codes: Codes, first: int) -> Bits:
    return np.uint64(1) << (codes.astype(np.uint64) + np.uint64(first))


def _many(interests: Bools) -> Bits:
    weights = np.uint64(1) << np.arange(INTEREST_BIT, NO_INTEREST_BIT, dtype=np.uint64)
    bits: Bits = interests.astype(np.uint64) @ weights
    return np.where(bits == 0, np.uint64(1 << NO_INTEREST_BIT), bits)
