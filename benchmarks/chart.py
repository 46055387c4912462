"""Draws ``results.svg`` from ``results.json``: CPU time a lookup, one panel for each reply size.

Measures nothing. Bars are the best round of each client, plain HTTP on asyncio; the axis is cut
where a client is many times slower than the rest, and its bar says by how much. The colours hold
on light and on dark pages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec
from run import Report, Result, Scenario

FOLDER = Path(__file__).parent
WIDTH, LEFT, ROW, BAR = 760, 300, 26, 16
RIGHT = 90
PANELS = (
    (Scenario("small"), "The vendor's sample reply (1,084 bytes)"),
    (Scenario("large"), "A reply with a roster of 1,000 agents (68 KB)"),
)
LEFT_OUT = ("us-new-rosters",)
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a; }
.title { font-size: 15px; font-weight: 600; fill: #24292f; }
text.us { font-weight: 600; fill: #24292f; }
.bar { fill: #8c959f; }
.bar.limit { fill-opacity: 0.45; }
.bar.us { fill: #1f7fd6; }
.cut { stroke: #ffffff; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #9aa4af; }
  .title, text.us { fill: #e6edf3; }
  .bar { fill: #6b7682; }
  .bar.us { fill: #4aa3f0; }
  .cut { stroke: #0d1117; }
}
"""


def main() -> int:
    """Draw it."""
    report = msgspec.json.decode((FOLDER / "results.json").read_bytes(), type=Report)
    parts, top = [], 0
    for scenario, title in PANELS:
        found = [
            each
            for each in report.results
            if each.scenario == scenario.title and each.client not in LEFT_OUT
        ]
        panel, height = _panel(title, sorted(found, key=lambda each: each.cpu_low), top)
        parts += panel
        top += height
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>CPU microseconds a lookup, by client</title>",
        f"<style>{_STYLE}</style>",
        *parts,
        "</svg>",
    ]
    (FOLDER / "results.svg").write_text("\n".join(lines) + "\n")
    return 0


def _panel(title: str, results: Sequence[Result], top: int) -> tuple[list[str], int]:
    parts = [_text(8, top + 22, f"{title}: CPU µs a call", "title")]
    # Long enough for all but the slowest third.
    longest = sorted(each.cpu_low for each in results)[-1 - len(results) // 3]
    for row, each in enumerate(results):
        y = top + 36 + row * ROW
        length = min(each.cpu_low, longest) * (WIDTH - LEFT - RIGHT) / longest
        kind = each.client if each.client in ("us", "limit") else ""
        parts.append(_text(LEFT - 10, y + BAR - 3, each.title, kind, "end"))
        shape = f'x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"'
        parts.append(f'<rect class="bar {kind}" {shape}/>')
        if each.cpu_low > longest:
            parts.append(f'<path class="cut" d="M{LEFT + length - 30:.0f} {y + BAR + 2} l10 -20"/>')
        parts.append(_text(LEFT + length + 8, y + BAR - 3, f"{each.cpu_low:,.0f}", kind))
    return parts, 36 + len(results) * ROW + 16


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


if __name__ == "__main__":
    sys.exit(main())
