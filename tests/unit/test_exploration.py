"""Which ads are new, and which of them a trial picks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.constraints import Radii, project
from models.exploration import Rule, Unsure, chance, is_new, pick, score_variances
from models.features import stack
from models.offset import genesis
from models.trainer import TrainerSettings, train
from models.types import Batch
from tests.unit import market

RULES: tuple[Rule, ...] = ("uniform", "upper", "thompson")
DECISIONS = [number.to_bytes(16, "big") for number in range(4000)]

ads = st.lists(
    st.tuples(st.floats(-6, 1), st.floats(0.01, 1.5), st.integers(1, 10**7)),
    min_size=1,
    max_size=6,
)


def unsure(some: list[tuple[float, float, int]]) -> Unsure:
    scores, deviations, bids = (np.array(column) for column in zip(*some, strict=True))
    return Unsure(np.arange(len(some)) + 7, np.log(bids), scores, deviations)


@pytest.mark.parametrize("rule", RULES)
@given(ads, st.binary(min_size=16, max_size=16), st.integers(1, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_larger_bid_never_loses_the_trial(
    rule: Rule,
    some: list[tuple[float, float, int]],
    decision: bytes,
    more: int,
) -> None:
    """The ad that is picked is picked again when it alone bids more."""
    at, probability = pick(rule, decision, unsure(some))
    assert 0 < probability <= 1
    score, deviation, bid = some[at]
    raised = [*some[:at], (score, deviation, bid + more), *some[at + 1 :]]
    assert pick(rule, decision, unsure(raised))[0] == at


def test_draws_do_not_depend_on_who_else_is_there() -> None:
    """Whether one ad is above another in a decision is the same with a third one beside them."""
    three = unsure([(-3.0, 0.5, 1000), (-3.0, 0.5, 1000), (-3.0, 0.5, 1000)])
    two = Unsure(three.ad_ids[:2], three.log_bids[:2], three.scores[:2], three.deviations[:2])
    for decision in DECISIONS[:200]:
        first, _ = pick("thompson", decision, three)
        assert first == 2 or first == pick("thompson", decision, two)[0]


@pytest.mark.parametrize("rule", ["uniform", "thompson"])
def test_the_logged_probability_is_how_often_an_ad_is_picked(rule: Rule) -> None:
    """Over many decisions each ad comes as often as its probability says."""
    some = unsure([(-3.0, 0.6, 1000), (-2.5, 0.2, 900), (-3.5, 0.9, 1500), (-4.0, 0.3, 900)])
    probabilities = {}
    picked: Counter[int] = Counter()
    for decision in DECISIONS:
        at, probabilities[at] = pick(rule, decision, some)
        picked[at] += 1
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=0.01)
    for at, probability in probabilities.items():
        error = 4 * np.sqrt(probability * (1 - probability) / len(DECISIONS))
        assert picked[at] / len(DECISIONS) == pytest.approx(probability, abs=error + 1e-3)


def test_chances_are_uniform_and_repeat() -> None:
    """A decision has one chance for ever; a hundredth of them are below a hundredth."""
    found = np.array([chance(decision) for decision in DECISIONS])
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(float((found < 0.1).mean()) - 0.1) < 0.02
    assert chance(DECISIONS[3]) == found[3]


def _seen(events: int) -> Batch:
    """Impressions of ad 1 alone, a twentieth of them clicked."""
    encoder, schema = market.ENCODER, market.SCHEMA
    user = stack([encoder.encode_user(market.USER)] * events, len(schema.user))
    ad = stack([encoder.encode_ad(encoder.ad_values(market.ad(1)))] * events, len(schema.ad))
    label = (np.arange(events) % 20 == 0).astype(np.float32)
    return Batch(np.arange(events) + market.NOW, np.ones(events, np.int64), label, user, ad)


def test_an_ad_is_new_until_enough_of_it_was_seen() -> None:
    """Unseen and hardly seen ads are new; one of many impressions is not, and is less uncertain."""
    schema = market.SCHEMA
    keys, ragged = [], []
    for key in (1, 2):
        encoded = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(key)))
        keys.append(int(encoded.ids[0]))
        ragged.append(encoded)
    found = {}
    for events in (10, 4000):
        start = genesis(schema, 0.05, 1)
        state = train(start, _seen(events), schema, TrainerSettings.of(schema)).state
        model, _ = project(state, Radii(10.0, 10.0), schema)
        found[events] = is_new(model, np.array(keys), 0).tolist()
        known, unknown = score_variances(model, stack(ragged, len(schema.ad))).tolist()
        assert known < unknown
    assert found == {10: [True, True], 4000: [False, True]}


def test_without_variances_no_ad_is_new() -> None:
    """A model that does not say how sure it is tries nothing."""
    assert not is_new(market.model(1), np.arange(5), 0).any()


def test_the_variance_of_a_mean_is_that_of_its_values() -> None:
    """Two values of one feature count a quarter each."""
    used = market.model(1)
    used = replace(
        used,
        ad_variance=np.full(len(used.ad_keys), 0.5, np.float32),
        ad_prior_variance=np.array([1.0, 2.0, 3.0]),
    )
    encoder = market.ENCODER
    values = {"creative": 1, "campaign": "unseen", "category": ["shoes", "unseen"]}
    block = stack([encoder.encode_ad(values)], 3)
    assert score_variances(used, block).tolist() == pytest.approx([0.5 + 2.0 + (0.5 + 3.0) / 4])
