"""The divergence lab: causes do what they say, measures measure, runs repeat."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from jobs.lab.causes import ASIDE, CAUSES, Cause, Size, regime
from jobs.lab.measures import CAP, WINDOW, Divergence, RunningRate, Sum, is_worse, regrets
from jobs.lab.methods import STEP_RULES, TUNED, WITH_RADIUS, Trial, settings_of, trials
from jobs.lab.run import Plan
from jobs.lab.summary import Runs, cells, differences, goals, totals
from jobs.lab.traffic import Traffic, traffic
from jobs.lab.training import Run, projected, run, with_first_accumulators
from jobs.lab.tuning import GRIDS, SEEDS
from models.constraints import norm_ratios
from models.offset import BIAS_VARIANCE, State, genesis
from models.trainer import TrainerSettings, train
from models.types import Float64s, Int64s

SIZE = Size(ads=60, chunks=16, events=150)


@cache
def drawn(cause: Cause) -> Traffic:
    return traffic(regime(cause, 3, SIZE))


@pytest.fixture(scope="module")
def calm() -> Traffic:
    """The market as it is."""
    return drawn("calm")


@pytest.fixture(scope="module")
def learned(calm: Traffic) -> tuple[State, TrainerSettings]:
    """A state that has learned one chunk, and its settings."""
    settings = settings_of(Trial("adagrad", "none"), calm.regime, calm.schema)
    first = genesis(calm.schema, 0.2, 1)
    return train(first, calm.chunks[0].batch, calm.schema, settings).state, settings


def ads(seen: Traffic) -> Int64s:
    return np.concatenate([chunk.batch.ad_id for chunk in seen.chunks])


def period_of(seen: Traffic) -> Int64s:
    n = len(ads(seen))
    return np.arange(n) * seen.regime.periods // n


@pytest.mark.parametrize("cause", CAUSES)
def test_a_regime_follows_from_cause_and_seed(cause: Cause) -> None:
    """The same arguments give the same regime, another seed another strength where there is one."""
    assert regime(cause, 3, SIZE) == regime(cause, 3, SIZE)
    if cause not in ("calm", "resets", "every_reset"):
        others = [replace(regime(cause, seed, Size()), seed=3) for seed in range(4, 9)]
        assert any(other != regime(cause, 3, Size()) for other in others)


def test_traffic_can_be_drawn_again() -> None:
    """The same regime gives the same events, labels and probabilities."""
    first, second = (traffic(regime("together", 3, SIZE)) for _ in range(2))
    for one, other in zip(first.chunks, second.chunks, strict=True):
        assert np.array_equal(one.batch.ad.ids, other.batch.ad.ids)
        assert np.array_equal(one.batch.label, other.batch.label)
        assert np.array_equal(one.probability, other.probability)


def test_labels_follow_the_probabilities(calm: Traffic) -> None:
    """Clicks are as many as the market's own probabilities say."""
    p = np.concatenate([chunk.probability for chunk in calm.chunks])
    clicks = sum(chunk.batch.label.sum() for chunk in calm.chunks)
    assert abs(clicks - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_turnover_shows_more_ads(calm: Traffic) -> None:
    """Of as many impressions more are of ads that were not there at the start."""
    assert len(np.unique(ads(drawn("turnover")))) > 1.5 * len(np.unique(ads(calm)))


def test_an_ad_leaves_and_returns(calm: Traffic) -> None:
    """The travelling ad is there, then not for some chunks, then again, and is marked as back."""
    seen = drawn("returns")
    there = np.flatnonzero(seen.present)
    assert np.diff(there).max() > 3
    back = [chunk.batch.ad_id[chunk.returning] for chunk in seen.chunks]
    assert seen.traveller in np.concatenate(back)
    assert not any(chunk.returning.any() for chunk in calm.chunks)


def test_small_chunks_are_more_and_smaller(calm: Traffic) -> None:
    """Some tens of events each, twice as many chunks."""
    seen = drawn("small_chunks")
    assert len(seen.chunks) == 2 * len(calm.chunks)
    assert max(len(chunk.batch) for chunk in seen.chunks) < 0.2 * SIZE.events


def test_a_burst_is_mostly_one_ad() -> None:
    """In each burst period one ad has about the drawn share of impressions."""
    seen = drawn("bursts")
    for period in seen.regime.burst_periods:
        inside = ads(seen)[period_of(seen) == period]
        assert np.bincount(inside).max() > 0.8 * seen.regime.burst * len(inside)


def test_noise_tosses_labels_and_leaves_the_truth_alone() -> None:
    """In noise periods clicks are more than the probabilities say, by half of what is tossed."""
    seen = drawn("noise")
    noisy = np.isin(period_of(seen), seen.regime.noise_periods)
    label = np.concatenate([chunk.batch.label for chunk in seen.chunks])
    p = np.concatenate([chunk.probability for chunk in seen.chunks])
    expected = seen.regime.noise * (0.5 - p[noisy].mean())
    assert label[noisy].mean() - p[noisy].mean() == pytest.approx(expected, abs=0.06)


def test_a_hot_value_is_suddenly_in_most_events() -> None:
    """Some value that was never seen is in the drawn share of events from its period on."""
    seen = drawn("hot_values")
    first = seen.regime.hot_periods[0]
    sides = [(chunk.batch.user.ids, chunk.batch.ad.ids) for chunk in seen.chunks]
    before = np.concatenate([ids for pair in sides[:first] for ids in pair])
    after = np.concatenate([ids for pair in sides[first:] for ids in pair])
    new, counts = np.unique(after[~np.isin(after, before)], return_counts=True)
    events = sum(len(chunk.batch) for chunk in seen.chunks[first:])
    assert len(new)
    assert counts.max() / events == pytest.approx(seen.regime.hot, abs=0.1)


def test_a_reset_spares_main_effects(learned: tuple[State, TrainerSettings]) -> None:
    """Latent accumulators are as at birth; those of main effects and the bias are not touched."""
    state, _settings = learned
    reset = with_first_accumulators(state, everywhere=False)
    assert not reset.ad.latent_evidence.any()
    assert np.array_equal(reset.ad.main_evidence, state.ad.main_evidence)
    assert reset.bias_precision == state.bias_precision
    assert np.array_equal(reset.ad.latent, state.ad.latent)


def test_a_whole_reset_spares_nothing(learned: tuple[State, TrainerSettings]) -> None:
    """Accumulators of main effects and the bias are as at birth too."""
    state, _settings = learned
    reset = with_first_accumulators(state, everywhere=True)
    assert not reset.user.main_evidence.any()
    assert reset.bias_precision == 1 / BIAS_VARIANCE


@pytest.mark.parametrize(
    ("cause", "knob"), [("step_size", "latent_step"), ("every_step", "step_size")]
)
def test_steps_are_too_long_by_the_drawn_factor(calm: Traffic, cause: Cause, knob: str) -> None:
    """The factor goes to latent vectors alone, or to every parameter."""
    drawn_regime = regime(cause, 3, SIZE)
    plain = settings_of(Trial("adagrad", "none"), calm.regime, calm.schema)
    settings = settings_of(Trial("adagrad", "none"), drawn_regime, calm.schema)
    assert drawn_regime.step_factor >= 4
    assert settings == replace(plain, **{knob: drawn_regime.step_factor})


def test_the_regret_of_the_truth_is_none() -> None:
    """KL from the market's own probability: 0 for it, capped, the cap for NaN."""
    p = np.array([0.2, 0.2, 0.2, 0.2])
    found = regrets(p, np.array([0.2, 0.4, 1.0, np.nan]))
    other = 0.2 * np.log(0.2 / 0.4) + 0.8 * np.log(0.8 / 0.6)
    assert found == pytest.approx([0.0, other, CAP, CAP])


def watched(loss: Float64s, chunks: int) -> Divergence:
    """What a watch says of chunks of labels 0 that are all predicted at `loss`."""
    watch = Divergence(RunningRate(0.1))
    for chunk in range(chunks):
        watch.scored(chunk, loss, np.zeros(len(loss), np.float32))
    return watch


def test_a_loss_above_the_running_rate_diverges_over_five_chunks() -> None:
    """Four bad chunks prove nothing, the fifth does."""
    bad = np.full(200, 0.9)
    assert watched(bad, WINDOW - 1).met == {}
    assert watched(bad, WINDOW).met == {"loss": WINDOW - 1}
    assert watched(np.full(200, 0.001), WINDOW).met == {}


def test_worse_is_three_standard_errors() -> None:
    """A mean of paired differences counts from three of its standard errors on, and NaN counts."""
    noise = np.tile([-1.0, 1.0], 50)  # its mean's standard error is 0.1
    assert not is_worse(noise + 0.29)
    assert is_worse(noise + 0.31)
    assert is_worse(np.array([np.nan, 0.0]))


def test_extreme_and_infinite_scores_diverge() -> None:
    """|s| above 20 on any probe, or a parameter that is not finite."""
    watch = Divergence(RunningRate(0.1))
    watch.learned(0, True, np.array([3.0, -19.9], np.float32))
    assert watch.met == {}
    watch.learned(1, True, np.array([3.0, -20.1], np.float32))
    watch.learned(2, False, np.array([np.nan], np.float32))
    watch.learned(3, True, np.array([99.0], np.float32))
    assert watch.met == {"scores": 1, "finite": 2}


def test_calibration_is_against_the_market() -> None:
    """Σ predicted / Σ probability; None without events."""
    assert Sum().calibration is None
    assert Sum().plus(np.array([0.3, 0.3]), np.array([0.1, 0.2])).calibration == pytest.approx(2.0)


def test_a_run_can_be_repeated(calm: Traffic) -> None:
    """The same traffic and trial give the same figures, traced or not."""
    first = run(calm, Trial("adagrad", "augmented", 0.5), traced=True)
    second = run(calm, Trial("adagrad", "augmented", 0.5))
    assert first.trace is not None
    assert len(first.trace.norm) == SIZE.chunks
    assert Run(**{name: getattr(first, name) for name in Run.__struct_fields__[:-1]}) == second


def test_projection_keeps_the_raw_state_inside(calm: Traffic) -> None:
    """At each touch or after each chunk: no raw norm above its radius, else some."""
    free, *kept = (
        run(calm, Trial("adagrad", name, 0.25))
        for name in ("none", "projection", "chunk_projection")
    )
    assert all(one.norm_ratio is not None and one.norm_ratio <= 1.0001 for one in kept)
    assert free.norm_ratio is not None
    assert free.norm_ratio > 1


def test_projecting_a_state_moves_only_what_is_outside(
    learned: tuple[State, TrainerSettings],
) -> None:
    """Vectors inside their radius stay as they are."""
    state, settings = learned
    radii = replace(settings.radii, ad=float(np.median(state.ad.norms())))
    after = projected(state, radii)
    inside = norm_ratios(state.ad, radii.ad) <= 1
    assert np.array_equal(after.ad.latent[inside], state.ad.latent[inside])
    assert norm_ratios(after.ad, radii.ad).max() <= 1.0001


def test_a_run_that_is_not_finite_costs_the_cap_from_then_on(calm: Traffic) -> None:
    """The run stops, its other events count the cap, its norm has no figure."""
    wild = replace(calm, regime=replace(calm.regime, step_factor=1e30))
    found = run(wild, Trial("adagrad", "none"))
    assert "finite" in found.diverged
    assert found.regret > 0.5 * CAP
    assert found.norm_ratio is None


def test_every_method_is_run_under_every_step_rule() -> None:
    """Methods with a radius at each of them, the others once; forms of the duals at one."""
    every = trials(("adagrad",), (0.5, 1.0))
    plain = [trial for trial in every if not trial.variant]
    assert len(plain) == 3 + 2 * len(WITH_RADIUS)
    assert {trial.radius for trial in every if trial.variant} == {1.0}
    assert len(set(every)) == len(every)


def test_settings_are_from_the_tuning_grid() -> None:
    """Every method that has a setting has one for each step rule, taken from its grid."""
    for step in STEP_RULES:
        assert set(TUNED[step]) == set(GRIDS)
        for method, setting in TUNED[step].items():
            assert all(setting[name] in values for name, values in GRIDS[method].items())


def test_tuning_uses_seeds_of_its_own() -> None:
    """No seed that the command line takes by default is a tuning seed."""
    assert min(SEEDS) > 100


def made(regret: float, *diverged: str) -> Run:
    return Run(dict.fromkeys(diverged, 3), regret, 1.5, 0.3, 0.9, 1.1)


@pytest.fixture
def runs() -> Runs:
    """Two seeds, one method of each kind; without constraint every run of `resets` diverges."""
    plan = Plan(steps=("adagrad",), radii=(1.0,))
    causes: tuple[Cause, ...] = ("calm", "resets", "every_step")
    found: Runs = {}
    for cause in causes:
        for seed in (1, 2):
            for trial in trials(plan.steps, plan.radii):
                bad = trial.method == "none" and cause == "resets"
                regret = 0.9 if bad else 0.01 * seed + 0.001 * (trial.method != "augmented")
                found[cause, seed, trial] = made(regret, *(["loss"] if bad else []))
    return found


def test_the_goal_is_met_by_figures_that_meet_it(runs: Runs) -> None:
    """Augmented never diverges where none does, and has the lowest mean regret."""
    assert [goal.met for goal in goals(runs)] == [True] * 4


def test_one_diverging_run_fails_the_goal(runs: Runs) -> None:
    """A run of augmented dual ascent that diverges where none does in one of five."""
    runs["resets", 2, Trial("adagrad", "augmented")] = made(0.01, "scores")
    assert [goal.met for goal in goals(runs)] == [False, False, True, True]


def test_what_no_method_constrains_is_outside_of_the_goal(runs: Runs) -> None:
    """Runs of a regime that strikes everything change neither the goal nor totals."""
    before = totals(runs)
    runs["every_step", 1, Trial("adagrad", "augmented")] = made(1.0, "finite")
    assert all(goal.met for goal in goals(runs))
    assert totals(runs) == before
    assert "every_step" in ASIDE


def test_differences_are_paired_and_leave_diverged_pairs_out(runs: Runs) -> None:
    """Against none: over all pairs the blown-up ones count, among survivors they do not."""
    found = {one.other: one for one in differences(runs) if not one.variant}
    assert found["projection"].all_runs.mean == pytest.approx(-0.001)
    assert found["projection"].all_runs.error == pytest.approx(0.0, abs=1e-12)
    assert found["none"].all_runs.mean < -0.4
    assert found["none"].survivors is not None
    assert found["none"].survivors.mean == pytest.approx(-0.001)
    assert found["none"].pairs == 2


def test_a_cell_counts_runs_and_criteria(runs: Runs) -> None:
    """Both seeds of `none` under `resets` diverged by their loss."""
    cell = next(c for c in cells(runs) if (c.cause, c.method) == ("resets", "none"))
    assert (cell.runs, cell.diverged, cell.loss, cell.scores) == (2, 2, 2, 0)
    assert cell.regret.mean == pytest.approx(0.9)
