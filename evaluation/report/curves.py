"""Line charts as inline SVG: figures against the IoU threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 84, 16, 46
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#444c56")
LABEL_DISTANCE = 15  # pixels between two names at the right edge


def line_chart(series: Mapping[str, Sequence[float]], x: Sequence[float], *, x_title: str, y_title: str) -> str:
    """Lines in percent against IoU thresholds, named at their right ends.

    Args:
        series: by name, one value in [0, 1] for each of ``x``.
        x: increasing, at least two.
        x_title, y_title: of the axes.
    """
    top_value = _nice_top(max((value for row in series.values() for value in row), default=1.0))

    def px(value: float) -> float:
        return LEFT + (value - x[0]) / (x[-1] - x[0]) * (WIDTH - LEFT - RIGHT)

    def py(value: float) -> float:
        return HEIGHT - BOTTOM - value / top_value * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} against '
        f'{escape(x_title)}">'
    ]
    for step in range(6):
        value = top_value * step / 5
        y = py(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * value:g}</text>')
    for value in x[:: max(len(x) // 10, 1)]:
        parts.append(
            f'<text class="tick" x="{px(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_title)}</text>'
    )
    label_heights = _spread([py(row[-1]) for row in series.values()])
    for index, (name, row) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(f"{px(a):.1f},{py(b):.1f}" for a, b in zip(x, row))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for a, b in zip(x, row):
            parts.append(
                f'<circle cx="{px(a):.1f}" cy="{py(b):.1f}" r="3" fill="{colour}">'
                f"<title>{escape(name)} at IoU {a:g}: {100 * b:.2f} %</title></circle>"
            )
        parts.append(
            f'<text class="name" x="{WIDTH - RIGHT + 10}" y="{label_heights[index] + 4:.1f}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    parts.append("</svg>")
    return "".join(parts)


def _nice_top(largest: float) -> float:
    """The end of the y axis: the next of 10, 25, 50, 100 %, so that five steps have round names."""
    return next((top for top in (0.1, 0.25, 0.5) if largest <= top), 1.0)


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights moved down as far as needed to keep ``LABEL_DISTANCE``, then up together if the last one fell out."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed: list[float] = list(heights)
    previous = float("-inf")
    for i in order:
        placed[i] = max(heights[i], previous + LABEL_DISTANCE)
        previous = placed[i]
    limit: float = HEIGHT - BOTTOM
    for i in reversed(order):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - LABEL_DISTANCE
    return placed
