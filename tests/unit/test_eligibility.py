"""Bitmap eligibility says exactly what an evaluation ad by ad says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving import eligibility as eligibility_module
from app.serving import flights as flights_module
from app.serving.bitmaps import among
from app.serving.eligibility import Eligibility
from app.serving.flights import ALWAYS_MS, NEVER_MS
from app.serving.rules import Draft, Met
from app.serving.schedules import mark, timetable
from app.serving.targeting import Targets
from models.types import DAYS, Clause, FeatureValue, Hours, Schedule, Targeting

User = dict[str, FeatureValue]


@dataclass(frozen=True)
class Row:
    """What the naive evaluation needs of one ad."""

    state: int = 0
    campaign: int = 0
    advertiser: int = 0
    start: int = ALWAYS_MS
    end: int = NEVER_MS
    targeting: Targeting = field(default_factory=Targeting)


def texts(value: FeatureValue) -> set[str]:
    values = value if isinstance(value, list) else [value]
    return {str(item) for item in values if item is not None and item != ""}


def meets(clause: Clause, user: User) -> bool:
    given_texts = texts(user.get(clause.feature.removeprefix("user.")))
    if clause.values is not None:
        return bool(given_texts & set(clause.values))
    low = -np.inf if clause.minimum is None else clause.minimum
    high = np.inf if clause.maximum is None else clause.maximum
    return any(text.isdigit() and low <= float(text) <= high for text in given_texts)


def targeted(targeting: Targeting, user: User) -> bool:
    some = not targeting.any or any(meets(clause, user) for clause in targeting.any)
    every = all(meets(clause, user) for clause in targeting.all)
    return some and every and not any(meets(clause, user) for clause in targeting.none)


def naive_reason(row: Row, user: User, now_ms: int) -> str | None:
    if row.state:
        return (None, "paused", "retired", "unknown_ad")[row.state]
    if row.campaign:
        return (None, "campaign_paused", "campaign_retired")[row.campaign]
    if row.advertiser:
        return (None, "advertiser_paused", "advertiser_retired")[row.advertiser]
    if row.start > now_ms:
        return "not_started"
    if row.end <= now_ms:
        return "ended"
    return None if targeted(row.targeting, user) else "targeting"


def compiled(rows: list[Row], targets: Targets | None = None) -> Eligibility:
    def codes(name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], np.uint8)

    return Eligibility(
        codes("state"),
        codes("campaign"),
        codes("advertiser"),
        np.array([row.start for row in rows], np.int64),
        np.array([row.end for row in rows], np.int64),
        targets or Targets.of([row.targeting for row in rows]),
    )


ONLY_US = Targeting(all=(Clause("user.geo", ("us",)),))
GEO, HOUR = ("us", "ca", "7"), st.integers(0, 9)
bounds = st.one_of(st.none(), HOUR.map(float))
clauses = st.one_of(
    st.builds(
        Clause,
        st.sampled_from(["user.geo", "user.hour"]),
        st.lists(st.sampled_from(GEO), min_size=1, max_size=2, unique=True).map(tuple),
    ),
    st.builds(Clause, st.just("user.hour"), st.none(), HOUR.map(float), bounds),
    st.builds(Clause, st.just("user.geo"), st.none(), bounds, HOUR.map(float)),
)
groups = st.lists(clauses, max_size=2).map(tuple)
targetings = st.builds(Targeting, groups, groups, groups)
rows_of = st.builds(
    Row,
    state=st.sampled_from([0, 0, 0, 1, 2, 3]),
    campaign=st.sampled_from([0, 0, 0, 1, 2]),
    advertiser=st.sampled_from([0, 0, 0, 1, 2]),
    start=st.sampled_from([ALWAYS_MS, 10, 20]),
    end=st.sampled_from([NEVER_MS, 15, 30]),
    targeting=targetings,
)
users = st.fixed_dictionaries(
    {},
    optional={
        "geo": st.one_of(st.none(), st.sampled_from([*GEO, 7]), st.lists(st.sampled_from(GEO))),
        "hour": st.one_of(HOUR, HOUR.map(str), st.just("")),
    },
)


@given(st.lists(rows_of, max_size=30), st.lists(users, max_size=3), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_mask_and_reasons_equal_the_naive_evaluation(
    rows: list[Row], requests: list[User], now_ms: int
) -> None:
    """For any catalog, users and times the bitmap holds exactly the ads without a reason."""
    eligibility = compiled(rows)
    everything = np.arange(len(rows))
    for user in requests:
        for at in (now_ms, now_ms + 7, now_ms):
            expected = [naive_reason(row, user, at) for row in rows]
            mask = eligibility.mask(user, at)
            assert among(mask, everything).tolist() == [reason is None for reason in expected]
            assert eligibility.reasons(everything, mask, at) == expected
            assert eligibility.reasons_of(user, everything, at) == expected
            mask[:] = 0  # it is the caller's, and no later answer may see what became of it


def test_a_large_catalog_gives_the_reasons_that_a_small_one_gives() -> None:
    """Where answers are not kept because rows are many, they are the same."""
    some = [Row(), Row(state=1), Row(campaign=2), Row(start=20), Row(targeting=ONLY_US)]
    rows = np.arange(len(some))
    large = compiled(some * 4_000)
    for user in ({"geo": "us"}, {"geo": "ca"}):
        expected = [naive_reason(row, user, 5) for row in some]
        assert large.reasons_of(user, rows, 5) == expected
        assert compiled(some).reasons_of(user, rows, 5) == expected


def test_values_of_two_features_are_not_taken_for_two_of_one() -> None:
    """Kept answers tell users apart whose values have the same numbers in other features."""
    clauses = [("user.geo", "us"), ("user.geo", "ca"), ("user.hour", "5"), ("user.hour", "6")]
    rows = [Row(targeting=Targeting(all=(Clause(name, (text,)),))) for name, text in clauses]
    eligibility = compiled(rows)
    both: User = {"geo": ["us", "ca"]}
    one_each: User = {"geo": "us", "hour": 6}
    for user, expected in (
        (both, [True, True, False, False]),
        (one_each, [True, False, False, True]),
    ):
        assert among(eligibility.mask(user, 0), np.arange(4)).tolist() == expected


edges_of = st.integers(0, 60)
flights = st.builds(
    Row,
    state=st.sampled_from([0, 0, 0, 1]),
    start=st.one_of(st.just(ALWAYS_MS), edges_of),
    end=st.one_of(st.just(NEVER_MS), edges_of),
)


@given(st.lists(flights, max_size=30), st.lists(st.integers(-5, 65), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_flights_that_start_and_end_one_by_one_are_as_looked_at_anew(
    rows: list[Row], times: list[int]
) -> None:
    """Through many edges, few of them known ahead, forward and back in time."""
    everything = np.arange(len(rows))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(flights_module, "_AHEAD", 3)
        eligibility = compiled(rows)
        for at in (*times, *sorted(times)):
            expected = [naive_reason(row, {}, at) for row in rows]
            mask = eligibility.mask({}, at)
            assert among(mask, everything).tolist() == [reason is None for reason in expected]
            assert eligibility.reasons(everything, mask, at) == expected
            found = eligibility._open[0]
            assert found.start_ms <= at < found.end_ms


def test_a_flight_that_ends_does_not_make_the_others_be_looked_at() -> None:
    """The whole catalog is looked at once for thousands of starts and ends."""
    rows = [Row(start=at, end=at + 7) for at in range(3_000)] + [Row()] * 20_000
    eligibility = compiled(rows)
    with pytest.MonkeyPatch.context() as patched:
        for at in range(1_000):
            eligibility.mask({}, at)
            # From here on nobody may look for edges again.
            patched.setattr(eligibility_module, "edges_after", None)
    assert eligibility.reasons_of({}, np.array([993, 992, 999, 1000, 3000]), 999) == [
        *(None, "ended", None, "not_started", None)
    ]


def test_a_schedule_and_flights_change_at_their_own_times() -> None:
    """While a schedule is shut flights go on to start and end."""
    hour = 3_600_000
    morning = Schedule("UTC", (Hours(DAYS, 6 * 60, 12 * 60),))
    marks = np.array([mark(morning), 0, mark(morning), 0], np.int64)
    rows = [Row(start=5 * hour, end=7 * hour), Row(end=5 * hour), Row(), Row(start=13 * hour)]
    eligibility = replace(
        compiled(rows), schedule_marks=marks, schedules={mark(morning): timetable(morning)}
    )
    for at, expected in (
        (4, [False, True, False, False]),
        (5, [False, False, False, False]),
        (6, [True, False, True, False]),
        (8, [False, False, True, False]),
        (12, [False, False, False, False]),
        (14, [False, False, False, True]),
        (30, [False, False, True, True]),
    ):
        assert among(eligibility.mask({}, at * hour), np.arange(4)).tolist() == expected, at


def test_what_one_version_was_asked_for_is_ready_in_the_next() -> None:
    """A warm catalog has its open rows before the first request, and for the same time."""
    before, after = compiled([Row(start=10, end=30)]), compiled([Row(start=10, end=30), Row()])
    before.mask({}, 20)
    after.warm_as(before)
    assert [(found.start_ms, found.end_ms) for found in after._open] == [(10, 30)]


@given(
    st.lists(targetings, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 14), targetings), max_size=5),
    users,
)
@settings(max_examples=150, deadline=None)
def test_replaced_and_reordered_targeting_is_as_compiled_anew(
    before: list[Targeting], changes: list[tuple[int, Targeting]], user: User
) -> None:
    """Changing some rows' targeting and moving rows gives what compiling from scratch gives."""
    after = before + [Targeting()] * 3
    new = {min(row, len(before) + 2): targeting for row, targeting in changes}
    for row, targeting in new.items():
        after[row] = targeting
    targets = Targets.of(before)
    for row in new:
        targets = targets.replaced(max(targets.size, row + 1), np.array([row]), [after[row]])
    rest = np.arange(len(before), len(after))
    targets = targets.replaced(len(after), rest, [after[row] for row in rest.tolist()])
    order = np.random.default_rng(len(changes)).permutation(len(after))
    order[0] = -1
    moved: list[Targeting] = [Targeting()] * len(after)
    for old, place in enumerate(order.tolist()):
        if place >= 0:
            moved[place] = after[old]
    for some, listed in ((targets, after), (targets.reordered(len(after), order), moved)):
        mask = compiled([Row(targeting=item) for item in listed], some).mask(user, 0)
        expected = [targeted(item, user) for item in listed]
        assert among(mask, np.arange(len(listed))).tolist() == expected


def test_an_excluded_row_leaves_the_mask_and_says_so() -> None:
    """An exclusion clears the row's bit alone, and is the reason given."""
    eligibility = compiled([Row(), Row(), Row(state=1)])
    mask = eligibility.mask({}, 0, {1, 2})
    assert among(mask, np.arange(3)).tolist() == [True, False, False]
    assert eligibility.reasons(np.arange(3), mask, 0, {1, 2}) == [None, "excluded", "paused"]
    assert eligibility.reason(1, {}, 0, {1}) == "excluded"
    assert eligibility.reason(1, {}, 0) is None


def test_a_mask_belongs_to_its_caller() -> None:
    """Writing into a returned mask does not change the next answer."""
    eligibility = compiled([Row(), Row()])
    eligibility.mask({}, 0)[:] = 0
    assert among(eligibility.mask({}, 0), np.arange(2)).all()


def test_true_and_one_are_different_values() -> None:
    """JSON true is the text "true": it does not meet a clause that lists 1, nor share its cache."""
    clause = Clause("user.flag", ("1",))
    eligibility = compiled([Row(targeting=Targeting(all=(clause,)))])
    assert among(eligibility.mask({"flag": 1}, 0), np.arange(1)).all()
    assert not among(eligibility.mask({"flag": True}, 0), np.arange(1)).any()
    assert among(eligibility.mask({"flag": 1.0}, 0), np.arange(1)).all()


def test_many_distinct_values_keep_the_cache_bounded() -> None:
    """A stream of ever new values does not grow memory without end."""
    draft = Draft()
    for value in range(70):
        draft.add(value, Clause("user.id", (str(value),)), [str(value)])
    met = Met(1_000_000, draft.rules())
    for value in range(80):
        met.of((str(value),))
    assert 0 < len(met._cache) <= 64


def test_many_changed_rows_are_compiled_into_one_layer() -> None:
    """After more changes than the small layer takes, the answers are still the same."""
    before = [Targeting(all=(Clause("user.geo", ("us",)),))] * 3000
    after = [Targeting(none=(Clause("user.geo", ("us",)),))] * 2500 + before[:500]
    targets = Targets.of(before).replaced(3000, np.arange(2500), after[:2500])
    for geo in ("us", "ca"):
        mask = compiled([Row(targeting=item) for item in after], targets).mask({"geo": geo}, 0)
        expected = [targeted(item, {"geo": geo}) for item in after]
        assert among(mask, np.arange(3000)).tolist() == expected


def test_two_clauses_on_one_feature_may_be_met_by_two_values() -> None:
    """Every clause of `all` must be met, each by any value of a multi-valued feature."""
    both = Targeting(all=(Clause("user.likes", ("a", "b")), Clause("user.likes", ("b", "c"))))
    eligibility = compiled([Row(targeting=both)])
    for likes, expected in ((["a", "c"], True), (["b"], True), (["a"], False), (["c", "x"], False)):
        assert among(eligibility.mask({"likes": likes}, 0), np.arange(1)).tolist() == [expected]


def test_the_ends_of_ranges_are_inside_them() -> None:
    """Numbers at, between and beyond the bounds of several ranges, open ends included."""
    ranges = [(1.0, 3.0), (3.0, 5.0), (None, 3.0), (3.0, None), (3.0, 3.0)]
    rows = [
        Row(targeting=Targeting(all=(Clause("user.x", minimum=low, maximum=high),)))
        for low, high in ranges
    ]
    eligibility = compiled(rows)
    for value in (0, 1, 2, 3, 4, 5, 6):
        found = among(eligibility.mask({"x": value}, 0), np.arange(5)).tolist()
        assert found == [
            (low is None or low <= value) and (high is None or value <= high)
            for low, high in ranges
        ]
