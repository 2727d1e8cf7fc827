"""Targeting is read strictly and survives a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.targeting import parse_targeting, render_targeting
from models.types import Clause, Targeting

features = st.sampled_from(["user.geo", "user.hour", "user.age"])
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
values = st.lists(texts, min_size=1, max_size=4)
bounds = st.floats(-1e6, 1e6)
ranges = st.one_of(
    st.builds(lambda low: {"min": low}, bounds),
    st.builds(lambda high: {"max": high}, bounds),
    st.builds(lambda a, b: {"min": min(a, b), "max": max(a, b)}, bounds, bounds),
)
clauses = st.dictionaries(features, st.one_of(values, ranges), min_size=1, max_size=1)
objects = st.fixed_dictionaries(
    {}, optional={name: st.lists(clauses, max_size=3) for name in ("all", "any", "none")}
)


def test_the_documented_example_is_read() -> None:
    """Values, ranges and the three lists of the documented form arrive as clauses."""
    targeting = parse_targeting(
        {
            "all": [{"user.geo": ["us", "ca"]}, {"user.hour": {"min": 8, "max": 22}}],
            "any": [],
            "none": [{"user.age": ["<18"]}],
        }
    )
    assert targeting == Targeting(
        all=(
            Clause("user.geo", values=("us", "ca")),
            Clause("user.hour", minimum=8.0, maximum=22.0),
        ),
        none=(Clause("user.age", values=("<18",)),),
    )


@given(objects)
def test_rendering_and_parsing_give_the_same_targeting(given_object: dict[str, object]) -> None:
    """What was parsed once renders to JSON that parses to the same."""
    targeting = parse_targeting(given_object)
    assert parse_targeting(render_targeting(targeting)) == targeting


@pytest.mark.parametrize("nothing", [None, {}, {"all": []}, {"any": None}])
def test_nothing_targets_everybody(nothing: object) -> None:
    """An absent or empty targeting has no clause."""
    assert parse_targeting(nothing) == Targeting()


def test_numbers_and_their_text_are_one_value() -> None:
    """7, 7.0 and "7" are the same value of a categorical feature, as when they are encoded."""
    [clause] = parse_targeting({"all": [{"user.age": [7, 7.0, "7", True, 0.5]}]}).all
    assert clause.values == ("7", "true", "0.5")


@pytest.mark.parametrize(
    ("given_object", "field"),
    [
        ([], "targeting"),
        ({"every": []}, "targeting.every"),
        ({"all": {"user.geo": ["us"]}}, "targeting.all"),
        ({"all": [["user.geo", "us"]]}, "targeting.all[0]"),
        ({"all": [{"user.geo": ["us"], "user.age": ["7"]}]}, "targeting.all[0]"),
        ({"any": [{"user.geo": ["us"]}, {"ad.category": ["a"]}]}, "targeting.any[1].ad.category"),
        ({"all": [{"user.geo": "us"}]}, "targeting.all[0].user.geo"),
        ({"all": [{"user.geo": []}]}, "targeting.all[0].user.geo"),
        ({"all": [{"user.geo": ["us", None]}]}, "targeting.all[0].user.geo[1]"),
        ({"all": [{"user.geo": [""]}]}, "targeting.all[0].user.geo[0]"),
        ({"all": [{"user.hour": {}}]}, "targeting.all[0].user.hour"),
        ({"all": [{"user.hour": {"from": 8}}]}, "targeting.all[0].user.hour"),
        ({"all": [{"user.hour": {"min": 9, "max": 8}}]}, "targeting.all[0].user.hour"),
        ({"all": [{"user.hour": {"min": None, "max": None}}]}, "targeting.all[0].user.hour"),
        ({"all": [{"user.hour": {"min": True}}]}, "targeting.all[0].user.hour.min"),
        ({"all": [{"user.hour": {"max": float("nan")}}]}, "targeting.all[0].user.hour.max"),
        ({"all": [{"user.geo": ["us"]}] * 101}, "targeting.all"),
    ],
)
def test_a_mistake_is_named_by_its_place(given_object: object, field: str) -> None:
    """Each mistake raises InvalidInput with the path to it and a remedy."""
    with pytest.raises(InvalidInput) as caught:
        parse_targeting(given_object)
    assert caught.value.field == field
    assert caught.value.remedy
