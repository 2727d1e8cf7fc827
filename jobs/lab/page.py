"""The lab's report as one self-contained HTML page: our own SVG, no script, no outside asset."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from jobs.lab.methods import ABOUT, Name
from jobs.lab.report import Cell, LabReport, Total, Traced
from jobs.lab.table import estimate
from jobs.pages.axes import numbered
from jobs.pages.charts import Line, chart
from jobs.pages.markup import document, row, section, table

_COLOURS: Final[dict[str, str]] = {
    "none": "grey",
    "decay": "orange",
    "clipping": "teal",
    "projection": "violet",
    "chunk_projection": "magenta",
    "dual": "gold",
    "augmented": "blue",
}
_NAMES: Final[dict[str, str]] = {str(name): text for name, text in ABOUT.items()}
_PLAIN: Final[tuple[Name, ...]] = ("none", "decay", "clipping")


def page(report: LabReport) -> str:
    """The whole HTML page."""
    step = hardest(report)
    sections = (
        _goals(report),
        _by_radius(report, step),
        *(_divergence(report, one) for one in _steps(report)),
        _norms(report, step),
        _scores(report, step),
        _duals(report, step),
        *(_totals(report, one) for one in _steps(report)),
        _causes(report),
    )
    return document("Divergence lab", _summary(report), sections)


def hardest(report: LabReport) -> str:
    """The step rule under which most runs without constraint diverge: what the charts show."""
    counts = dict.fromkeys(_steps(report), 0)
    for total in report.totals:
        if total.method == "none" and not total.variant and total.step in counts:
            counts[total.step] += total.diverged
    return max(counts, key=lambda step: counts[step])


def _steps(report: LabReport) -> list[str]:
    """The step rules that every method was run under."""
    return list(dict.fromkeys(cell.step for cell in report.cells if cell.method == "projection"))


def _summary(report: LabReport) -> str:
    runs = sum(cell.runs for cell in report.cells)
    return (
        f"{runs:,} training runs on the seeded market, whose click probabilities are known: "
        f"{len(report.causes)} regimes, {len(report.seeds)} seeds, every method with one setting "
        f"for all of them, tuned on other seeds. {report.seconds:,.0f} s on "
        f"{report.machine.cores} cores."
    )


def _goals(report: LabReport) -> str:
    rows = [
        f"<tr><td>{goal.step}</td><td class=text>{goal.asked}<small>{escape(goal.found)}</small>"
        f"</td><td class={'good' if goal.met else 'bad'}>{'met' if goal.met else 'not met'}"
        "</td></tr>"
        for goal in report.goals
    ]
    note = "What augmented dual ascent was asked to do, under each step rule."
    return section("The goal", note, table((), rows))


def _by_radius(report: LabReport, step: str) -> str:
    kept = [total for total in report.totals if total.step == step and not total.variant]
    lines = [
        Line(_COLOURS[name], _NAMES[name], _along(kept, name, report.radii), name in _PLAIN)
        for name in _COLOURS
        if any(total.method == name for total in kept)
    ]
    drawn = chart(
        range(len(report.radii)),
        lines,
        [(place, f"{radius:g}") for place, radius in enumerate(report.radii)],
        below="radius over the product's",
        is_log=True,
        within=(0.0, 8 * min(value for line in lines for value in line.values if value)),
    )
    note = (
        f"Mean regret × 1000 over the regimes of the goal, {step} step; lower is better. Dashed: "
        "methods without a radius. Lines at the upper edge go on above it."
    )
    return section("Regret by radius", note, drawn)


def _along(totals: Sequence[Total], method: str, radii: Sequence[float]) -> list[float | None]:
    found = {total.radius: 1000 * total.regret.mean for total in totals if total.method == method}
    if method in _PLAIN:
        return [found[1.0]] * len(radii)
    return [found.get(radius) for radius in radii]


def _divergence(report: LabReport, step: str) -> str:
    kept = [cell for cell in report.cells if cell.step == step and not cell.variant]
    methods = [name for name in _COLOURS if any(cell.method == name for cell in kept)]
    rows = [
        f"<tr><td>{_plain(cause)}{' *' if cause in report.aside else ''}</td>"
        f"{''.join(_share(kept, cause, name) for name in methods)}</tr>"
        for cause in report.causes
    ]
    note = (
        "Share of runs that diverged, all radii together. * is not part of the goal: the first two "
        "strike main effects and bias too, which no method here constrains; for a step without "
        "priors wide priors are the calm market."
    )
    drawn = table(("", *(_NAMES[name] for name in methods)), rows, "heat")
    return section(f"Diverging runs, {step} step", note, drawn)


def _share(cells: Sequence[Cell], cause: str, method: str) -> str:
    found = [cell for cell in cells if (cell.cause, cell.method) == (cause, method)]
    diverged, runs = sum(cell.diverged for cell in found), sum(cell.runs for cell in found)
    share = diverged / runs if runs else 0.0
    reasons = ", ".join(
        f"{sum(getattr(cell, name) for cell in found)} {text}"
        for name, text in (("finite", "not finite"), ("scores", "|s| > 20"), ("loss", "loss"))
    )
    return (
        f'<td style="--share:{100 * share:.0f}%" title="{diverged} of {runs}: {reasons}">'
        f"{f'{share:.0%}' if diverged else '·'}</td>"
    )


def _norms(report: LabReport, step: str) -> str:
    runs = _traced(report, step, "step_size")
    if not runs:
        return ""
    lines = [Line(_COLOURS[run.method], _NAMES[run.method], run.trace.norm) for run in runs]
    drawn = _over_chunks(runs[0], lines, is_log=True, mark=1.0)
    note = (
        f"Largest norm of a latent vector of the trainer's raw state over its radius, {step} step "
        "with steps too long, seed 1. The dashed level is the radius; the scale is logarithmic; a "
        "line ends where a value is no longer finite."
    )
    return section("Norms over time", note, drawn)


def _scores(report: LabReport, step: str) -> str:
    shown = ("none", "projection", "augmented")
    runs = [run for run in _traced(report, step, "step_size") if run.method in shown]
    if not runs:
        return ""
    lines = [
        Line(_COLOURS[run.method], name, values)
        for run in runs
        for name, values in ((_NAMES[run.method], run.trace.high), ("", run.trace.low))
    ]
    drawn = _over_chunks(runs[0], lines, within=(-25.0, 25.0))
    note = (
        "Between each pair of lines lie 99 % of the served scores s of the probe impressions, in "
        "the same runs. A model that diverges throws them apart, beyond the edges of the drawing."
    )
    return section("The score range over time", note, drawn)


def _duals(report: LabReport, step: str) -> str:
    runs = _traced(report, step, "returns")
    duals = [run for run in runs if run.method in ("dual", "augmented")]
    if not duals:
        return ""
    shaded, radius = _absent(duals[0].present), f"{duals[0].radius:g}"
    mu = [Line(_COLOURS[run.method], _NAMES[run.method], run.trace.dual) for run in duals]
    every = [run for run in runs if run.method in ("none", "dual", "augmented")]
    norm = [Line(_COLOURS[run.method], _NAMES[run.method], run.trace.length) for run in every]
    return section(
        "The dual of an ad that leaves and returns",
        f"μ of its creative's vector, {step} step, radius × {radius}; grey: the ad is not shown. "
        "What is not touched keeps its μ, so the ad resumes with its own.",
        _over_chunks(duals[0], mu, shaded=shaded),
    ) + section(
        "The norm of the same ad's vector",
        "Raw norm over its radius; the dashed level is the radius.",
        _over_chunks(duals[0], norm, mark=1.0, shaded=shaded),
    )


def _absent(present: Sequence[bool]) -> list[tuple[float, float]]:
    """The spans of chunks in which the ad was not shown, in the chunks' numbers from 1."""
    spans: list[tuple[float, float]] = []
    for number, shown in enumerate(present, start=1):
        if shown:
            continue
        if spans and spans[-1][1] == number - 0.5:
            spans[-1] = (spans[-1][0], number + 0.5)
        else:
            spans.append((number - 0.5, number + 0.5))
    return [(max(low, 1.0), min(high, float(len(present)))) for low, high in spans]


def _totals(report: LabReport, step: str) -> str:
    kept = [total for total in report.totals if total.step == step]
    heads = (
        "method",
        "radius",
        "diverged",
        "regret × 1000",
        "largest norm",
        "range used",
        "returning ads",
    )
    note = (
        "Means over the regimes of the goal, ± standard error over seeds. Largest norm: of the raw "
        "state, over its radius. Range used: width of 99 % of the probes' scores over the "
        "certified width. Returning ads: Σ predicted / Σ market probability just after a return."
    )
    drawn = table(heads, [_total_row(total) for total in kept])
    return section(f"All figures, {step} step", note, drawn)


def _total_row(total: Total) -> str:
    name = _NAMES[total.method] + (f", {total.variant}" if total.variant else "")
    radius = "" if total.method in _PLAIN else "sweep"
    if total.radius is not None and radius:
        radius = f"{total.radius:g}"
    norm = "not finite" if total.norm_ratio is None else f"{total.norm_ratio:.3g}"
    cells = (
        name,
        radius,
        f"{total.diverged} of {total.runs}",
        estimate(total.regret, 1000, 2),
        norm,
        estimate(total.range_share, 1, 3),
        estimate(total.returning, 1, 3),
    )
    return row(cells, "strong" if total.radius is None else "")


def _causes(report: LabReport) -> str:
    rows = [
        f"<tr><td>{_plain(cause)}</td><td class=text>{escape(about)}</td></tr>"
        for cause, about in report.causes.items()
    ]
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    note = f"How strong each is, is drawn from the seed. {escape(settings)}."
    return section("The regimes", note, table((), rows))


def _traced(report: LabReport, step: str, cause: str) -> list[Traced]:
    return [run for run in report.traces if (run.step, run.cause) == (step, cause)]


def _over_chunks(run: Traced, lines: Sequence[Line], **options: Any) -> str:
    """A chart over the run's chunks, numbered from 1; `options`: those of `chart`."""
    chunks = range(1, len(run.present) + 1)
    return chart(chunks, lines, numbered(chunks), below="chunk", **options)


def _plain(name: str) -> str:
    return escape(name.replace("_", " "))
