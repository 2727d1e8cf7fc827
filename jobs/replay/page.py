"""A replay report as one self-contained HTML page: our own SVG, no script, no outside asset."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from jobs.pages.axes import dated
from jobs.pages.charts import Dot, Dots, Line, Mark, chart, dots, middle, strip
from jobs.pages.markup import document, figure, row, section, table
from jobs.replay.quality_table import Row, counts, difference, held, quality_table
from jobs.replay.report import Age, AgeGroup, BidGroup, Frozen, Quality, ReplayReport

_MODEL, _PLAIN = ("blue", "model"), ("orange", "main effects only")
_FROZEN_COLOURS = ("magenta", "gold")
_VERDICT_COLOURS = {"accepted": "good", "repaired": "warn", "refused": "bad"}
_TOLERATED = (0.97, 1.03)
_HOLDS = "✓: within 0.97–1.03 or within two standard errors of 1; ✗: neither."
_WHISKERS = (
    "The band is 0.97–1.03, whiskers are two standard errors. A dot outside of the band whose "
    "whisker misses 1 is off; by chance alone about one in twenty would be."
)
_AGES: dict[Age, tuple[str, str]] = {
    "first_100_impressions": ("first 100", "The ad's first 100 impressions"),
    "first_day": ("first day", "Then the rest of its first day"),
    "older": ("older", "Older"),
}


def page(report: ReplayReport) -> str:
    """The whole HTML page of a replay."""
    sections = (
        _totals(report),
        *_curves(report),
        *_by_age(report),
        _by_bid(report),
        *_frozen(report),
        _norms(report),
        _verdicts(report),
    )
    title = f"Replay of {report.log}, label {report.label}"
    return document(title, _summary(report), sections)


def _summary(report: ReplayReport) -> str:
    total = report.total
    return (
        f"{total.events:,} impressions with {total.clicks:,} positive labels from "
        f"{_minute(report.first_event)} to {_minute(report.last_event)}, in "
        f"{len(report.chunks):,} chunks of {escape(report.chunk)}. Each chunk was scored by the "
        f"model in service before it was learned. {total.events_per_second:,.0f} events/s."
    )


def _totals(report: ReplayReport) -> str:
    rows = (
        ("Model", report.total),
        ("Main effects only", report.baselines.main_effects),
        ("Running rate", report.baselines.running_rate),
    )
    told = difference(
        report.log_loss_minus_main_effects, report.log_loss_minus_main_effects_interval
    )
    note = (
        f"With 95 % bootstrap intervals. Calibration is Σ predicted / Σ observed. {_HOLDS} Log "
        f"loss of the model minus main effects only: {told}; below 0 the interactions help."
    )
    return section("All events", note, quality_table([("", rows)]))


def _curves(report: ReplayReport) -> tuple[str, str, str]:
    curves = report.curves
    times = [_seconds(time) for time in curves.time]
    window = f"Over a trailing window of {curves.window:,} events."
    loss = _over_time(
        times,
        (
            _ending("grey", "running rate", curves.log_loss_running_rate),
            _ending(*_PLAIN, curves.log_loss_main_effects),
            _ending(*_MODEL, curves.log_loss),
        ),
    )
    order = _over_time(
        times,
        (_ending(*_PLAIN, curves.auc_main_effects), _ending(*_MODEL, curves.auc)),
        mark=0.5,
    )
    fit = _over_time(times, (_ending(*_MODEL, curves.calibration),), mark=1.0)
    return (
        section("Log loss", f"{window} Lower is better.", loss),
        section("AUC", f"{window} 0.5 is chance, 1 is a perfect order.", order),
        section("Calibration", f"{window} Σ predicted / Σ observed; 1 is right.", fit),
    )


def _by_age(report: ReplayReport) -> tuple[str, str]:
    groups = report.by_age
    labels = [_AGES[group.age][0] for group in groups]
    order = dots(
        labels,
        (
            Dots(*_MODEL, [_auc(group.model) for group in groups]),
            Dots(*_PLAIN, [_auc(group.main_effects) for group in groups]),
        ),
        mark=0.5,
    )
    fit = dots(labels, (Dots(*_MODEL, [_fit(group.model) for group in groups]),), 1, _TOLERATED)
    rows = quality_table([_age_rows(group) for group in groups])
    return (
        section(
            "AUC by age of the ad",
            "How well new ads are ordered, against ads that the log has shown for longer. An age "
            "counts from the ad's first impression in this log. Dots with fewer than ten positive "
            "labels are left out.",
            order + rows,
        ),
        section(
            "Calibration by age of the ad",
            f"Whether clicks of new ads are predicted too high or too low. {_WHISKERS}",
            fit,
        ),
    )


def _age_rows(group: AgeGroup) -> tuple[str, tuple[Row, Row]]:
    told = difference(group.log_loss_minus_main_effects, group.log_loss_minus_main_effects_interval)
    heading = (
        f"{_AGES[group.age][1]}<small>{counts(group.model)}; log loss of the model minus main "
        f"effects only: {told}</small>"
    )
    return heading, (("Model", group.model), ("Main effects only", group.main_effects))


def _by_bid(report: ReplayReport) -> str:
    title = "Calibration by bid"
    if report.by_bid is None:
        return section(title, "The log has no column bid_micros, so this is left out.", "")
    if not report.by_bid:
        return section(title, "No event of the log has a bid, so this is left out.", "")
    groups = report.by_bid
    left = report.total.events - sum(group.model.events for group in groups)
    note = (
        "Whether ads with high bids are predicted too high, which would win them auctions that "
        "they should lose. Each dot is about a tenth of the impressions, lowest bids first (below "
        f"in units of the currency). {_WHISKERS}"
    )
    if left:
        note += f" {left:,} events without a bid are left out."
    labels = [str(i + 1) for i in range(len(groups))]
    drawn = dots(labels, (Dots(*_MODEL, [_fit(group.model) for group in groups]),), 1, _TOLERATED)
    heads = ("Bid", "Events", "Predicted", "Observed", "Calibration")
    rows = [_bid_row(i + 1, group) for i, group in enumerate(groups)]
    return section(title, note, drawn + table(heads, rows))


def _bid_row(number: int, group: BidGroup) -> str:
    low, high = _money(group.low_micros), _money(group.high_micros)
    bids = low if low == high else f"{low}–{high}"
    fit = group.model
    cells = (
        f"{number}<small>{bids}</small>",
        f"{fit.events:,}",
        f"{fit.predicted_clicks:,.1f}",
        f"{fit.clicks:,}",
        f"{figure(fit.calibration, 3)}{held(fit)}<small>± {2 * fit.calibration_error:.3f}</small>",
    )
    return row(cells)


def _frozen(report: ReplayReport) -> tuple[str, ...]:
    if not report.frozen:
        return ()
    curves = report.curves
    times = [_seconds(time) for time in curves.time]
    window = f"over a trailing window of {curves.window:,} events"
    kept = list(zip(_FROZEN_COLOURS, report.frozen, strict=False))[::-1]
    loss = [
        _ending(colour, _frozen_name(item), _minus(item.log_loss, curves.log_loss))
        for colour, item in kept
    ]
    order = [_ending(colour, _frozen_name(item), item.auc) for colour, item in kept]
    rows = quality_table([_frozen_rows(item) for item in report.frozen])
    return (
        section(
            "Frozen minus updated: log loss",
            "What updating is worth: the log loss of a model that was taken out of training part "
            f"of the way and left as it was, minus that of the one that goes on learning, {window}."
            " Above 0 updating helps.",
            _over_time(times, loss, mark=0.0) + rows,
        ),
        section(
            "Frozen and updated: AUC",
            f"How the order of ads ages in a model that no longer learns, {window}.",
            _over_time(times, (*order, _ending("blue", "updated", curves.auc))),
        ),
    )


def _minus(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    pairs = zip(ours, theirs, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def _frozen_name(item: Frozen) -> str:
    return f"frozen after {100 * item.share:.0f} %"


def _frozen_rows(item: Frozen) -> tuple[str, tuple[Row, Row]]:
    told = difference(item.log_loss_minus_updated, item.log_loss_minus_updated_interval)
    heading = (
        f"Frozen after {100 * item.share:.0f} % of the time<small>{counts(item.model)} from "
        f"{_minute(item.since)} on; log loss of the frozen minus the updated model: {told}</small>"
    )
    return heading, (("Frozen", item.model), ("Updated", item.updated))


def _norms(report: ReplayReport) -> str:
    times = [_seconds(chunk.start) for chunk in report.chunks]
    raw = [chunk.max_raw_norm_ratio for chunk in report.chunks]
    served = [chunk.max_norm_ratio for chunk in report.chunks]
    lines = (_ending("orange", "trainer's raw state", raw), _ending("blue", "served", served))
    drawn = _over_time(times, lines, mark=1.0)
    note = "Largest norm of a latent vector over its radius. What serves never exceeds 1."
    return section("Norms against their radii", note, drawn)


def _verdicts(report: ReplayReport) -> str:
    told = ", ".join(f"{count:,} {name}" for name, count in report.total.verdicts.items())
    marks = [
        Mark(
            _seconds(chunk.start),
            _VERDICT_COLOURS[chunk.verdict],
            "; ".join((f"{chunk.start} {chunk.verdict}", *chunk.reasons)),
        )
        for chunk in report.chunks
    ]
    drawn = strip(marks, [(colour, name) for name, colour in _VERDICT_COLOURS.items()])
    return section("The gate's verdicts", f"{told}. A refused chunk is skipped.", drawn)


def _ending(colour: str, name: str, values: Sequence[float | None]) -> Line:
    """A line whose name tells its last value too."""
    last = next((value for value in reversed(values) if value is not None), None)
    return Line(colour, f"{name} {figure(last, 3)}", values)


def _over_time(times: Sequence[float], lines: Sequence[Line], mark: float | None = None) -> str:
    return chart(times, lines, dated(times), within=middle(lines), mark=mark)


def _auc(quality: Quality) -> Dot:
    # A dot without its whisker would look certain: with few clicks there is none.
    reach = quality.intervals.auc
    return Dot(None if reach is None else quality.auc, reach)


def _fit(quality: Quality) -> Dot:
    if quality.calibration is None or quality.intervals.calibration is None:
        return Dot(None)
    reach = 2 * quality.calibration_error
    return Dot(quality.calibration, (quality.calibration - reach, quality.calibration + reach))


def _money(micros: int) -> str:
    """Units of the currency, with more decimals the smaller the bid."""
    digits = 2 if micros >= 100_000 else 4 if micros >= 1_000 else 6
    return f"{micros / 1_000_000:,.{digits}f}"


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _minute(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%d %b %Y %H:%M")
