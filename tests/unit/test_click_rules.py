"""Clicks that come too often break a rule; everything else passes."""

from __future__ import annotations

from uuid import UUID

from app.serving.click_rules import ClickRules, Limits
from models.types import Event, EventType

LIMITS = Limits(window_s=60.0, token=2, address=4, share=0.5, least=6)


def event(kind: EventType = "click", decision: int = 1, ad_id: int = 7) -> Event:
    return Event(kind, 0, UUID(int=decision), 0, ad_id, UUID(int=0), 1, 0, 1.0, "", b"")


def judged(rules: ClickRules, count: int, *, address: str | None = None, ad_id: int = 7) -> list:
    """What a rule says of clicks on as many tokens of one ad."""
    return [rules.judge(event(decision=n, ad_id=ad_id), address, 1.0) for n in range(count)]


def test_repeated_clicks_of_one_token_break_its_rule() -> None:
    """Two are taken for a double click, the third is not."""
    rules = ClickRules(LIMITS)
    assert [rules.judge(event(), None, 1.0) for _ in range(4)] == [None, None, "token", "token"]


def test_many_clicks_of_one_address_break_its_rule() -> None:
    """Another address is judged for itself; events without one are not judged by it."""
    rules = ClickRules(LIMITS)
    assert judged(rules, 5, address="192.0.2.1")[-1] == "address"
    assert rules.judge(event(decision=9, ad_id=8), "192.0.2.2", 1.0) is None


def test_more_clicks_than_an_ad_was_shown_for_break_its_rule() -> None:
    """Seven clicks without impressions are too many, with twenty they are not."""
    assert judged(ClickRules(LIMITS), 7)[-1] == "ad"
    shown = ClickRules(LIMITS)
    for number in range(20):
        assert shown.judge(event("impression", decision=number), None, 1.0) is None
    assert judged(shown, 7) == [None] * 7


def test_impressions_of_the_window_before_count_for_an_ad() -> None:
    """A click comes after its impression, often in the next window."""
    rules = ClickRules(LIMITS)
    for number in range(20):
        rules.judge(event("impression", decision=number), None, 1.0)
    clicks = [rules.judge(event(decision=n), None, 62.0) for n in range(7)]
    assert clicks == [None] * 7


def test_counts_start_again_with_a_window() -> None:
    """What was too often in one minute is not held against the next."""
    rules = ClickRules(LIMITS)
    assert [rules.judge(event(), None, 1.0) for _ in range(3)][-1] == "token"
    assert rules.judge(event(), None, 61.5) is None


def test_only_clicks_are_judged() -> None:
    """Impressions, conversions and closes never break a rule."""
    rules = ClickRules(LIMITS)
    for kind in ("impression", "conversion", "close"):
        assert [rules.judge(event(kind), "192.0.2.1", 1.0) for _ in range(50)] == [None] * 50


def test_no_address_is_kept() -> None:
    """What is counted by address is a hash under a salt that differs between workers and days."""
    first, second = ClickRules(LIMITS), ClickRules(LIMITS)
    kept = []
    for rules, now_s in ((first, 1.0), (second, 1.0), (first, 86_500.0)):
        rules.judge(event(), "192.0.2.1", now_s)
        kept += list(rules._window.clicks["address"])
    assert len(set(kept)) == 3
    assert all(isinstance(key, bytes) and b"192" not in key for key in kept)


def test_what_could_not_be_stored_is_forgotten() -> None:
    """A sender that repeats a click until the database is back breaks no rule by it."""
    rules, click, shown = ClickRules(LIMITS), event(), event("impression")
    for _ in range(9):
        for one in (click, shown):
            assert rules.judge(one, "192.0.2.1", 1.0) is None
            rules.take_back(one, "192.0.2.1", 1.0)
    assert [rules.judge(click, "192.0.2.1", 1.0) for _ in range(3)] == [None, None, "token"]
    rules.take_back(click, "192.0.2.1", 61.0)  # of a window that has ended: nothing to forget
