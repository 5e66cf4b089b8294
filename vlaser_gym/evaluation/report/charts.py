"""Charts of the report: inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from vlaser_gym.evaluation.statistics import Interval

_LABELS, _PLOT, _RIGHT = 170, 400, 30  # px
_ROW, _TOP, _BOTTOM = 38, 6, 30  # px


@dataclass(frozen=True)
class Mark:
    """A dot with its interval. ``series`` is a class of the style sheet: ``"a"``, ``"b"``, ``"difference"``."""

    value: float
    interval: Interval
    series: str
    hollow: bool = False


@dataclass(frozen=True)
class ChartRow:
    """A line of a chart; ``strong`` sets it apart from those above."""

    label: str
    marks: tuple[Mark, ...]
    strong: bool = False


def interval_chart(rows: Sequence[ChartRow], title: str, low: float = 0.0, high: float = 1.0) -> Markup:
    """Dots with intervals, one line per row, as SVG.

    Args:
        rows: from top to bottom.
        title: read out instead of the picture.
        low, high: ends of the axis, as shares; it is labelled in percent.
    """
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{t}">').format(
            w=_LABELS + _PLOT + _RIGHT, h=height, t=title
        )
    ]
    parts += _axis(low, high, len(rows))
    for index, row in enumerate(rows):
        parts += _row(row, _TOP + _ROW * (index + 0.5), low, high)
    return Markup("").join([*parts, Markup("</svg>")])


def _axis(low: float, high: float, rows: int) -> list[Markup]:
    bottom = _TOP + _ROW * rows
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    parts = []
    for tick in ticks:
        x = _x(tick, low, high)
        kind = "zero" if tick == 0 and low < 0 else "grid"
        parts.append(
            Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(kind, x, x, _TOP, bottom)
        )
        label = f"{100 * tick:+.0f}" if low < 0 and tick else f"{100 * tick:.0f}"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{} %</text>').format(
                x, bottom + 20, label
            )
        )
    return parts


def _row(row: ChartRow, y: float, low: float, high: float) -> list[Markup]:
    parts = []
    if row.strong:
        parts.append(
            Markup('<line class="rule" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LABELS + _PLOT, y - _ROW / 2, y - _ROW / 2
            )
        )
    style = "label strong" if row.strong else "label"
    parts.append(
        Markup('<text class="{}" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            style, _LABELS - 16, y + 4.5, row.label
        )
    )
    spread = 12 if len(row.marks) > 1 else 0
    for index, mark in enumerate(row.marks):
        at = y + spread * (index - (len(row.marks) - 1) / 2)
        parts.append(_mark(mark, at, low, high))
    return parts


def _mark(mark: Mark, y: float, low: float, high: float) -> Markup:
    begin, end, x = (_x(v, low, high) for v in (*mark.interval, mark.value))
    words = f"{100 * mark.value:.1f} % [{100 * mark.interval[0]:.1f}, {100 * mark.interval[1]:.1f}]"
    return Markup(
        '<g class="mark {series}{hollow}"><title>{words}</title>'
        '<line x1="{begin:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/></g>'
    ).format(
        series=escape(mark.series), hollow=" hollow" if mark.hollow else "", words=words, begin=begin, end=end, x=x, y=y
    )


def _x(value: float, low: float, high: float) -> float:
    return _LABELS + _PLOT * (min(max(value, low), high) - low) / (high - low)
