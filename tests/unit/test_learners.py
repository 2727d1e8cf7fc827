"""One contract for every learner: each step rule under each constraint, and main effects alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import snapshot
from models.cycle import genesis_snapshot, learn
from models.features import Encoder, stack
from models.index import AdSet
from models.interactions import by_entry
from models.kernels import Kernel, compiled, reference
from models.metrics import losses
from models.offset import Model, State, Table, sigmoid
from models.priors import in_force
from models.snapshot import Snapshot
from models.trainer import TrainerSettings, train
from models.types import Batch, Encoded, Float64s, Ragged, empty_batch
from tests.unit.learners import (
    COMPILED,
    FIXED,
    PARSED,
    RULES,
    RUNS,
    WIDE,
    User,
    arrays,
    assert_equal,
    assert_sound,
    copied,
    cut,
    events,
    every_learner,
    every_run,
    learner,
    raw_model,
    run,
    shaped,
    shaped_events,
    start,
)

SHAPES = [(1, 2, 1), (3, 0, 2), (3, 2, 0), (20, 1, 1)]


@every_learner
def test_scoring_changes_nothing(name: str) -> None:
    """Scores of users and ads, known or not, leave the model and the state as they are."""
    state = run(start(), [events(60)], learner(name), reference).state
    kept, model = copied(state), raw_model(state)
    before = {item.name: np.array(getattr(model, item.name)) for item in fields(Model)}
    others = events(30, seed=5, ads=30)
    first = model.score(others.user, others.ad)
    model.ad_vectors(others.ad)
    model.user_vector(Encoded(others.user.rows(0, 1).ids, np.diff(others.user.ptr[:4])))
    np.testing.assert_array_equal(model.score(others.user, others.ad), first)
    assert_equal(state, kept)
    for item, array in before.items():
        np.testing.assert_array_equal(getattr(model, item), array, err_msg=item)


@every_run
def test_training_predicts_what_the_model_scores(name: str, kernel: Kernel) -> None:
    """An event's prediction, before it is learned, is the score of the parameters so far."""
    rule, batch = learner(name), events(80)
    state = run(start(), [batch], rule, kernel).state
    for i in range(3):
        event = batch.rows(i, i + 1)
        scored = sigmoid(raw_model(state).score(event.user, event.ad))
        trained = train(state, event, PARSED, rule, kernel)
        np.testing.assert_allclose(trained.predicted, scored, rtol=1e-5)
        state = trained.state


@every_run
def test_an_event_is_predicted_before_it_is_learned(name: str, kernel: Kernel) -> None:
    """Predictions depend neither on the event's own label nor on anything after it."""
    batch = events(50)
    flipped = batch.label.copy()
    flipped[30:] = 1 - flipped[30:]
    one = run(start(), [batch], learner(name), kernel).predicted
    other = run(start(), [replace(batch, label=flipped)], learner(name), kernel).predicted
    np.testing.assert_array_equal(one[:31], other[:31])
    assert (one[31:] != other[31:]).any()


@every_run
def test_training_repeats_bit_for_bit(name: str, kernel: Kernel) -> None:
    """Two runs from one state are equal, and the first leaves what it started from alone."""
    before = run(start(), [events(40)], learner(name), kernel).state
    kept = copied(before)
    chunks = [events(60, seed=1), events(60, seed=2)]
    first = run(before, chunks, learner(name), kernel)
    assert_equal(before, kept)
    second = run(kept, chunks, learner(name), kernel)
    assert_equal(first.state, second.state)
    np.testing.assert_array_equal(first.predicted, second.predicted)


def stored(store: Path, empty: Snapshot, state: State) -> State:
    """The state as a snapshot's folder gives it back."""
    numbers = {
        "bias": state.bias,
        "bias_precision": state.bias_precision,
        "interaction_weight": state.interactions.weight,
        "interaction_precision": state.interactions.precision,
    }
    manifest = msgspec.structs.replace(empty.manifest, **numbers)
    sealed = snapshot.write(store, replace(empty, manifest=manifest, state=state))
    return snapshot.load(store / str(sealed.id)).state


@every_run
def test_a_run_resumes_from_its_snapshot(
    name: str, kernel: Kernel, tmp_path: Path, ads: AdSet
) -> None:
    """Saved and loaded between chunks, a run goes on as if it had not been, bit for bit."""
    rule = learner(name)
    empty = genesis_snapshot(PARSED, ads, snapshot_id=UUID(int=1), now_ms=0)
    first = run(start(), [events(60), events(1, seed=7)], rule, kernel).state
    rest = [empty_batch(3, 2), events(60, seed=1, ads=20)]
    whole = run(first, rest, rule, kernel)
    resumed = run(stored(tmp_path, empty, first), rest, rule, kernel)
    assert_equal(whole.state, resumed.state)
    np.testing.assert_array_equal(whole.predicted, resumed.predicted)


def assert_same_snapshot(one: Snapshot, other: Snapshot) -> None:
    """Both agree in everything but the list of files, which only a stored one has."""
    manifests = [msgspec.structs.replace(each.manifest, files={}) for each in (one, other)]
    assert manifests[0] == manifests[1]
    assert_equal(one.state, other.state)
    for item in fields(Model):
        parts = getattr(one.model, item.name), getattr(other.model, item.name)
        np.testing.assert_array_equal(*parts, err_msg=item.name)
    np.testing.assert_array_equal(one.index.vectors, other.index.vectors)
    np.testing.assert_array_equal(one.probes.user.ids, other.probes.user.ids)


@pytest.mark.parametrize("name", COMPILED)
def test_a_line_resumes_from_every_snapshot(name: str, tmp_path: Path, ads: AdSet) -> None:
    """A line saved and loaded after each cycle publishes and judges as one that was not."""
    whole = resumed = genesis_snapshot(PARSED, ads, snapshot_id=UUID(int=1), now_ms=0)
    for number in range(2, 6):
        ids, chunk = (UUID(int=number), UUID(int=number + 100)), events(100, seed=number)
        one, other = (
            learn(line, chunk, ads, PARSED, learner(name), snapshot_ids=ids, now_ms=number)
            for line in (whole, resumed)
        )
        np.testing.assert_array_equal(one.predicted, other.predicted)
        assert_same_snapshot(one.candidate, other.candidate)
        sealed = snapshot.write(tmp_path, other.candidate)
        whole, resumed = one.candidate, snapshot.load(tmp_path / str(sealed.id))


ONCE_A_CHUNK = ("-dual", "-augmented", "-main", "-explicit", "-everywhere")
AT_EACH_EVENT = [case for case in RUNS if not str(case.values[0]).endswith(ONCE_A_CHUNK)]


@pytest.mark.parametrize(("name", "kernel"), AT_EACH_EVENT)
@settings(max_examples=4, deadline=None)
@given(at=st.lists(st.integers(0, 90), max_size=4))
def test_chunks_do_not_matter_to_what_happens_at_each_event(
    name: str, kernel: Kernel, at: list[int]
) -> None:
    """Without duals, under given variances, any split of the events gives the same bits."""
    rule, batch = learner(name, **FIXED), events(90)
    one = run(start(), [batch], rule, kernel)
    other = run(start(), cut(batch, at), rule, kernel)
    np.testing.assert_array_equal(one.predicted, other.predicted)
    assert_equal(one.state, other.state)


@every_run
def test_chunks_matter_little_to_duals_and_variances(name: str, kernel: Kernel) -> None:
    """Other chunks move scores by a twentieth of a logit on average, half a logit at most.

    Duals and variances move once a chunk, so a split moves them earlier. That matters most here, in
    the first few events.
    """
    batch = events(180)
    one = run(start(), cut(batch, [60, 120]), learner(name), kernel).predicted
    other = run(start(), cut(batch, [30, 80, 130, 150]), learner(name), kernel).predicted
    moved = np.abs(np.log(one / (1 - one)) - np.log(other / (1 - other)))
    assert moved.mean() < 0.05
    assert moved.max() < 0.5


@pytest.mark.parametrize("name", COMPILED)
def test_kernels_train_alike(name: str) -> None:
    """Over chunks both kernels give the same state, duals and learned variances included."""
    chunks = [events(60, seed) for seed in range(3)]
    slow, fast = (run(start(), chunks, learner(name), kernel) for kernel in (reference, compiled))
    np.testing.assert_allclose(fast.predicted, slow.predicted, rtol=1e-3)
    for item, array in arrays(slow.state).items():
        found = arrays(fast.state)[item]
        np.testing.assert_allclose(found, array, rtol=2e-3, atol=2e-4, err_msg=item)
    assert slow.state.user.dual.any() == (name != "curvature-main")


@every_run
def test_learning_beats_the_running_rate(name: str, kernel: Kernel) -> None:
    """After some events, predictions are better than the click rate of all events before."""
    batch = events(500)
    predicted = run(start(), cut(batch, [150, 300]), learner(name), kernel).predicted
    rate = (0.2 + np.cumsum(batch.label) - batch.label) / (1 + np.arange(500))
    gained = losses(rate, batch.label) - losses(predicted, batch.label)
    assert gained[200:].mean() > 0.02


@every_run
def test_nothing_to_learn_changes_nothing(name: str, kernel: Kernel) -> None:
    """An empty chunk leaves the state as it is and predicts nothing."""
    state = run(start(), [events(40)], learner(name), kernel).state
    trained = train(state, empty_batch(3, 2), PARSED, learner(name), kernel)
    assert_equal(state, trained.state)
    assert trained.predicted.shape == (0,)


@every_run
@pytest.mark.parametrize("clicked", [0, 1])
def test_one_kind_of_label_is_believed(name: str, kernel: Kernel, clicked: int) -> None:
    """Of nothing but clicks, or none, predictions move that way and stay probabilities."""
    batch = replace(events(60), label=np.full(60, clicked, np.float32))
    trained = run(start(), [batch, batch], learner(name), kernel)
    assert_sound(trained)
    moved = trained.predicted[60:] - trained.predicted[:60]
    assert np.sign(moved.mean()) == 2 * clicked - 1


@every_run
def test_one_event_makes_the_rows_of_its_values(name: str, kernel: Kernel) -> None:
    """A first event, and then one with values never seen, add one row a new value, no other."""
    first, other = events(1), events(1, seed=3, ads=900)
    trained = run(start(), [first], learner(name), kernel)
    assert_sound(trained)
    assert sorted(trained.state.user.keys) == sorted(set(first.user.ids))
    state = train(trained.state, other, PARSED, learner(name), kernel).state
    assert sorted(state.user.keys) == sorted({*first.user.ids, *other.user.ids})
    assert sorted(state.ad.keys) == sorted({*first.ad.ids, *other.ad.ids})
    assert len(state.ad) > len(trained.state.ad)


@every_run
def test_a_feature_may_have_a_single_value(name: str, kernel: Kernel) -> None:
    """Where every event is the same, of values or of none given, the click rate is learned."""
    # Gradients clipped hard pull AdaGrad to the commoner label, so here they are not.
    encoder, rule = Encoder(PARSED), learner(name, clip_norm=1.0)
    given_: User = {"geo": "us", "device": "d", "interest": ["a"]}
    for values in (given_, {}):
        user, ad = stack([encoder.encode_user(values)], 3), stack([encoder.encode_ad({})], 2)
        rows = np.zeros(80, np.int64)
        label = (np.arange(80) % 4 == 0).astype(np.float32)
        batch = Batch(rows, rows, label, user.take(rows), ad.take(rows))
        trained = run(start(), [batch, batch, batch], rule, kernel)
        assert_sound(trained)
        assert trained.predicted[-40:].mean() == pytest.approx(0.25, abs=0.12)


@every_run
def test_a_value_given_twice_counts_once(name: str, kernel: Kernel) -> None:
    """An event that repeats a value is predicted like one that does not, and learned soundly."""
    state = run(start(), [events(60)], learner(name), kernel).state
    once = events(60).rows(3, 4)
    ptr = np.arange(4) * 2
    twice = replace(once, user=Ragged(np.repeat(once.user.ids[:3], 2), ptr, 3))
    once = replace(once, user=Ragged(once.user.ids[:3], np.arange(4), 3))
    one, other = (train(state, each, PARSED, learner(name), kernel) for each in (once, twice))
    np.testing.assert_allclose(other.predicted, one.predicted, rtol=1e-5)
    assert_sound(other)
    again = [train(each.state, once, PARSED, learner(name), kernel) for each in (one, other)]
    moved = [float(each.predicted[0] - one.predicted[0]) for each in again]
    assert moved[0] * moved[1] > 0


@every_learner
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_learned(name: str, shape: tuple[int, int, int]) -> None:
    """1 and 20 user features, no block for pairs, none for itself: sound, and scored as learned."""
    schema = shaped(*shape)
    rule, batch = learner(name, schema), shaped_events(schema, 15)
    trained = run(start(schema), cut(batch, [10]), rule, reference, schema)
    assert_sound(trained)
    scored = sigmoid(raw_model(trained.state, schema).score(batch.user, batch.ad))[:1]
    again = train(trained.state, batch.rows(0, 1), schema, rule, reference)
    np.testing.assert_allclose(again.predicted, scored, rtol=1e-5)


def test_kernels_train_twenty_features_alike() -> None:
    """The compiled kernel follows its twin where users have many features and no block alone."""
    schema = shaped(20, 2, 0)
    rule, chunks = learner("curvature-augmented", schema), [shaped_events(schema, 60)]
    slow, fast = (run(start(schema), chunks, rule, k, schema) for k in (reference, compiled))
    np.testing.assert_allclose(fast.predicted, slow.predicted, rtol=1e-3)


def moved_state(rule: TrainerSettings, seed: int) -> State:
    """A state with random parameters of every value of `events(60)`, far from any optimum."""
    rng = np.random.default_rng(seed)
    state = run(start(), [events(60)], rule, reference).state

    def moved(table: Table) -> Table:
        latent = table.latent + rng.normal(0, 0.5, table.latent.shape)
        main = table.main + rng.normal(0, 0.5, len(table))
        return replace(table, latent=latent.astype(np.float32), main=main.astype(np.float32))

    return replace(state, user=moved(state.user), ad=moved(state.ad))


def parameters(state: State) -> dict[str, Float64s]:
    """What the loss depends on, by name."""
    names = ("user.latent", "user.main", "ad.latent", "ad.main")
    found = {name: arrays(state)[name].astype(np.float64) for name in names}
    return found | {"bias": np.array([state.bias])}


def of_event(state: State, event: Batch) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and place of each parameter of the values that an event has."""
    ids = {"user": event.user.ids, "ad": event.ad.ids, "bias": np.zeros(0, np.int64)}
    for name, values in parameters(state).items():
        side = name.partition(".")[0]
        has = np.isin(arrays(state)[f"{side}.keys"], ids[side]) if side != "bias" else [True]
        yield from ((name, at) for at in np.ndindex(values.shape) if has[at[0]])


def log_loss_of(state: State, event: Batch, name: str, at: tuple[int, ...], step: float) -> float:
    """Log loss of one event under the published model, one parameter moved by `step`."""
    moved = parameters(state)
    moved[name][at] += step
    narrow = {each: values.astype(np.float32) for each, values in moved.items()}
    state = replace(
        state,
        user=replace(state.user, latent=narrow["user.latent"], main=narrow["user.main"]),
        ad=replace(state.ad, latent=narrow["ad.latent"], main=narrow["ad.main"]),
        bias=float(moved["bias"][0]),
    )
    score = raw_model(state).score(event.user, event.ad)
    return float(losses(sigmoid(score), event.label)[0])


def slope(state: State, event: Batch, name: str, at: tuple[int, ...]) -> float:
    """∂(log loss)/∂θ of one parameter by a central difference."""
    step = 2.0**-5
    ends = [log_loss_of(state, event, name, at, side) for side in (step, -step)]
    return (ends[0] - ends[1]) / (2 * step)


def prior_precisions(rule: TrainerSettings, state: State) -> dict[str, Float64s]:
    """Each parameter's prior precision; sums of gradients have none."""
    scale, ads = float(rule.keeps_precisions), state.interactions.variance
    user, ad = state.user.feature, state.ad.feature
    return {
        "user.latent": np.full((len(user), 1), scale / rule.user_latent_variance),
        "user.main": scale / in_force(state.user_variance, rule.user_variance)[user],
        "ad.latent": by_entry(scale / ads, rule.shape)[ad],
        "ad.main": scale / in_force(state.ad_variance, rule.ad_variance)[ad],
    }


def paces(rule: TrainerSettings, before: State, after: State) -> dict[str, Float64s]:
    """What each step rule divides a gradient by; sums of gradients hold the present one already."""
    found = arrays(before if rule.keeps_precisions else after)
    names = {name: f"{name}_evidence" for name in parameters(before) if name != "bias"}
    priors = prior_precisions(rule, before)
    sums = {name: found[each] + priors[name] for name, each in names.items()}
    sums["bias"] = found["bias"][1:]
    if rule.step == "adagrad":
        return {name: np.sqrt(rule.alpha + each) for name, each in sums.items()}
    if rule.step == "published":
        return {name: rule.alpha + each**rule.beta for name, each in sums.items()}
    return sums


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", RULES)
def test_a_step_goes_down_the_gradient(name: str, label: int) -> None:
    """One event moves every parameter by −gradient over its accumulator's pace, times one factor.

    The gradient is that of central differences; no constraint acts.
    """
    rule = learner(name, **FIXED, **WIDE, latent_step=1.0)
    state, event = moved_state(rule, seed=label), events(60).rows(5, 6)
    event = replace(event, label=np.array([label], np.float32))
    after = train(state, event, PARSED, rule, reference).state
    paced, before, moved = paces(rule, state, after), parameters(state), parameters(after)
    places = list(of_event(state, event))
    gradient = np.array([slope(state, event, each, at) for each, at in places])
    steps = np.array([(moved[n][at] - before[n][at]) * paced[n][at] for n, at in places])
    factor = -(steps @ gradient) / (gradient @ gradient)
    assert 0.01 < factor <= 1.001
    np.testing.assert_allclose(steps, -factor * gradient, atol=2e-3 * np.abs(steps).max())
    everything = sum(np.count_nonzero(moved[each] != before[each]) for each in before)
    assert np.count_nonzero(steps) == everything > 40
