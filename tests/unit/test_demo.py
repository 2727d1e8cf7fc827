"""The demo's own bookkeeping: what counts as a broken promise, and a view that fits."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jobs.demo.acts import Findings
from jobs.demo.ledger import Ledger, latency_ms, means
from jobs.demo.messages import Answer, Gain, Tick
from jobs.demo.process_age import age_s
from jobs.demo.stage import Models, Story
from jobs.demo.summary import Promise, Seen, promises
from jobs.demo.truth import Judge
from jobs.demo.view import View
from jobs.demo.world import demo_market

LOW, HIGH = Gain(0.05, 20e6), Gain(0.10, 40e6)


def answer(sent_s: float, ads: list[int], snapshot: str = "a", strays: int = 0) -> Answer:
    """A decision that earned something between chance and the oracle."""
    middle = Gain(0.08, 30e6)
    return Answer(sent_s, 2.0, snapshot, True, ads, [1] * strays, middle, LOW, LOW, HIGH)


def tick(*answers: Answer, faults: tuple[str, ...] = ()) -> Tick:
    """What the visitors' process would send."""
    return Tick(list(answers), len(answers), list(faults), len(answers), 0)


def seen(
    ledger: Ledger, findings: Findings, *, was_interrupted: bool = False, by_hand: int = 0
) -> Seen:
    """A run that ended."""
    return Seen(1, 45.0, 5.0, was_interrupted, ledger, Models(), findings, 3, 0.9, by_hand)


def kept(found: list[Promise], start: str) -> bool | None:
    """What became of the promise whose text starts so."""
    return next(one.kept for one in found if one.promise.startswith(start))


def test_a_ban_holds_only_for_decisions_sent_within_it() -> None:
    """Decisions sent before the confirmation, or after the return was asked for, are free."""
    ledger = Ledger()
    ban = ledger.ban(7, "paused", since_s=10.0)
    ban.until_s = 20.0
    ledger.add(tick(answer(9.9, [7]), answer(10.1, [8]), answer(19.9, [8]), answer(20.1, [7])))
    assert (ban.checked, ban.broken) == (2, 0)


def test_a_banned_ad_that_is_shown_breaks_the_promise() -> None:
    """One decision is enough."""
    ledger, findings = Ledger(), Findings()
    findings.paused = ledger.ban(7, "paused", since_s=10.0)
    ledger.add(tick(answer(11.0, [3, 7])))
    assert kept(promises(seen(ledger, findings)), "A paused ad") is False


def test_a_hold_counts_decisions_of_other_snapshots() -> None:
    """After a rollback only its target may decide."""
    ledger, findings = Ledger(), Findings()
    findings.rolled_back = ledger.hold("a", since_s=10.0)
    ledger.add(tick(answer(9.0, [1], "b"), answer(11.0, [1], "a")))
    assert kept(promises(seen(ledger, findings)), "A rollback") is True
    ledger.add(tick(answer(12.0, [1], "b")))
    assert kept(promises(seen(ledger, findings)), "A rollback") is False


def test_what_people_promote_breaks_no_promise() -> None:
    """A rollback that someone undid by hand is not judged; one that held is kept all the same."""
    ledger, findings = Ledger(), Findings()
    findings.rolled_back = ledger.hold("a", since_s=10.0)
    ledger.add(tick(answer(11.0, [1], "a")))
    assert kept(promises(seen(ledger, findings, by_hand=1)), "A rollback") is True
    ledger.add(tick(answer(12.0, [1], "b")))
    found = promises(seen(ledger, findings, by_hand=1))
    assert kept(found, "A rollback") is None
    assert "changed by hand" in next(o.seen for o in found if o.promise.startswith("A rollback"))


def test_a_failed_request_and_a_stray_ad_break_their_promises() -> None:
    """Nothing is rounded away."""
    ledger = Ledger()
    ledger.add(tick(answer(1.0, [1], strays=1), faults=("POST /v1/events: 503",)))
    found = promises(seen(ledger, Findings()))
    assert kept(found, "Every request") is False
    assert kept(found, "Ads are shown only") is False


@pytest.mark.parametrize(("was_interrupted", "expected"), [(True, None), (False, False)])
def test_an_act_left_out_counts_only_in_a_full_run(
    was_interrupted: bool, expected: bool | None
) -> None:
    """Ending the demo early breaks nothing; a full run must show everything."""
    ledger = Ledger()
    ledger.add(tick(answer(1.0, [1])))
    found = promises(seen(ledger, Findings(), was_interrupted=was_interrupted))
    assert kept(found, "A retired ad") is expected
    assert kept(found, "An absurd training run") is expected


def test_a_refused_snapshot_that_decides_breaks_the_promise() -> None:
    """Even if its run was reported as refused."""
    ledger = Ledger()
    ledger.add(tick(answer(1.0, [1], "bad")))
    findings = Findings(absurd_refused=True, absurd_snapshot="bad")
    assert kept(promises(seen(ledger, findings)), "An absurd training run") is False


def test_nothing_seen_gives_zeros() -> None:
    """Means and percentiles of no decisions are numbers."""
    assert latency_ms([], 99) == 0.0
    assert means([]).share == 0.0


def test_the_oracle_is_not_beaten() -> None:
    """For any visitor the best of the eligible ads earns at least what the others do."""
    market = demo_market(1, 1_767_571_200_000)
    judge, now_ms = Judge(market), market.shape.start_ms
    visitors = market.visitors(np.random.default_rng(1), 50)
    for row in range(50):
        visitor = visitors.take(np.array([row]))
        offered = judge.eligible(visitor, now_ms)
        chosen, average, unlearned, oracle = judge.weigh(
            visitor, offered[:6].tolist(), offered, now_ms
        )
        assert oracle.micros >= max(chosen.micros, average.micros, unlearned.micros)


def test_an_inactive_ad_is_nobodys_choice() -> None:
    """The oracle may not choose what the server may not."""
    market = demo_market(1, 1_767_571_200_000)
    judge, now_ms = Judge(market), market.shape.start_ms
    visitor = market.visitor(np.random.default_rng(1))
    first = int(judge.eligible(visitor, now_ms)[0])
    judge.set_inactive([first])
    assert first not in judge.eligible(visitor, now_ms)
    judge.set_inactive([])
    assert first in judge.eligible(visitor, now_ms)


def _models(count: int) -> Models:
    def item(number: int) -> dict[str, Any]:
        metrics = {"events": 1_900.0, "clicks": 90.0, "log_loss": 0.2, "largest_ratio": 0.5}
        verdict = {"result": "refused" if number % 3 else "accepted", "reasons": ["far " * 40]}
        found = {"id": f"{number:032x}", "parent_id": "0", "metrics": metrics, "verdict": verdict}
        return found

    return Models({str(number): item(number) for number in range(count)})


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize("count", [0, 40])
def test_the_view_fits_the_terminal(width: int, height: int, count: int) -> None:
    """Every panel is whole, however much there is to tell."""
    ledger, story = Ledger(), Story(time.monotonic())
    now_s = time.monotonic()
    ledger.add(tick(*(answer(now_s - n / 10, [n]) for n in range(10 * count))))
    for _ in range(count):
        story.tell("A long line of the story that has to be wrapped. " * 4)
    console = Console(width=width, height=height, force_terminal=True)
    view = View(1, 90.0, ledger, _models(count), story)
    lines = console.render_lines(view, console.options.update(width=width))
    assert len(lines) <= height
    assert all(sum(part.cell_length for part in line) <= width for line in lines)
    assert "╰" in "".join(part.text for part in lines[-1])


def test_a_process_knows_its_age() -> None:
    """It grows with the clock."""
    before = age_s()
    time.sleep(0.05)
    assert 0.03 <= age_s() - before < 5.0
