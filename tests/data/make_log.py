"""Makes log.csv: 2,000 impressions over two days whose clicks follow user, ad and their match.

Run it from the repository's root: `python tests/data/make_log.py > tests/data/log.csv`.
"""

from __future__ import annotations

import csv
import sys

import numpy as np

EVENTS, ADS, START_MS, DAY_MS = 2_000, 40, 1_795_305_600_000, 86_400_000
GEOS, DEVICES = ("us", "ca", "de", ""), ("phone", "desktop")
TOPICS = ("shoes", "books", "travel", "música")


def main() -> None:
    """Write the log to standard output."""
    random = np.random.default_rng(7)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    user = ["user.geo", "user.device", "user.interest", "user.age"]
    ad = ["ad.creative", "ad.campaign", "ad.category"]
    writer.writerow(["time", "ad_id", "clicked", "propensity", *user, *ad])
    quality = random.normal(0, 0.8, ADS)
    for time in np.sort(random.integers(START_MS, START_MS + 2 * DAY_MS, EVENTS)):
        writer.writerow(_row(random, quality, int(time)))


def _row(random: np.random.Generator, quality: np.ndarray, time: int) -> list[object]:
    ad = int(random.integers(ADS))
    category = TOPICS[ad % len(TOPICS)]
    interests = [topic for topic in TOPICS if random.random() < 0.4]
    geo, device = random.choice(GEOS), random.choice(DEVICES)
    score = -1.8 + quality[ad] + 1.2 * (category in interests) + 0.5 * (device == "phone")
    clicked = int(random.random() < 1 / (1 + np.exp(-score)))
    return [
        time,
        ad + 1,
        clicked,
        round(1 / ADS, 4),
        geo,
        device,
        "|".join(interests),
        int(random.integers(16, 80)),
        ad + 1,
        ad // 5 + 1,
        category,
    ]


if __name__ == "__main__":
    main()
