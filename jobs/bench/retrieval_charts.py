"""The charts of docs/retrieval.md, drawn from a report of `adscent bench retrieval`.

`python -m jobs.bench.retrieval_charts retrieval.json docs`
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path

import msgspec

from jobs.bench.report import Measure, Report
from jobs.pages.axes import HEIGHT, LEFT, WIDTH, Axes, across, around, levels
from jobs.pages.style import STYLE

_ABOVE, _BELOW = 30, 22
"""Room above the drawing for the key, and below it for what runs across."""


def main(report: Path, folder: Path) -> None:
    """Write `retrieval-ads.svg` and `retrieval-selectivity.svg` into the folder."""
    found = msgspec.json.decode(report.read_bytes(), type=Report).measurements
    means = {name[5:]: one for name, one in found.items() if name.startswith("mean_")}
    sizes = {float(name): one for name, one in means.items() if name.isdigit()}
    shares = {
        100 * float(name[6:]): one for name, one in means.items() if name.startswith("share_")
    }
    by_ads = _drawn(sizes, "{:,.0f}", "ads in the catalog, all of them eligible")
    by_share = _drawn(shares, "{:g} %", "of the ads are eligible")
    (folder / "retrieval-ads.svg").write_text(by_ads, encoding="utf-8")
    (folder / "retrieval-selectivity.svg").write_text(by_share, encoding="utf-8")


def _drawn(measures: Mapping[float, Measure], form: str, below: str) -> str:
    """Processor time over the places, both axes logarithmic, as a drawing of its own."""
    places = sorted(measures)
    lines = {
        ("blue", "retrieval"): [measures[place].value for place in places],
        ("grey", "two flat scans (FAISS)"): [measures[place].baseline or 0.0 for place in places],
    }
    values = [value for line in lines.values() for value in line]
    xs = [math.log10(place) for place in places]
    axes = around(xs[0], xs[-1], min(values), max(values), is_log=True)
    content = levels(axes) + across(axes, [(x, form.format(10**x)) for x in xs])
    content += "".join(_line(axes, xs, line, colour) for (colour, _), line in lines.items())
    keys = "".join(
        f'<text x="{LEFT + 260 * number}" y="-10" style="fill:var(--{colour})">● {escape(name)}'
        "</text>"
        for number, (colour, name) in enumerate(lines)
    )
    middle = (
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 12}" text-anchor="middle">{escape(below)}; ms of'
        " processor time a decision</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-_ABOVE} {WIDTH} '
        f'{HEIGHT + _ABOVE + _BELOW}" font-family="system-ui,sans-serif"><style>{STYLE}</style>'
        f'<rect y="{-_ABOVE}" width="100%" height="100%" fill="var(--card)"/>'
        f"{keys}{content}{middle}</svg>\n"
    )


def _line(axes: Axes, xs: list[float], values: list[float], colour: str) -> str:
    points = [f"{axes.x(x):.1f} {axes.y(value):.1f}" for x, value in zip(xs, values, strict=True)]
    return f'<path class="series" d="M{"L".join(points)}" stroke="var(--{colour})"/>'


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
