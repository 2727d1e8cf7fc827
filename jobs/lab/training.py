"""One run: a regime's traffic through incremental training, published after each chunk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf, nan

import msgspec
import numpy as np

from jobs.lab.measures import CAP, Divergence, RunningRate, Sum, regrets
from jobs.lab.methods import Trial, settings_of
from jobs.lab.traffic import Chunk, Traffic
from models.certificate import score_range
from models.constraints import Radii, norm_ratios, project
from models.offset import BIAS_VARIANCE, Model, State, Table, genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Float32s, Float64s

_NO_RADII = Radii(inf, inf)
_RANGE_EVERY = 8
"""Chunks between two certificates: it costs as much as the training."""
_TAILS = (0.5, 99.5)


class Trace(msgspec.Struct, frozen=True):
    """A run over its chunks, for plotting; null from where it is not finite.

    `norm`: the largest raw norm over its radius; `low`, `high`: the middle 99 % of the probes'
    served scores; `dual` and `length`: μ of the travelling ad's creative, and its raw norm over its
    radius.
    """

    norm: list[float | None]
    low: list[float | None]
    high: list[float | None]
    dual: list[float | None]
    length: list[float | None]


class Run(msgspec.Struct, frozen=True):
    """What one run came to.

    `diverged`: the criteria met, with the chunk of each; `regret`: mean over all events;
    `norm_ratio`: the largest raw norm over its radius (the product's radius for a method without),
    null where it is not finite; `range_share`: width of the middle 99 % of the probes' scores over
    the certified width, mean over certificates; `spread_share`: standard deviation of the probes'
    served scores over that of the market's own, at the end; `returning`: Σ predicted / Σ market
    probability over impressions of ads that have just come back.
    """

    diverged: dict[str, int]
    regret: float
    norm_ratio: float | None
    range_share: float | None
    spread_share: float | None
    returning: float | None
    trace: Trace | None = None


def run(traffic: Traffic, trial: Trial, *, traced: bool = False) -> Run:
    """Score, then learn each chunk of `traffic` by the trial's method, as production would."""
    line = _Line(traffic, trial, traced)
    with np.errstate(all="ignore"):
        for number, chunk in enumerate(traffic.chunks):
            line.advance(number, chunk)
            if "finite" in line.divergence.met:
                break
    return line.result()


@dataclass
class _Line:
    """A run in progress."""

    traffic: Traffic
    trial: Trial
    traced: bool
    settings: TrainerSettings = field(init=False)
    state: State = field(init=False)
    served: Model = field(init=False)
    divergence: Divergence = field(init=False)
    regret: float = 0.0
    returning: Sum = field(default_factory=Sum)
    shares: list[float] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        schema = self.traffic.schema
        self.settings = settings_of(self.trial, self.traffic.regime, schema)
        self.state = _first(self.traffic)
        self.divergence = Divergence(RunningRate(schema.model.base_rate))
        self._publish()

    def advance(self, number: int, chunk: Chunk) -> None:
        """Score a chunk by what is served, learn it, publish."""
        predicted = sigmoid(self.served.score(chunk.batch.user, chunk.batch.ad))
        self._judge(number, chunk, predicted)
        if self.traffic.regime.resets:
            self.state = with_first_accumulators(self.state, self.traffic.regime.strikes_all)
        self.state = train(self.state, chunk.batch, self.traffic.schema, self.settings).state
        if self.trial.method == "chunk_projection":
            self.state = projected(self.state, self.settings.radii)
        self._publish()
        raw = self._raw_scores()
        self.divergence.learned(number, is_finite(self.state), raw)
        self._measure(number, raw)

    def _publish(self) -> None:
        radii = self.settings.radii if self.trial.keeps_radii else _NO_RADII
        self.served, _ = project(self.state, radii, self.traffic.schema)

    def _judge(self, number: int, chunk: Chunk, predicted: Float64s) -> None:
        self.divergence.scored(number, predicted, chunk.batch.label)
        self.regret += float(regrets(chunk.probability, predicted).sum())
        back = chunk.returning
        self.returning = self.returning.plus(predicted[back], chunk.probability[back])

    def _raw_scores(self) -> Float32s:
        raw, _ = project(self.state, _NO_RADII, self.traffic.schema)
        return raw.score(self.traffic.probes.user, self.traffic.probes.ad)

    def _measure(self, number: int, raw: Float32s) -> None:
        is_certified = number % _RANGE_EVERY == _RANGE_EVERY - 1 and is_finite(self.state)
        low = high = nan
        if self.traced or is_certified:
            low, high = np.percentile(self._served_scores(raw), _TAILS).tolist()
        if is_certified:
            certified = score_range(self.served, *self.served.ad_vectors(self.traffic.ads.features))
            self.shares.append((high - low) / (certified.high - certified.low))
        self.rows.append((largest_ratio(self.state, self.settings.radii), low, high, *self._ad()))

    def _served_scores(self, raw: Float32s) -> Float64s:
        if not self.trial.keeps_radii:
            return raw.astype(np.float64)
        probes = self.traffic.probes
        return self.served.score(probes.user, probes.ad).astype(np.float64)

    def _ad(self) -> tuple[float, float]:
        """μ and norm over radius of the travelling ad's creative; 0 before it is born."""
        row = np.flatnonzero(self.state.ad.keys == self.traffic.traveller_key)
        if not len(row):
            return 0.0, 0.0
        ratio = norm_ratios(self.state.ad, self.settings.ad_radius)[row[0]]
        return float(self.state.ad.dual[row[0]]), float(ratio)

    def result(self) -> Run:
        """The figures of the whole run; events after a non-finite value count the cap."""
        events = sum(len(chunk.batch) for chunk in self.traffic.chunks)
        seen = sum(len(chunk.batch) for chunk in self.traffic.chunks[: len(self.rows)])
        scores = self.served.score(self.traffic.probes.user, self.traffic.probes.ad)
        spread = float(scores.std(dtype=np.float64) / self.traffic.probe_logits.std())
        return Run(
            diverged={str(name): at for name, at in self.divergence.met.items()},
            regret=(self.regret + CAP * (events - seen)) / events,
            norm_ratio=_finite(max(row[0] for row in self.rows)),
            range_share=_finite(float(np.mean(self.shares))) if self.shares else None,
            spread_share=_finite(spread),
            returning=self.returning.calibration,
            trace=_trace(self.rows, len(self.traffic.chunks)) if self.traced else None,
        )


def _first(traffic: Traffic) -> State:
    """The state before the first event, its ad latents' priors as wide as the regime has them."""
    schema, regime = traffic.schema, traffic.regime
    state = genesis(schema, schema.model.base_rate, regime.seed)
    variance = state.interactions.variance * regime.prior_factor
    return replace(state, interactions=replace(state.interactions, variance=variance))


def is_finite(state: State) -> bool:
    """Whether every parameter is a finite number."""
    arrays = (state.user.latent, state.user.main, state.ad.latent, state.ad.main)
    return bool(np.isfinite(state.bias)) and all(bool(np.isfinite(a).all()) for a in arrays)


def largest_ratio(state: State, radii: Radii) -> float:
    """The largest norm of a latent vector over its radius; NaN where one is not finite."""
    sides = ((state.user, radii.user), (state.ad, radii.ad))
    return float(max(norm_ratios(table, radius).max(initial=0.0) for table, radius in sides))


def projected(state: State, radii: Radii) -> State:
    """The state with every latent vector inside its radius."""
    return replace(state, user=_inside(state.user, radii.user), ad=_inside(state.ad, radii.ad))


def _inside(table: Table, radius: float) -> Table:
    factor = 1.0 / np.maximum(norm_ratios(table, radius), 1.0)
    return replace(table, latent=(table.latent * factor[:, None]).astype(np.float32))


def with_first_accumulators(state: State, everywhere: bool) -> State:
    """The state with latent accumulators as they were at birth; `everywhere`: all of them."""
    user, ad = _reset(state.user, everywhere), _reset(state.ad, everywhere)
    precision = 1.0 / BIAS_VARIANCE if everywhere else state.bias_precision
    return replace(state, user=user, ad=ad, bias_precision=precision)


def _reset(table: Table, everywhere: bool) -> Table:
    main = np.zeros_like(table.main_evidence) if everywhere else table.main_evidence
    return replace(table, latent_evidence=np.zeros_like(table.latent_evidence), main_evidence=main)


def _trace(rows: list[tuple[float, ...]], chunks: int) -> Trace:
    columns = [[_finite(value) for value in column] for column in zip(*rows, strict=True)]
    return Trace(*(column + [None] * (chunks - len(rows)) for column in columns))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
