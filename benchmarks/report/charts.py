# SPDX-License-Identifier: Apache-2.0
"""SVG charts that follow the reader's light or dark scheme, on a background of their own. Text only; the same data gives the same bytes."""
import math
from xml.sax.saxutils import escape

STYLE = """
  .back { fill: #ffffff; stroke: #d0d7de } .text { fill: #1f2328 } .quiet { fill: #59636e } .line { stroke: #d8dee4 } .mark { stroke: #59636e }
  .c0 { fill: #0969da; stroke: #0969da } .c1 { fill: #bc4c00; stroke: #bc4c00 } .c2 { fill: #1a7f37; stroke: #1a7f37 }
  .c3 { fill: #8250df; stroke: #8250df } .c4 { fill: #9a6700; stroke: #9a6700 } .c5 { fill: #cf222e; stroke: #cf222e }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117; stroke: #3d444d } .text { fill: #f0f6fc } .quiet { fill: #9198a1 } .line { stroke: #2a313c } .mark { stroke: #9198a1 }
    .c0 { fill: #4493f8; stroke: #4493f8 } .c1 { fill: #db6d28; stroke: #db6d28 } .c2 { fill: #3fb950; stroke: #3fb950 }
    .c3 { fill: #ab7df8; stroke: #ab7df8 } .c4 { fill: #d29922; stroke: #d29922 } .c5 { fill: #f85149; stroke: #f85149 }
  }
  text { font: 12px system-ui, sans-serif } .title { font-weight: 600; font-size: 14px }"""

WIDTH = 860
LABELS = 330
RIGHT = 60
TOP = 62


def svg(height, title, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}\n</style>\n"
            f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>\n'
            f'<text class="text title" x="16" y="26">{escape(title)}</text>\n{body}</svg>\n')


def text(x, y, words, kind="text", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>\n'


def legend(names):
    body, x = "", 16.0
    for n, name in enumerate(names):
        body += f'<rect class="c{n}" x="{x:.1f}" y="37" width="10" height="10" rx="2"/>\n' + text(x + 15, 46, name, "quiet")
        x += 33 + 6.6 * len(name)
    return body


def nice_step(largest, most=6):
    raw = largest / most
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw)


def bars(title, groups, series, mark=None, form="{:.2f}"):
    """groups: (label, a value or None for each of the series); mark: a value with a line through all."""
    largest = max([value for _, values in groups for value in values if value is not None] + [mark or 0]) * 1.02
    rows, y = [], float(TOP)
    for label, values in groups:
        shown = [(n, value) for n, value in enumerate(values) if value is not None]
        rows.append((y, label, shown))
        y += 13 * len(shown) + 7
    height = int(y + 26)
    scale = (WIDTH - LABELS - RIGHT) / largest
    body = legend(series) if len(series) > 1 else ""
    step = nice_step(largest)
    for n in range(int(largest / step) + 1):
        x = LABELS + n * step * scale
        body += f'<line class="line" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{y:.1f}"/>\n'
        body += text(x, y + 14, f"{n * step:g}", "quiet", "middle")
    for top, label, shown in rows:
        body += text(LABELS - 8, top + 13 * len(shown) / 2 + 3, label, "text", "end")
        for line, (n, value) in enumerate(shown):
            body += f'<rect class="c{n}" x="{LABELS}" y="{top + 13 * line:.1f}" width="{max(value * scale, 0.5):.1f}" height="10" rx="1.5"/>\n'
            body += text(LABELS + value * scale + 4, top + 13 * line + 9, form.format(value), "quiet")
    if mark is not None:
        x = LABELS + mark * scale
        body += f'<line class="mark" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{y:.1f}" stroke-dasharray="4 3"/>\n'
    return svg(height, title, body)


def lines(title, series, xlabel):
    """series: (name, [(x, y)]); x on a logarithmic scale of base 2, y from 0."""
    left, bottom, height = 60, 60, 380
    names = [name for name, _ in series]
    # One name a line: they are long.
    top = 44 + 18 * len(names)
    points = [point for _, values in series for point in values]
    low, high = (f(math.log2(x) for x, _ in points) for f in (min, max))
    largest = max(y for _, y in points) * 1.1
    height = top + 300

    def place(x, y):
        across = (math.log2(x) - low) / ((high - low) or 1)
        return left + across * (WIDTH - left - 40), height - bottom - y / largest * (height - bottom - top)

    body = ""
    for n, name in enumerate(names):
        body += f'<rect class="c{n % 6}" x="16" y="{37 + 18 * n}" width="10" height="10" rx="2"/>\n' + text(31, 46 + 18 * n, name, "quiet")
    step = nice_step(largest)
    for n in range(int(largest / step) + 1):
        _, y = place(2 ** low, n * step)
        body += f'<line class="line" x1="{left}" y1="{y:.1f}" x2="{WIDTH - 40}" y2="{y:.1f}"/>\n' + text(left - 8, y + 4, f"{n * step:g}", "quiet", "end")
    for x in sorted({x for x, _ in points}):
        body += text(place(x, 0)[0], height - bottom + 18, f"{x:g}", "quiet", "middle")
    body += text((left + WIDTH - 40) / 2, height - 18, xlabel, "quiet", "middle")
    for n, (_, values) in enumerate(series):
        placed = [place(x, y) for x, y in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        body += f'<polyline class="c{n % 6}" style="fill: none" stroke-width="2" points="{path}"/>\n'
        body += "".join(f'<circle class="c{n % 6}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>\n' for x, y in placed)
    return svg(height, title, body)
