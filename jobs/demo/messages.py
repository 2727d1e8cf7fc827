"""What the traffic's process tells the stage and is told: a JSON object a line, over its pipes."""

from __future__ import annotations

import msgspec


class Gain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Means over the ads of one page, by the market's true probabilities.

    `ctr`: click probability; `micros`: expected revenue of a thousand impressions at the ads' bids.
    """

    ctr: float
    micros: float


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One answered decision.

    `sent_s`: the monotonic clock, which all processes share, when it was sent; `ms`: until its
    answer was read; `ads`: ids by slot; `strays`: those that do not target the visitor by the
    market's own rules. For the same visitor and exclusions: `chosen`, what the server chose;
    `random`, what a random choice gives on average; `unlearned`, the highest bids at one click rate
    for all; `oracle`, the best by the true probabilities.
    """

    sent_s: float
    ms: float
    snapshot_id: str
    certified: bool
    ads: list[int]
    strays: list[int]
    chosen: Gain
    random: Gain
    unlearned: Gain
    oracle: Gain


class Tick(msgspec.Struct, frozen=True):
    """What has happened since the last tick: HTTP requests of all kinds, ended in either way.

    `faults` has a line for each request that failed.
    """

    answers: list[Answer]
    requests: int
    faults: list[str]
    impressions: int
    clicks: int


class Order(msgspec.Struct, frozen=True):
    """From the stage: the ads that are off the market from now on. The pipe's end says stop."""

    inactive: list[int]
