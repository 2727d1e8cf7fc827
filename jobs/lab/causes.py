"""The causes of divergence that the literature names, each as a regime drawn from (cause, seed).

A regime says what is done to the seeded market's traffic and to the trainer. A cause switches on
its own part only; `together` switches on all of them. How strong a part is, is drawn from the seed,
so that no method is tuned to one strength.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

Cause = Literal[
    "calm",
    "turnover",
    "returns",
    "small_chunks",
    "resets",
    "step_size",
    "bursts",
    "noise",
    "hot_values",
    "together",
    "every_step",
    "every_reset",
    "wide_priors",
]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)
ASIDE: Final[frozenset[Cause]] = frozenset(("every_step", "every_reset", "wide_priors"))
"""Run and reported apart from the goal: the first two strike main effects and bias as well, which
no constraint on latent vectors can cure; the last is a cause only for step rules with priors."""
ABOUT: Final[dict[Cause, str]] = {
    "calm": "the market as it is, for comparison",
    "turnover": "ads are born and end several times as fast",
    "returns": "half of the ads pause for long and come back, budgets run out each day",
    "small_chunks": "chunks of some tens of events",
    "resets": "latent vectors' accumulators return to their priors before each chunk",
    "step_size": "latent vectors' steps several times too long",
    "bursts": "for some chunks one ad gets most impressions",
    "noise": "for some chunks part of the labels are coin tosses",
    "hot_values": "values never seen before are suddenly in most events",
    "together": "all of these at once",
    "every_step": "steps of main effects and bias too long as well",
    "every_reset": "accumulators of main effects and bias return to their priors as well",
    "wide_priors": "latent vectors' prior variances many times too large (steps with priors only)",
}
"""One clause about each cause, for people."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much traffic a run has: ads at the start, chunks, events a chunk."""

    ads: int = 200
    chunks: int = 32
    events: int = 800


QUICK: Final = Size(ads=100, chunks=12, events=300)


@dataclass(frozen=True, slots=True)
class Regime:
    """One cause at a drawn strength.

    `days`: the market's days that the run covers, more of them mean more births and deaths a chunk;
    `paused`: share of the ads that vanish once, each for `away` of the run; `budget`: an ad's
    impressions a day at most, as a share of those of the busiest ad, 1 for no limit; `events`: a
    chunk's; `resets`: whether the accumulators of latent vectors return to their priors before each
    chunk; `step_factor`: multiplies the steps of latent vectors; `strikes_all`: whether both strike
    main effects and bias as well; `prior_factor`: multiplies the prior variances of latent vectors,
    in no other cause. The rest happens in some of the `periods`, equal parts of the run
    (chunks of the usual size): `burst`: share of impressions that one ad gets in each of
    `burst_periods`; `noise`: share of labels tossed in each of `noise_periods`; `hot`: share of
    events that a hot value is in, a new one from each of `hot_periods` on.
    """

    cause: Cause
    seed: int
    ads: int
    chunks: int
    events: int
    periods: int
    days: float = 10.0
    paused: float = 0.0
    away: float = 0.0
    budget: float = 1.0
    resets: bool = False
    step_factor: float = 1.0
    strikes_all: bool = False
    prior_factor: float = 1.0
    burst: float = 0.0
    burst_periods: tuple[int, ...] = ()
    noise: float = 0.0
    noise_periods: tuple[int, ...] = ()
    hot: float = 0.0
    hot_periods: tuple[int, ...] = ()


def regime(cause: Cause, seed: int, size: Size) -> Regime:
    """The regime of a cause under a seed; the same arguments give the same regime."""
    drawn = _everything(seed, size)
    if cause == "together":
        return replace(drawn, prior_factor=1.0)
    plain = Regime(cause, seed, size.ads, size.chunks, size.events, size.chunks)
    chosen = {name: getattr(drawn, name) for name in _PARTS[cause]}
    return replace(plain, **chosen, strikes_all=cause.startswith("every"))


_PARTS: Final[dict[Cause, tuple[str, ...]]] = {
    "calm": (),
    "turnover": ("days",),
    "returns": ("paused", "away", "budget"),
    "small_chunks": ("chunks", "events"),
    "resets": ("resets",),
    "step_size": ("step_factor",),
    "bursts": ("burst", "burst_periods"),
    "noise": ("noise", "noise_periods"),
    "hot_values": ("hot", "hot_periods"),
    "every_step": ("step_factor",),
    "every_reset": ("resets",),
    "wide_priors": ("prior_factor",),
}
_SMALL: Final = 2
"""So many times as many chunks where they are small."""


def _everything(seed: int, size: Size) -> Regime:
    random = np.random.default_rng((seed, 0xCA05E))
    return Regime(
        cause="together",
        seed=seed,
        ads=size.ads,
        chunks=size.chunks * _SMALL,
        events=max(20, int(size.events * random.uniform(0.05, 0.1))),
        periods=size.chunks,
        days=float(random.uniform(40.0, 80.0)),
        paused=float(random.uniform(0.4, 0.7)),
        away=float(random.uniform(0.2, 0.4)),
        budget=float(random.uniform(0.1, 0.3)),
        resets=True,
        step_factor=float(np.exp(random.uniform(np.log(4.0), np.log(32.0)))),
        burst=float(random.uniform(0.6, 0.95)),
        burst_periods=_some(random, size.chunks, 0.25),
        noise=float(random.uniform(0.1, 0.3)),
        noise_periods=_some(random, size.chunks, 0.3),
        hot=float(random.uniform(0.6, 0.95)),
        hot_periods=_some(random, size.chunks, 0.1),
        prior_factor=float(np.exp(random.uniform(np.log(30.0), np.log(300.0)))),
    )


def _some(random: np.random.Generator, periods: int, share: float) -> tuple[int, ...]:
    """Distinct periods, ascending, none of the first quarter."""
    first = periods // 4
    count = max(1, round(share * (periods - first)))
    picked = first + random.choice(periods - first, count, replace=False)
    return tuple(sorted(picked.tolist()))
