"""The live view of a run, for any terminal from 80 columns and 24 lines on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobs.demo.ledger import Ledger, latency_ms, means
from jobs.demo.stage import Line, Models, Story

WINDOW_S = 10.0
_RECENT_S = 5.0
_GAINS = "Is it learning? Click rate and revenue of 1000 ads, by the true odds"
_OTHER_COLUMNS = 49
_BARS = "▁▂▃▄▅▆▇█"
_NAMES = {
    "random": "random choice",
    "unlearned": "highest bid",
    "chosen": "Adscent",
    "oracle": "oracle",
}
_STYLES = {"✓": "green", "✗": "bold red", "·": "default"}
_VERDICTS = {"accepted": "green", "repaired": "yellow", "refused": "bold red"}
_FIXED_LINES = 13


@dataclass(frozen=True, slots=True)
class View:
    """Renders itself anew each time from what is known by then."""

    seed: int
    exit_after_s: float
    ledger: Ledger
    models: Models
    story: Story

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Everything in the height of the terminal."""
        told = self._doors()
        width, rest = options.max_width, max(console.height - _FIXED_LINES - len(told), 6)
        models = min(max(rest // 3, 3), 12)
        yield Group(
            self._head(),
            *told,
            Panel(self._gains(width), title=_GAINS, title_align="left"),
            Panel(self._models(models, width), title="Newest snapshots", title_align="left"),
            Panel(self._story(rest - models, width), title="On stage", title_align="left"),
        )

    def _head(self) -> Text:
        left = max(self.exit_after_s - self.story.elapsed_s, 0.0)
        recent = self.ledger.since(_RECENT_S)
        clock = f"{self.story.elapsed_s:.0f} s, {left:.0f} s to go"
        title = Text.assemble(
            (" Adscent demo ", "bold reverse"), f"  seed {self.seed} · {clock} · Ctrl-C ends\n"
        )
        failed = self.ledger.failed
        return Text.assemble(
            title,
            f" {self.ledger.requests_per_s():.0f} requests/s, {self.ledger.requests:,} so far,",
            (f" {failed} failed", "bold red" if failed else "green"),
            f"; decisions: p50 {latency_ms(recent, 50):.1f} ms,"
            f" p99 {latency_ms(recent, 99):.1f} ms",
            overflow="ellipsis",
            no_wrap=True,
        )

    def _doors(self) -> list[Text]:
        """Where API and dashboard are, and a key to both: on lines of their own, to be copied."""
        if self.story.api is None:
            return []
        address, key = self.story.api
        where = "" if self.story.dashboard is None else f", dashboard {self.story.dashboard[0]}"
        lines = (f" API {address}{where}, key to both:", f" {key}")
        return [Text(line, style="cyan", no_wrap=True) for line in lines]

    def _gains(self, width: int) -> Table:
        found = means(self.ledger.since(WINDOW_S))
        columns = max(width - _OTHER_COLUMNS, 8)
        table = Table(box=None, padding=(0, 2, 0, 0), expand=False)
        table.add_column(f"last {WINDOW_S:.0f} s")
        for title in ("clicks", "revenue", "of oracle"):
            table.add_column(title, justify="right")
        table.add_column("since the start", no_wrap=True, overflow="crop")
        for rule, name in _NAMES.items():
            share = found.micros[rule] / found.micros["oracle"] if found.decisions else 0.0
            table.add_row(
                name,
                f"{found.ctr[rule]:.2%}",
                f"{found.micros[rule] / 1e6:.2f}",
                f"{share:.0%}",
                _bars(self.ledger.course(rule, columns)),
                style="bold cyan" if rule == "chosen" else "",
            )
        return table

    def _models(self, lines: int, width: int) -> Text:
        rows = [_model_line(one, self.models.serving, width - 4) for one in self.models.trained]
        shown = rows[: lines - 1] or [Text("none yet: the first impressions are maturing")]
        return Text("\n").join([*_filled(shown, lines - 1), self._norms()])

    def _norms(self) -> Text:
        served = [one for one in self.models.trained if one["id"] in self.ledger.snapshots]
        raw, kept = (_largest(served, name) for name in ("largest_raw_ratio", "largest_ratio"))
        return Text(
            f"largest norm over its radius: {raw:.3f} trained, {kept:.3f} served (limit 1)",
            style="dim",
        )

    def _story(self, lines: int, width: int) -> Text:
        rows = [row for line in self.story.lines for row in _story_lines(line, width - 4)]
        return Text("\n").join(_filled(rows[-lines:], lines))


def told(line: Line) -> str:
    """A line of the story, for output that is not a terminal."""
    return f"{line.at_s:5.1f} s {line.mark} {line.text}"


def progress(ledger: Ledger, models: Models) -> str:
    """One line on how things stand."""
    recent, found = ledger.since(_RECENT_S), means(ledger.since(WINDOW_S))
    return (
        f"{ledger.requests_per_s():.0f} requests/s, {ledger.failed} failed, p50"
        f" {latency_ms(recent, 50):.1f} ms, p99 {latency_ms(recent, 99):.1f} ms; clicks"
        f" {found.ctr['chosen']:.2%} (random {found.ctr['random']:.2%}, oracle"
        f" {found.ctr['oracle']:.2%}), {found.share:.0%} of the oracle's revenue;"
        f" {len(models.trained)} snapshots, {len(models.refused)} refused"
    )


def _bars(values: Sequence[float]) -> str:
    top = len(_BARS) - 1
    return "".join(_BARS[min(max(int(value * top + 0.5), 0), top)] for value in values)


def _largest(snapshots: Sequence[dict[str, Any]], metric: str) -> float:
    return max((one["metrics"].get(metric) or 0.0 for one in snapshots), default=0.0)


def _model_line(one: dict[str, Any], serving: str, width: int) -> Text:
    result, metrics = one["verdict"]["result"], one["metrics"]
    said = (
        one["verdict"]["reasons"][0]
        if one["verdict"]["reasons"]
        else f"{metrics.get('events') or 0:,.0f} impressions, {metrics.get('clicks') or 0:.0f}"
        f" clicks, log loss {metrics.get('log_loss') or 0:.4f}"
    )
    line = Text.assemble(
        f"…{one['id'][-6:]} ",
        (f"{result} ", _VERDICTS[result]),
        ("serving " if one["id"] == serving else "", "bold cyan"),
        said,
    )
    line.truncate(width, overflow="ellipsis")
    return line


def _story_lines(line: Line, width: int) -> list[Text]:
    first, *rest = textwrap.wrap(line.text, max(width - 9, 20)) or [""]
    head = Text.assemble(f"{line.at_s:4.0f} s ", (f"{line.mark} {first}", _STYLES[line.mark]))
    return [head, *(Text(" " * 9 + row, _STYLES[line.mark]) for row in rest)]


def _filled(rows: Sequence[Text], lines: int) -> list[Text]:
    """As many lines as wanted, so that nothing jumps."""
    return [*rows, *(Text("") for _ in range(lines - len(rows)))]
