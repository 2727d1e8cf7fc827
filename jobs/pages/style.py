"""The style sheet of every page: light and dark, narrow and wide."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#1d2330;--soft:#5d6675;
--line:#e4e2dc;--ground:#efede7;--good:#2f9e5b;--warn:#d99a00;--bad:#d1343f;
--grey:#6b7280;--blue:#0b6bcb;--orange:#c2410c;--teal:#0f9488;--violet:#7c3aed;
--magenta:#c026d3;--gold:#a67c00}
@media (prefers-color-scheme:dark){:root{--page:#12151b;--card:#1a1f28;--ink:#e8ebf0;
--soft:#9aa4b2;--line:#2c3440;--ground:#262d38;--good:#4cc27d;--warn:#e6b23c;--bad:#f0616b;
--grey:#a3adbb;--blue:#5aa9f5;--orange:#f08a4b;--teal:#45c7bb;--violet:#b08cf7;
--magenta:#e879f9;--gold:#e6b23c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.25rem 1rem 3rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:.25rem 0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 .15rem}
p{margin:.25rem 0 .75rem;color:var(--soft);overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1rem;margin:1rem 0}
.scroll{overflow-x:auto}figure+.scroll{margin-top:1rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .5rem;border-bottom:1px solid var(--line);
white-space:nowrap;vertical-align:baseline}
th:first-child,td:first-child{text-align:left;white-space:normal;position:sticky;left:0;
background:var(--card)}
th{font-weight:600;color:var(--soft);font-size:.85rem;white-space:normal}
td.text{text-align:left;white-space:normal}
small{color:var(--soft);display:block;font-size:.8rem}
td small{white-space:nowrap}td.text small,td:first-child small{white-space:normal}
.group th,.group th:first-child{text-align:left;color:var(--ink);padding-top:.9rem}
.group small{font-weight:400}
.good{color:var(--good)}.bad{color:var(--bad)}td.good,td.bad{font-weight:600}
tr.strong td{font-weight:600}
.heat th+th,.heat td+td{text-align:center}
.heat td+td{background:color-mix(in srgb,var(--bad) calc(var(--share)*.75),transparent)}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.85rem;
color:var(--soft);margin-bottom:.35rem}
.key::before{content:"";display:inline-block;width:1.1rem;height:.2rem;border-radius:.1rem;
margin-right:.4rem;vertical-align:middle;background:currentColor}
.key.dashed::before{background:repeating-linear-gradient(90deg,currentColor 0 .3rem,
transparent .3rem .4rem)}
.key span{color:var(--soft)}
.below{text-align:center;font-size:.85rem;color:var(--soft)}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--line);stroke-width:1}
.ground{fill:var(--ground)}
.mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 4;opacity:.6}
.band{fill:var(--good);opacity:.14}
.series,.whisker{fill:none;stroke-width:2;stroke-linejoin:round}
.grid,.mark,.series,.whisker{vector-effect:non-scaling-stroke}
circle{r:5px}
@media (max-width:40rem){body{padding:1rem .6rem 2rem}section{padding:.8rem .7rem}
svg text{font-size:26px}circle{r:9px}table{font-size:.85rem}th,td{padding:.35rem .2rem}
small,th,figcaption,.below{font-size:.75rem}}
"""
