"""The end of a run: which promises held, for a person and as a report."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from jobs.demo.acts import Findings
from jobs.demo.ledger import Ban, Ledger, Means, latency_ms, means
from jobs.demo.stage import Models

_TOLERANCE = 1e-5
_LAST = 1 / 3
_STATES = {True: "kept", False: "BROKEN", None: "not reached"}
_HOLDS = "A rollback holds on all workers, and stays"
_TAKE_OVER = "New snapshots take over while requests go on"
_CHANGED = "changed by hand: not judged"


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known when the run has ended.

    `norm_ratio`: largest norm over its radius in the files of the served snapshots; `promoted`: how
    many trained snapshots were served; `first_answer_s`: from the command to the first answer;
    `by_hand`: how often a person has changed which snapshot answers.
    """

    seed: int
    seconds: float
    first_answer_s: float
    was_interrupted: bool
    ledger: Ledger
    models: Models
    findings: Findings
    promoted: int
    norm_ratio: float
    by_hand: int = 0


class Promise(msgspec.Struct, frozen=True):
    """What was promised, what was seen; `kept` is None for what was not reached or not judged."""

    promise: str
    seen: str
    kept: bool | None


def promises(seen: Seen) -> list[Promise]:
    """All promises of the demo, held against what was seen."""
    ledger, findings = seen.ledger, seen.findings
    found = [
        Promise(
            "Every request is answered",
            f"{ledger.failed} of {ledger.requests:,} failed",
            ledger.failed == 0 and ledger.requests > 0,
        ),
        _banned("A paused ad is not shown once its pause is confirmed", findings.paused),
        Promise("It comes back when it is activated", _said(findings.returned), findings.returned),
        _banned("A retired ad is never shown again", findings.retired),
        Promise(
            "Ads are shown only to visitors they target",
            f"{ledger.strays} of {sum(len(one.ads) for one in ledger.answers):,} went astray",
            ledger.strays == 0,
        ),
        Promise(
            "Every choice is certified to be the best by the model",
            f"{ledger.uncertified} of {len(ledger.answers):,} were not",
            ledger.uncertified == 0,
        ),
        *_of_models(seen),
        *_of_learning(last_part(ledger), seen.was_interrupted),
        _rollback(findings),
        Promise(
            "Every process runs to the end",
            findings.ended or "all of them did",
            findings.ended is None,
        ),
    ]
    if not seen.was_interrupted:
        found = [_unshown_is_broken(promise) for promise in found]
    return [_not_judged(promise) if _is_of_people(promise, seen) else promise for promise in found]


def _is_of_people(promise: Promise, seen: Seen) -> bool:
    """Whoever promotes, pins or rolls back by hand decides what serves from then on."""
    return seen.by_hand > 0 and promise.promise in (_HOLDS, _TAKE_OVER) and promise.kept is False


def _not_judged(promise: Promise) -> Promise:
    return Promise(promise.promise, _CHANGED, None)


def _banned(text: str, ban: Ban | None) -> Promise:
    if ban is None or not ban.checked:
        return Promise(text, "not reached", None if ban is None else False)
    return Promise(text, f"shown in {ban.broken} of {ban.checked:,} decisions", ban.broken == 0)


def _said(answer: bool | None) -> str:
    return {True: "eligible again", False: "still not eligible", None: "not reached"}[answer]


def _of_models(seen: Seen) -> list[Promise]:
    findings, served = seen.findings, seen.ledger.snapshots
    refused = {str(one["id"]) for one in seen.models.refused}
    if findings.absurd_snapshot is not None:
        refused.add(findings.absurd_snapshot)
    wrong = sum(served[one] for one in refused)
    states = {True: "refused", False: "let through", None: "not reached"}
    absurd = findings.absurd_refused
    return [
        Promise(
            "An absurd training run is refused and never serves",
            f"{states[absurd]}; {wrong} decisions were made with a refused snapshot",
            None if absurd is None and not wrong else absurd is True and wrong == 0,
        ),
        Promise(
            "Every vector that serves is inside its radius",
            f"largest norm {seen.norm_ratio:.4f} of its radius, in {len(served)} snapshots",
            seen.norm_ratio <= 1 + _TOLERANCE,
        ),
        Promise(
            _TAKE_OVER,
            f"{seen.promoted} promoted, {len(seen.models.refused)} refused",
            seen.promoted > 0 or (None if seen.was_interrupted else False),
        ),
    ]


def last_part(ledger: Ledger) -> Means:
    """The gains of the last third of the decisions: what has been learned by the end."""
    return means(ledger.answers[-max(int(len(ledger.answers) * _LAST), 1) :])


def _of_learning(end: Means, was_interrupted: bool) -> list[Promise]:
    """Whoever ends the demo early has not given it the time to learn."""
    not_yet = None if was_interrupted else False
    ctr, micros = end.ctr, {rule: value / 1e6 for rule, value in end.micros.items()}
    return [
        Promise(
            "In the last third, more clicks than by random choice",
            f"{ctr['chosen']:.2%} against {ctr['random']:.2%} (oracle {ctr['oracle']:.2%})",
            ctr["chosen"] > ctr["random"] or not_yet,
        ),
        Promise(
            "… and more revenue, per 1000 ads",
            f"{micros['chosen']:.1f} against {micros['random']:.1f} (oracle"
            f" {micros['oracle']:.1f}, highest bid {micros['unlearned']:.1f})",
            micros["chosen"] > micros["random"] or not_yet,
        ),
    ]


def _rollback(findings: Findings) -> Promise:
    text, hold = _HOLDS, findings.rolled_back
    if hold is None or not hold.checked:
        return Promise(text, "not reached", None if hold is None else False)
    seen = f"{hold.broken} of {hold.checked:,} decisions used another snapshot"
    return Promise(text, seen, hold.broken == 0)


def _unshown_is_broken(promise: Promise) -> Promise:
    return Promise(promise.promise, promise.seen, bool(promise.kept))


def print_summary(console: Console, seen: Seen, found: Sequence[Promise]) -> None:
    """What a person wants to know at the end."""
    table = Table("promise", "what was seen", "", title="What the demo promised", expand=False)
    for one in found:
        style = {True: "green", False: "bold red", None: "yellow"}[one.kept]
        table.add_row(one.promise, one.seen, f"[{style}]{_state(one)}[/]")
    console.print(table)
    for fault in (*seen.ledger.faults, *seen.findings.faults):
        console.print(f"fault: {fault}", style="red", markup=False, highlight=False)
    answers = seen.ledger.answers
    console.print(
        f"{seen.ledger.requests:,} requests in {seen.seconds:.0f} s; decisions p50"
        f" {latency_ms(answers, 50):.1f} ms, p99 {latency_ms(answers, 99):.1f} ms; first answer"
        f" {seen.first_answer_s:.1f} s after the command; {seen.ledger.impressions:,} impressions,"
        f" {seen.ledger.clicks:,} clicks.",
        highlight=False,
    )


def _state(one: Promise) -> str:
    return "–" if one.seen == _CHANGED else _STATES[one.kept]


def report_of(seen: Seen, found: Sequence[Promise]) -> dict[str, Any]:
    """The report, see `schemas/demo.schema.json`."""
    ledger, whole, end = seen.ledger, means(seen.ledger.answers), last_part(seen.ledger)
    ratios = [one["metrics"].get("largest_raw_ratio") for one in seen.models.trained]
    bans = (seen.findings.paused, seen.findings.retired)
    return {
        "kind": "demo",
        "format": 1,
        "seed": seen.seed,
        "seconds": round(seen.seconds, 2),
        "requests": ledger.requests,
        "failed_requests": ledger.failed,
        "p50_ms": round(latency_ms(ledger.answers, 50), 3),
        "p99_ms": round(latency_ms(ledger.answers, 99), 3),
        "ctr": whole.ctr["chosen"],
        "ctr_random": whole.ctr["random"],
        "ctr_oracle": whole.ctr["oracle"],
        **_revenues(whole),
        "ctr_end": end.ctr["chosen"],
        "ctr_random_end": end.ctr["random"],
        "ctr_oracle_end": end.ctr["oracle"],
        **_revenues(end, "_end"),
        "snapshots_promoted": seen.promoted,
        "snapshots_refused": len(seen.models.refused),
        "max_norm_ratio": seen.norm_ratio,
        "max_raw_norm_ratio": max((ratio for ratio in ratios if ratio is not None), default=0.0),
        "paused_ad_served_after_ack": bans[0].broken if bans[0] else 0,
        "retired_ad_served_after_ack": bans[1].broken if bans[1] else 0,
        "seconds_to_first_answer": round(seen.first_answer_s, 2),
        "decisions": len(ledger.answers),
        "impressions": ledger.impressions,
        "clicks": ledger.clicks,
        "machine": machine(),
        "promises": msgspec.to_builtins(list(found)),
    }


def _revenues(found: Means, suffix: str = "") -> dict[str, float]:
    rules = {"chosen": "", "random": "_random", "oracle": "_oracle", "unlearned": "_highest_bid"}
    return {
        f"revenue_per_thousand{name}{suffix}": found.micros[rule] / 1e6
        for rule, name in rules.items()
    }


def machine() -> dict[str, Any]:
    """What the run ran on."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
    }
