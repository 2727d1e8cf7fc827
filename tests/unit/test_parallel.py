"""Lock-free threads learn as well as one, and lose nothing of what they learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jobs.market import Market
from jobs.market.traffic import batch
from models.kernels import PRECISION_STEPS
from models.kernels.parallel import HOT, hottest, merged
from models.metrics import log_loss
from models.offset import State, genesis
from models.schema import Schema, parse_schema
from models.trainer import TrainerSettings, train
from models.types import Batch

Draw = Callable[..., Batch]


@pytest.fixture
def start(schema: Schema) -> State:
    """The state before the first event."""
    return genesis(schema, 0.2, 1)


@pytest.fixture(scope="module")
def market() -> tuple[Schema, Batch]:
    """Enough events of a seeded market that two threads have several blocks each."""
    text = "version = 1\n" + "".join(
        f'[{name}]\nkind = "{"multi" if name.endswith("interest") else "categorical"}"\n'
        for name in ("user.geo", "user.interest", "ad.creative", "ad.campaign")
    )
    found = parse_schema(text + "[model]\noverlap = 2\nalone = 1\n")
    return found, batch(Market(3, 300), 120_000, found)


@pytest.mark.parametrize("step", sorted(PRECISION_STEPS))
def test_two_threads_learn_as_well_as_one(step: str, market: tuple[Schema, Batch]) -> None:
    """Lock-free updates cost less than 0.0005 log loss on the seeded market, after a warm start."""
    found, events = market
    settings = replace(TrainerSettings.of(found), step=step)
    first, later = events.rows(0, 60_000), events.rows(60_000, 120_000)
    state = train(genesis(found, 0.05, 1), first, found, settings).state
    one = train(state, later, found, settings)
    two = train(state, later, found, settings, threads=2)
    costs = [log_loss(made.predicted, later.label) for made in (one, two)]
    assert abs(costs[1] - costs[0]) < 0.0005
    assert len(two.state.user) == len(one.state.user)
    assert not np.array_equal(one.predicted, two.predicted)


def test_threads_learn_every_event(market: tuple[Schema, Batch]) -> None:
    """Evidence of all blocks reaches the bias: its precision is that of one thread, nearly."""
    found, events = market
    state = genesis(found, 0.05, 1)
    one, three = (
        train(state, events, found, TrainerSettings.of(found), threads=threads)
        for threads in (1, 3)
    )
    assert (three.predicted > 0).all()
    assert three.state.bias_precision == pytest.approx(one.state.bias_precision, rel=0.05)
    np.testing.assert_array_equal(three.state.user.keys, one.state.user.keys)


def test_few_events_are_learned_the_same_by_many_threads(
    schema: Schema, start: State, draw: Draw
) -> None:
    """Less than a block is not shared out: two threads then give what one gives."""
    settings = TrainerSettings.of(schema)
    one = train(start, draw(100), schema, settings)
    two = train(start, draw(100), schema, settings, threads=2)
    np.testing.assert_allclose(two.predicted, one.predicted, rtol=1e-5)
    np.testing.assert_allclose(two.state.user.main, one.state.user.main, rtol=1e-4, atol=1e-6)


def test_first_clicks_are_learned_by_one_thread(market: tuple[Schema, Batch]) -> None:
    """A new deployment's first events give the same bits by two threads as by one."""
    found, events = market
    state, first = genesis(found, 0.05, 1), events.rows(0, 20_000)
    one, two = (
        train(state, first, found, TrainerSettings.of(found), threads=threads).predicted
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("features", [1, 16, 17, 128])
def test_frequent_rows_of_every_feature_are_found(features: int) -> None:
    """However many values an event has, each feature's most frequent row is among the hot ones."""
    events = 200_000 // features
    ids = np.random.default_rng(1).integers(features, 20 * HOT, (events, features))
    ids[::2] = np.arange(features)
    hot = hottest(ids.ravel(), 20 * HOT)
    assert len(hot) == HOT
    assert np.isin(np.arange(features), hot).all()
    assert (np.diff(hot) > 0).all()


def test_evidence_of_two_copies_adds_up() -> None:
    """Merged precisions and means are those of all observations together."""
    prior, first, second = (np.array([0.5]), np.array([2.0])), (3.0, 1.5), (7.0, -0.5)
    of_prior = np.array([1.3])

    def informed(pair: tuple[np.ndarray, np.ndarray], seen: tuple[float, float]) -> tuple:
        evidence = pair[1] + seen[0]
        told = pair[0] * (of_prior + pair[1]) + seen[0] * seen[1]
        return told / (of_prior + evidence), evidence

    now = merged(prior, prior, informed(prior, first), of_prior)
    both = merged(now, prior, informed(prior, second), of_prior)
    np.testing.assert_allclose(both, informed(informed(prior, first), second), rtol=1e-12)


def test_gradient_sums_and_moves_of_two_copies_add_up() -> None:
    """Without precisions a parameter moves by the sum of its copies' moves."""
    before, own = (np.array([1.0]), np.array([4.0])), (np.array([1.5]), np.array([5.0]))
    now = np.array([0.8]), np.array([6.0])
    np.testing.assert_allclose(merged(now, before, own, None), [[1.3], [7.0]])
