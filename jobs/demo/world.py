"""The demo's market and its clock: both the traffic's process and the stage build the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jobs.market import Market

ADS: Final = 2_000
CLICK_RATE: Final = 0.05
BID_SPREAD: Final = 0.25
"""Bids differ less than in public logs: within a minute, what is learned about clicks would drown
in who bids most."""

SLOTS: Final = 6
DECISIONS_PER_S: Final = 160.0
REGULARS: Final = 0.25
"""Share of visitors who have seen the ads that are shown most: their page excludes those. So ads
that nobody has tried yet come up, and are learned about."""

ATTRIBUTION_WINDOW_S: Final = 3.0
HORIZON_EVERY_S: Final = 0.5
RETRAIN_EVERY_S: Final = 2.0
DELAY_SCALE: Final = 3.5e-5
"""Nine in ten clicks come within the attribution window; the tail is as heavy as in logs."""

ROOT: Final = Path(__file__).resolve().parents[2]
FEATURES: Final = ROOT / "features.toml"


def demo_market(seed: int, start_ms: int) -> Market:
    """The market of a run: a moment of a real day, so nothing is born and nothing drifts."""
    return Market(
        seed,
        ads=ADS,
        click_rate=CLICK_RATE,
        start_ms=start_ms,
        days=1e-5,
        delay_scale=DELAY_SCALE,
        bid_spread=BID_SPREAD,
    )
