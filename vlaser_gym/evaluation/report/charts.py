"""Charts of the report: inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        title: read out instead of the image.
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


@dataclass(frozen=True)
class Bar:
    """A difference with its interval, as shares; ``None`` where there is none. ``strong`` begins a group."""

    label: str
    value: float | None
    interval: Interval | None
    strong: bool = False


_BAR_LABELS, _BAR_ROW = 220, 24  # px


def bar_chart(bars: Sequence[Bar], title: str) -> Markup:
    """Bars from zero to a difference, with whiskers over the interval, one line per bar, as SVG.

    Args:
        bars: from top to bottom.
        title: read out instead of the image.
    """
    limits = [limit for bar in bars for limit in (*(bar.interval or ()), bar.value or 0.0)]
    reach = next(end for end in (0.2, 0.4, 0.6, 0.8, 1.0) if max(map(abs, limits), default=0) <= end + 1e-9)
    low, high = -reach, reach if max(limits, default=0) > reach / 2 else reach / 2
    height = _TOP + _BAR_ROW * len(bars)

    def x(value: float) -> float:
        """The place of a value from the left, pixels."""
        return _BAR_LABELS + _PLOT * (value - low) / (high - low)

    parts = [
        Markup('<svg class="chart bars" viewBox="0 0 {w} {h}" role="img" aria-label="{t}">').format(
            w=_BAR_LABELS + _PLOT + _RIGHT, h=height + _BOTTOM, t=title
        )
    ]
    for k in range(round((high - low) / (reach / 2)) + 1):
        at = low + k * reach / 2
        label = f"{100 * at:+.0f}" if abs(at) > 1e-9 else "0"
        parts.append(
            Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                "grid" if abs(at) > 1e-9 else "zero", x(at), x(at), _TOP, height
            )
            + Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(at), height + 20, label
            )
        )
    parts += [_bar(bar, _TOP + _BAR_ROW * (index + 0.5), x) for index, bar in enumerate(bars)]
    return Markup("").join([*parts, Markup("</svg>")])


def _bar(bar: Bar, y: float, x: Callable[[float], float]) -> Markup:
    strong = " strong" if bar.strong else ""
    label = Markup('<text class="label{}" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        strong, _BAR_LABELS - 12, y + 4.5, bar.label
    )
    if bar.value is None or bar.interval is None:
        return label
    begin, end, (low, high) = x(0.0), x(bar.value), map(x, bar.interval)
    words = f"{100 * bar.value:+.1f} points [{100 * bar.interval[0]:+.1f}, {100 * bar.interval[1]:+.1f}]"
    return label + Markup(
        '<g><title>{words}</title><rect class="bar{strong}" x="{left:.1f}" width="{width:.1f}" y="{top:.1f}" '
        'height="14"/><line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/></g>'
    ).format(
        words=words, strong=strong, left=min(begin, end), width=abs(end - begin), top=y - 7, low=low, high=high, y=y
    )


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
