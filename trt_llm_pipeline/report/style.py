"""The look of the build report: light and dark, on a screen of any width and on paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f4f1; --card: #fcfcfb; --line: #e3e2dd; --ink: #17171a; --soft: #5b5a56; --faint: #6b6a65;
  --step: #2a78d6; --other: #a3a29b; --area: #2a78d622; --code: #f1f0ec;
  --good: #0b7a3b; --good-bg: #0b7a3b14; --warn: #8a5a00; --warn-bg: #eda10022; --bad: #b3261e;
  --bad-bg: #b3261e14; --unsure: #5b5a56; --unsure-bg: #5b5a5614;
  --s0: #2a78d6; --s1: #1baf7a; --s2: #eda100; --s3: #4a3aa7; --s4: #e34948; --s5: #e87ba4; --s6: #eb6834;
  --s7: #008300;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #111110; --card: #1a1a19; --line: #32312f; --ink: #f2f1ee; --soft: #b4b2ac; --faint: #9c9a94;
    --step: #3987e5; --other: #6f6d68; --area: #3987e52e; --code: #232321;
    --good: #5fd08b; --good-bg: #5fd08b1c; --warn: #f0bd5b; --warn-bg: #f0bd5b1c; --bad: #ff8a80;
    --bad-bg: #ff8a801c; --unsure: #b4b2ac; --unsure-bg: #b4b2ac1c;
    --s0: #3987e5; --s1: #199e70; --s2: #c98500; --s3: #9085e9; --s4: #e66767; --s5: #d55181; --s6: #d95926;
    --s7: #2f9e2f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; margin: 4px 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 16px; }
h3 { font-size: 14px; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0; }
code, pre, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
.kicker { color: var(--soft); font-size: 13px; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 20px; color: var(--soft); margin: 0; padding: 0;
  list-style: none; }
.facts b { color: var(--ink); font-weight: 500; overflow-wrap: anywhere; }
section, .tile {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
    margin-top: 20px;
}
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px;
  margin-top: 24px; }
.tile { margin: 0; padding: 14px 18px; }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 2px 0 0; font-size: 25px; font-weight: 600; letter-spacing: -0.01em; }
.tile small { display: block; color: var(--soft); font-size: 13px; font-weight: 400; letter-spacing: 0; }
.pill { display: inline-block; border-radius: 99px; padding: 3px 12px; font-size: 13px; font-weight: 600;
  margin-top: 14px; }
.ok { color: var(--good); background: var(--good-bg); }
.warning { color: var(--warn); background: var(--warn-bg); }
.problem { color: var(--bad); background: var(--bad-bg); }
.unknown { color: var(--unsure); background: var(--unsure-bg); }
.note { color: var(--soft); font-size: 13.5px; margin-top: 12px; overflow-wrap: anywhere; }
.archive { margin-top: 14px; font-size: 13px; overflow-wrap: anywhere; color: var(--soft); }
.archive code { user-select: all; color: var(--ink); }

.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 8px 14px;
  align-items: center; }
.bars > .name { font-size: 14px; }
.bars > .value { text-align: right; font-variant-numeric: tabular-nums; font-size: 14px; }
.bars > .value small { color: var(--soft); font-size: 12.5px; }
.track { position: relative; height: 22px; }
.lanes .track { background: linear-gradient(var(--line), var(--line)) 0 50% / 100% 1px no-repeat; }
.bar { position: absolute; top: 2px; bottom: 2px; min-width: 3px; border-radius: 4px;
  background: var(--step); }
.bar.other { background: var(--other); }
.bar.cached { background: none; border: 2px dashed var(--step); }
.axis { position: relative; height: 18px; font-size: 12px; color: var(--faint);
  font-variant-numeric: tabular-nums; }
.axis span { position: absolute; white-space: nowrap; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 24px 28px; }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px;
  margin-bottom: 8px; }
figcaption span { color: var(--soft); font-size: 13px; }
.plot { display: grid; grid-template-columns: max-content 1fr; gap: 0 8px; font-size: 12px;
  color: var(--faint); }
.plot .ys { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  font-variant-numeric: tabular-nums; margin: -9px 0; }
.plot .xs { grid-column: 2; display: flex; justify-content: space-between; font-variant-numeric: tabular-nums;
  margin-top: 4px; }
.plot svg { display: block; width: 100%; height: 132px; overflow: visible; }
svg * { vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1; }
.base { stroke: var(--faint); stroke-width: 1; }
.area { fill: var(--area); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; stroke: var(--s0); }
.peak { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 12.5px; color: var(--soft);
  margin-top: 8px; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: 3px; }

table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 13px; }
th, td { padding: 7px 12px 7px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
td { overflow-wrap: anywhere; }
td.fixed { white-space: nowrap; overflow-wrap: normal; width: 1%; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.mono { font-size: 12px; color: var(--soft); }
td .pill { margin: 0; padding: 1px 10px; font-size: 12.5px; }
.wide { overflow-x: auto; }
ul.warnings { margin: 0; padding: 0; list-style: none; }
ul.warnings li { padding: 9px 14px; border-left: 3px solid var(--warn); background: var(--warn-bg);
  border-radius: 4px;
  margin-top: 8px; overflow-wrap: anywhere; }
pre {
  background: var(--code); border-radius: 8px; padding: 12px 14px; margin: 8px 0 0; font-size: 12.5px;
    line-height: 1.55;
  white-space: pre-wrap; overflow-wrap: anywhere; user-select: all;
}
.command + .command { margin-top: 22px; }
.command .facts { font-size: 13px; margin-top: 6px; }
@media (max-width: 620px) {
  main { padding: 22px 12px 40px; }
  section { padding: 16px 14px; }
  .bars { gap: 8px; }
  .bars > .name, .bars > .value { font-size: 12.5px; }
  .bars > .value small { display: block; }
  .axis span:nth-child(even) { visibility: hidden; }
}
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""
