"""The page's style sheet: dark and light, narrow and wide."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#1d2330;--soft:#5d6675;
--line:#e4e2dc;--ground:#efede7;--good:#2f9e5b;--bad:#d1343f;--none:#6b7280;--decay:#b45309;
--clipping:#0f9488;--projection:#7c3aed;--chunk:#c026d3;--dual:#d97706;--augmented:#0b6bcb}
@media (prefers-color-scheme:dark){:root{--page:#12151b;--card:#1a1f28;--ink:#e8ebf0;
--soft:#9aa4b2;--line:#2c3440;--ground:#262d38;--good:#4cc27d;--bad:#f0616b;--none:#a3adbb;
--decay:#e0914f;--clipping:#45c7bb;--projection:#b08cf7;--chunk:#e07af0;--dual:#f2b04a;
--augmented:#5aa9f5}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.25rem 1rem 3rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:.25rem 0}h2{font-size:1.05rem;margin:0 0 .15rem}
p{margin:.25rem 0 .75rem;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .5rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--soft);font-size:.85rem;white-space:normal}
td.text{text-align:left;white-space:normal}
td.met{color:var(--good);font-weight:600}td.missed{color:var(--bad);font-weight:600}
tr.sweep td{font-weight:600}
.heat td+td{text-align:center;
background:color-mix(in srgb,var(--bad) calc(var(--share)*.75),transparent)}
.heat th{text-align:center}
small{color:var(--soft);display:block;font-size:.82rem}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.85rem;
color:var(--soft);margin-bottom:.35rem}
.key::before{content:"";display:inline-block;width:1.1rem;height:.2rem;border-radius:.1rem;
margin-right:.4rem;vertical-align:middle;background:currentColor}
.key span{color:var(--soft)}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--line);stroke-width:1}
.ground{fill:var(--ground)}
.mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 4;opacity:.6}
.series{fill:none;stroke-width:2;stroke-linejoin:round}
@media (max-width:40rem){svg text{font-size:20px}.series{stroke-width:3}
table{font-size:.85rem}th,td{padding:.3rem .3rem}}
"""
