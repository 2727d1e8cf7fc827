"""The style sheets: the colours of the other pages, light and dark, wide and narrow."""

from __future__ import annotations

from typing import Final

_LIGHT: Final = (
    "--page:#fbfaf8;--card:#fff;--ink:#1d2330;--soft:#5d6675;--line:#e4e2dc;--ground:#f3f1ec;"
    "--good:#217a45;--warn:#8f6400;--bad:#c32430;--blue:#0b6bcb;--orange:#c2410c;--teal:#0f8577;"
    "--violet:#7c3aed;--grey:#8a93a1;--shade:0 1px 2px #1d23300d"
)
_DARK: Final = (
    "--page:#12151b;--card:#1a1f28;--ink:#e8ebf0;--soft:#a3adbb;--line:#2c3440;--ground:#232a35;"
    "--good:#4cc27d;--warn:#e6b23c;--bad:#f47780;--blue:#5aa9f5;--orange:#f08a4b;--teal:#45c7bb;"
    "--violet:#b08cf7;--grey:#7d8796;--shade:none"
)
FONT: Final = 'system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif'

STYLE: Final = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
:root:has(body.body--light){{color-scheme:light;{_LIGHT}}}
:root:has(body.body--dark){{color-scheme:dark;{_DARK}}}
*{{box-sizing:border-box}}
html,body,.q-layout,.body--dark,.body--light{{background:var(--page);color:var(--ink)}}
body{{font:15px/1.5 {FONT};font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}}
.nicegui-content{{padding:0;gap:0;align-items:stretch;display:block}}
h1,h2,h3,p,dl,dd,ul,figure{{margin:0}}
h1{{font-size:1.5rem;font-weight:650;letter-spacing:-.015em;line-height:1.25}}
h2{{font-size:1rem;font-weight:620;line-height:1.4}}
h3{{font-size:.9rem;font-weight:600}}
ul{{list-style:none;padding:0}}
a{{color:var(--blue);text-decoration:none}}a:hover{{text-decoration:underline}}
code,.mono{{font:.87em/1.5 ui-monospace,"SF Mono","DejaVu Sans Mono",monospace}}
:focus-visible{{outline:2px solid var(--blue);outline-offset:2px;border-radius:4px}}
.nicegui-skip-link{{position:fixed;left:1rem;top:-6rem;z-index:9999;background:var(--card);
color:var(--ink);padding:.5rem 1rem;border-radius:.5rem;border:1px solid var(--line)}}
.nicegui-skip-link:focus{{top:.6rem}}
.top{{position:sticky;top:0;z-index:10;background:color-mix(in srgb,var(--page) 92%,transparent);
backdrop-filter:blur(8px);border-bottom:1px solid var(--line)}}
.top>div{{max-width:76rem;margin:0 auto;padding:.6rem 1.25rem;display:flex;align-items:center;
gap:.25rem 1.5rem;flex-wrap:wrap}}
.brand{{font-weight:700;letter-spacing:-.02em;font-size:1.05rem;color:var(--ink)}}
.brand:hover{{text-decoration:none}}
nav{{display:flex;gap:.15rem;flex:1;overflow-x:auto;scrollbar-width:none;padding:3px}}
nav a{{color:var(--soft);padding:.3rem .7rem;border-radius:.5rem;white-space:nowrap;
font-weight:500}}
nav a:hover{{background:var(--ground);text-decoration:none;color:var(--ink)}}
nav a[aria-current=page]{{background:var(--ground);color:var(--ink)}}
.who{{display:flex;align-items:center;gap:.6rem;color:var(--soft);font-size:.85rem}}
.who form{{display:contents}}
.content{{max-width:76rem;margin:0 auto;padding:1.5rem 1.25rem 4rem;outline:none}}
.head{{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:flex-end;
justify-content:space-between;margin-bottom:1.1rem}}
.head p{{color:var(--soft);max-width:44rem}}
.live{{font-size:.8rem;color:var(--soft);white-space:nowrap}}
.live::before{{content:"";display:inline-block;width:.5rem;height:.5rem;border-radius:50%;
background:var(--good);margin-right:.45rem}}
.live.stale::before{{background:var(--warn)}}
.grid{{display:grid;gap:1rem;grid-template-columns:repeat(12,minmax(0,1fr))}}
.grid>*{{grid-column:span 12}}
.grid>.half{{grid-column:span 6}}.grid>.third{{grid-column:span 4}}.grid>.wide{{grid-column:span 8}}
.card{{background:var(--card);border:1px solid var(--line);border-radius:.75rem;
padding:1.05rem 1.15rem;box-shadow:var(--shade);min-width:0}}
.card+.card.below,.grid+.grid,.grid+.card,.card+.grid,.tiles+.grid,.card+.tiles,.tiles+.card,.card+.card
{{margin-top:1rem}}.grid>.card+.card{{margin-top:0}}
.card>header{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;justify-content:space-between;
align-items:baseline;margin-bottom:.7rem}}
.card>header p{{color:var(--soft);font-size:.86rem;flex-basis:100%}}
.tiles{{display:grid;gap:1rem;grid-template-columns:repeat(6,minmax(0,1fr));margin-bottom:1rem}}
.tile{{background:var(--card);border:1px solid var(--line);border-radius:.75rem;
padding:.85rem 1rem .8rem;box-shadow:var(--shade);min-width:0}}
.tile .name{{color:var(--soft);font-size:.82rem}}
.tile .value{{font-size:1.55rem;font-weight:620;letter-spacing:-.02em;line-height:1.3;
white-space:nowrap}}
.tile .unit{{font-size:.85rem;font-weight:500;color:var(--soft);margin-left:.2rem;letter-spacing:0}}
.tile .note{{color:var(--soft);font-size:.8rem;line-height:1.35}}
.chart{{width:100%;height:16rem}}.chart.low{{height:9rem}}.chart.tall{{height:22rem}}
.chart text{{fill:var(--soft)}}
.compared+.compared{{border-top:1px solid var(--line);margin-top:.9rem;padding-top:.9rem}}
.empty{{color:var(--soft);padding:1.6rem 1rem;text-align:center;border:1px dashed var(--line);
border-radius:.6rem;font-size:.92rem}}
.banner{{border:1px solid color-mix(in srgb,var(--warn) 45%,transparent);
background:color-mix(in srgb,var(--warn) 9%,var(--card));padding:.7rem 1rem;border-radius:.6rem;
margin-bottom:1rem;font-size:.92rem}}
.pill{{display:inline-block;padding:.02rem .55rem;border-radius:1rem;font-size:.8rem;
font-weight:560;background:var(--ground);color:var(--soft);white-space:nowrap}}
.pill.good{{color:var(--good);background:color-mix(in srgb,var(--good) 13%,transparent)}}
.pill.warn{{color:var(--warn);background:color-mix(in srgb,var(--warn) 14%,transparent)}}
.pill.bad{{color:var(--bad);background:color-mix(in srgb,var(--bad) 12%,transparent)}}
.pill.blue{{color:var(--blue);background:color-mix(in srgb,var(--blue) 12%,transparent)}}
.good{{color:var(--good)}}.warn{{color:var(--warn)}}.bad{{color:var(--bad)}}.soft{{color:var(--soft)}}
td:first-child{{min-width:6.5rem}}
summary{{display:list-item;cursor:pointer;margin-top:.6rem}}
.more{{margin-top:.7rem}}
.small{{font-size:.86rem}}.pre{{white-space:pre-line}}
table{{border-collapse:collapse;width:100%;font-size:.92rem}}
th{{font-weight:560;color:var(--soft);font-size:.8rem;text-align:left;padding:.2rem .7rem .45rem 0;
vertical-align:bottom;border-bottom:1px solid var(--line)}}
td{{padding:.5rem .7rem .5rem 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:break-word}}
tr:last-child td{{border-bottom:0}}
th.number,td.number{{text-align:right;white-space:nowrap}}
th:last-child,td:last-child{{padding-right:0}}
td .under{{color:var(--soft);font-size:.83rem;line-height:1.4}}
dl.facts{{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.25rem;font-size:.92rem}}
dl.facts dt{{color:var(--soft)}}dl.facts dd{{overflow-wrap:anywhere;min-width:0}}
.acts{{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}}
button.act,.act{{font:inherit;font-weight:550;font-size:.9rem;padding:.38rem .85rem;cursor:pointer;
border-radius:.5rem;border:1px solid var(--line);background:var(--card);color:var(--ink);
min-height:2.25rem}}
button.act:hover:not(:disabled){{background:var(--ground)}}
button.act:disabled{{opacity:.5;cursor:default}}
button.act.strong{{background:var(--blue);border-color:var(--blue);color:#fff}}
button.act.danger{{background:var(--bad);border-color:var(--bad);color:#fff}}
.body--dark button.act.strong,.body--dark button.act.danger{{color:#10141a}}
button.act.strong:hover:not(:disabled),button.act.danger:hover:not(:disabled){{filter:brightness(1.08);
background-color:revert-layer}}
button.act.strong:hover:not(:disabled){{background:var(--blue)}}
button.act.danger:hover:not(:disabled){{background:var(--bad)}}
button.quiet{{font:inherit;border:0;background:none;color:var(--soft);cursor:pointer;
padding:.25rem .5rem;border-radius:.4rem;font-size:.85rem}}
button.quiet:hover{{background:var(--ground);color:var(--ink)}}
.question{{background:var(--card);color:var(--ink);border:1px solid var(--line);
border-radius:.9rem;padding:1.4rem;width:min(32rem,92vw);max-width:none!important;
display:flex;flex-direction:column;gap:.8rem;box-shadow:0 12px 48px #0006}}
.question .acts{{justify-content:flex-end;margin-top:.3rem}}
.question ul{{font-size:.88rem;color:var(--soft);max-height:12rem;overflow:auto}}
.card .acts,.card dl.facts,.parts{{margin-bottom:.45rem}}dl.facts{{margin-top:.45rem}}
.card .acts .acts{{margin-bottom:0}}
.feed li{{display:grid;grid-template-columns:5.2rem 1fr;gap:.2rem .9rem;padding:.5rem 0;
border-bottom:1px solid var(--line);font-size:.92rem}}
.feed li:last-child{{border-bottom:0}}
.feed time{{color:var(--soft);font-size:.84rem;padding-top:.07rem}}
.dot::before{{content:"";display:inline-block;width:.5rem;height:.5rem;border-radius:50%;
background:var(--grey);margin-right:.5rem}}
.dot.good::before{{background:var(--good)}}.dot.warn::before{{background:var(--warn)}}
.dot.bad::before{{background:var(--bad)}}.dot,.dot a{{color:var(--ink)}}
.feed .dot~.under{{padding-left:1rem}}
.feed .under{{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}}
.fields{{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.7rem .9rem;
align-items:end}}
label.field{{display:flex;flex-direction:column;gap:.2rem;font-size:.84rem;color:var(--soft)}}
.field input,.field select{{font:inherit;font-size:.95rem;color:var(--ink);background:var(--card);
border:1px solid var(--line);border-radius:.5rem;padding:.38rem .6rem;width:100%;
min-height:2.25rem}}
.field input:focus-visible,.field select:focus-visible{{outline-offset:0}}
.search{{display:flex;flex-wrap:wrap;gap:.7rem;margin-bottom:1rem;align-items:end}}
.search .grow{{flex:1 1 16rem}}
.parts{{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr 4rem;gap:.25rem .8rem;
align-items:center;font-size:.87rem}}
.parts .bar{{height:.6rem;border-radius:.2rem;background:var(--blue)}}
.parts .bar.minus{{background:var(--orange)}}
.echart-tip{{font:13px/1.5 {FONT}!important}}
@media (max-width:64rem){{.tiles{{grid-template-columns:repeat(3,minmax(0,1fr))}}
.grid>.third{{grid-column:span 6}}.grid>.wide{{grid-column:span 12}}}}
@media (max-width:48rem){{
.top>div{{padding:.5rem .75rem .3rem;gap:.1rem .75rem}}.who{{margin-left:auto}}
.who .name{{display:none}}
nav{{order:3;flex-basis:100%;margin:0 -.5rem;justify-content:space-between;gap:0}}
nav a{{padding:.3rem .33rem;font-size:.83rem}}
.content{{padding:1rem .75rem 3rem}}
.tiles{{grid-template-columns:repeat(2,minmax(0,1fr));gap:.6rem}}
.tile{{padding:.7rem .8rem}}.tile .value{{font-size:1.3rem}}
.grid{{gap:.75rem}}.grid>.half,.grid>.third{{grid-column:span 12}}.card{{padding:.9rem .85rem}}
.chart{{height:14rem}}
table.cards thead{{position:absolute;left:-99rem}}
table.cards tr{{display:grid;grid-template-columns:1fr 1fr;gap:.15rem .8rem;padding:.7rem 0;
border-bottom:1px solid var(--line)}}table.cards tr:last-child{{border-bottom:0}}
table.cards td{{border:0;padding:0;text-align:left}}
table.cards td:first-child,table.cards td.full{{grid-column:span 2}}
table.cards td.none{{display:none}}
table.cards td[data-name]::before{{content:attr(data-name) " ";color:var(--soft);font-size:.82rem}}
dl.facts{{grid-template-columns:1fr;gap:0}}dl.facts dd{{margin-bottom:.5rem}}
.card .acts,.card dl.facts,.parts{{margin-bottom:.45rem}}dl.facts{{margin-top:.45rem}}
.feed li{{grid-template-columns:1fr;gap:0}}
}}
@media (prefers-reduced-motion:reduce){{*{{animation:none!important;transition:none!important}}}}
"""

LOGIN_STYLE: Final = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--page);
color:var(--ink);font:16px/1.5 {FONT}}}
main{{width:min(26rem,94vw);padding:1rem 0 12vh}}
h1{{font-size:1.5rem;letter-spacing:-.02em;margin:0 0 .8rem}}
form{{background:var(--card);border:1px solid var(--line);border-radius:.9rem;padding:1.5rem;
display:flex;flex-direction:column;gap:.6rem}}
p{{margin:0 0 .4rem;color:var(--soft);font-size:.95rem}}
label{{font-size:.9rem;font-weight:560}}
input{{font:inherit;padding:.55rem .7rem;border:1px solid var(--line);border-radius:.5rem;
background:var(--page);color:var(--ink);width:100%}}
button{{font:inherit;font-weight:600;padding:.6rem;border:0;border-radius:.5rem;background:var(--blue);
color:#fff;cursor:pointer;margin-top:.4rem}}
@media (prefers-color-scheme:dark){{button{{color:#10141a}}}}
:focus-visible{{outline:2px solid var(--blue);outline-offset:2px}}
.fault{{color:var(--bad);font-size:.92rem;margin:0}}
details{{font-size:.88rem;color:var(--soft);margin-top:.3rem}}summary{{cursor:pointer}}
code{{font:.88em ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}}
"""
