"""The report's pictures as SVG text: progress, loss curves, the claim's interval, shares of time.

Small pure functions: values in, text out. A plot never reads a file and never decides what is true.
Sizes are in pixels of the view box; a page shows a narrow and a wide one and hides one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rdagent_ft.planning.port import LoopStatus
from rdagent_ft.reporting import svg
from rdagent_ft.reporting.scales import Scale, nice_ticks, padded, tick_label
from rdagent_ft.reporting.text import percent, points
from rdagent_ft.values import Frozen

LEFT_PX = 46
RIGHT_PX = 74
TOP_PX = 14
AXIS_PX = 40
LANE_PX = 30


class ProgressPoint(Frozen):
    """One loop in the progress plot; a failed loop has no value. `label` is the hover text."""

    loop: int
    status: LoopStatus
    value: float | None = None
    ci95: tuple[float, float] | None = None
    leads: bool = False
    label: str = ""


class Reference(Frozen):
    """A horizontal line with its uncertainty: the base model's score."""

    value: float
    ci95: tuple[float, float]


class Part(Frozen):
    """One part of a whole, e.g. seconds spent on a step; `tone` 1..6 picks the colour."""

    label: str
    amount: float
    tone: int


def progress_plot(
    loops: Sequence[ProgressPoint], baseline: Reference | None, *, width: int, height: int, name: str
) -> str:
    """Return score against loop: every loop with its interval, the running best and the base model."""
    scored = [p for p in loops if p.value is not None and math.isfinite(p.value)]
    failed = [p for p in loops if p.value is None or not math.isfinite(p.value)]
    bottom = height - AXIS_PX - (LANE_PX if failed else 0)
    y = _score_scale(scored, baseline, bottom)
    x = _loop_scale(loops, width)
    parts = [_y_axis(y, width), _loop_axis(x, loops, height)]
    if baseline is not None:
        parts.append(_baseline(baseline, y, x, width))
    if failed:
        parts.append(_failed_lane(failed, x, height, width))
    parts.append(_running_best(scored, baseline, x, y))
    parts += [_scored_point(point, x, y) for point in scored]
    parts.append(_end_labels(scored, baseline, y, width))
    best = max((p.value for p in scored if p.leads and p.value is not None), default=None)
    description = f"{len(loops)} loops, {len(failed)} without a score. " + (
        f"Base model {percent(baseline.value)}. " if baseline else ""
    )
    description += f"Leading loop {percent(best)}." if best is not None else "No loop leads the base model."
    return svg.canvas(
        "".join(parts),
        width=width,
        height=height,
        name=name,
        title="Validation score of each loop",
        description=description,
    )


def loss_plot(
    losses: Sequence[tuple[float, float]], *, width: int, height: int, name: str, y_max: float | None = None
) -> str:
    """Return training loss against optimizer step. `y_max` gives several plots one scale."""
    finite = [(step, loss) for step, loss in losses if math.isfinite(step) and math.isfinite(loss)]
    if not finite:
        return ""
    steps, values = [step for step, _ in finite], [loss for _, loss in finite]
    low = min(0.0, min(values))
    high = max(y_max or 0.0, max(values), low + 1e-6)
    y = Scale(low, high, height - 24.0, 10.0)
    x = Scale(min(steps), max(steps), 40.0, width - 10.0)
    ticks = nice_ticks(low, high, 3)
    spacing = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts = [svg.line(40, y(tick), width - 10, y(tick), "grid") for tick in ticks]
    parts += [svg.text(35, y(tick) + 3.5, tick_label(tick, spacing), anchor="end") for tick in ticks]
    parts.append(svg.text(40, height - 7, f"step {steps[0]:.0f}"))
    parts.append(svg.text(width - 10, height - 7, f"{steps[-1]:.0f}", anchor="end"))
    parts.append(svg.polyline([(x(step), y(loss)) for step, loss in finite], "loss"))
    parts.append(svg.element("circle", cx=x(steps[-1]), cy=y(values[-1]), r=3, class_="loss-end"))
    return svg.canvas(
        "".join(parts),
        width=width,
        height=height,
        name=name,
        title="Training loss by step",
        description=f"From {values[0]:.3g} to {values[-1]:.3g} over {len(finite)} logged steps.",
    )


def interval_plot(
    delta: float, ci95: tuple[float, float], margin: float, val_delta: float | None, *, width: int, name: str
) -> str:
    """Return the claim as a picture: the difference, its interval, zero, and the no-change zone."""
    height = 92
    known = [delta, *ci95, 0.0, margin, -margin] + ([] if val_delta is None else [val_delta])
    low, high = padded(known, least_span=0.04)
    x = Scale(low, high, 16.0, width - 16.0)
    zone = svg.element(
        "rect",
        x=x(-margin),
        y=12,
        width=max(0.0, round(x(margin) - x(-margin), 1)),
        height=46,
        class_="zone",
    )
    ticks = nice_ticks(low, high, 6 if width > 500 else 4)
    spacing = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts = [zone, svg.line(16, 58, width - 16, 58, "axis")]
    for tick in ticks:
        sign = "+" if tick > 1e-12 else ""
        label = sign + tick_label(100 * tick + 0.0, 100 * spacing).replace("-", "−")
        parts.append(svg.line(x(tick), 58, x(tick), 62, "axis"))
        parts.append(svg.text(x(tick), 75, label, anchor="middle"))
    parts.append(svg.line(x(0.0), 8, x(0.0), 58, "zero"))
    parts.append(svg.line(x(ci95[0]), 35, x(ci95[1]), 35, "ci-bar"))
    parts += [svg.line(x(end), 28, x(end), 42, "ci-bar") for end in ci95]
    if val_delta is not None:
        ring = svg.element("circle", cx=x(val_delta), cy=35, r=5, class_="val-ring")
        parts.append(svg.tooltip(ring, f"on validation: {points(val_delta)} points"))
    dot = svg.element("circle", cx=x(delta), cy=35, r=6, class_="ci-dot")
    parts.append(svg.tooltip(dot, f"on the sealed test: {points(delta)} points"))
    parts.append(svg.text(width / 2, 90, "difference to the base model, in points", "axis-name", "middle"))
    return svg.canvas(
        "".join(parts),
        width=width,
        height=height + 4,
        name=name,
        title="Difference to the base model on the sealed test",
        description=f"{points(delta)} points, 95% interval {points(ci95[0])} to {points(ci95[1])}.",
    )


def share_bar(parts: Sequence[Part], *, width: int, name: str, title: str) -> str:
    """Return one bar cut into shares. Parts below or at zero are left out."""
    shown = [part for part in parts if math.isfinite(part.amount) and part.amount > 0]
    total = sum(part.amount for part in shown)
    if total <= 0:
        return ""
    x = Scale(0.0, total, 0.0, float(width))
    pieces: list[str] = []
    done = 0.0
    for part in shown:
        start, end = x(done), x(done + part.amount)
        box = svg.element(
            "rect",
            x=start,
            y=0,
            width=max(0.5, round(end - start - 1, 1)),
            height=18,
            class_=f"tone{part.tone}",
        )
        pieces.append(svg.tooltip(box, f"{part.label}: {percent(part.amount / total)}"))
        done += part.amount
    description = ", ".join(f"{part.label} {percent(part.amount / total, 0)}" for part in shown)
    return svg.canvas(
        "".join(pieces), width=width, height=18, name=name, title=title, description=description
    )


def _score_scale(scored: Sequence[ProgressPoint], baseline: Reference | None, bottom: float) -> Scale:
    values = [value for point in scored for value in (point.value or 0.0, *(point.ci95 or ()))]
    values += [baseline.value, *baseline.ci95] if baseline else []
    low, high = padded(values, least_span=0.05)
    return Scale(max(0.0, low), min(1.0, high) if high > low else 1.0, bottom, float(TOP_PX))


def _loop_scale(loops: Sequence[ProgressPoint], width: int) -> Scale:
    numbers = [point.loop for point in loops] or [0]
    inset = min(40.0, (width - LEFT_PX - RIGHT_PX) / (2 * len(numbers)))
    return Scale(min(numbers), max(numbers), LEFT_PX + inset, width - RIGHT_PX - inset)


def _y_axis(y: Scale, width: int) -> str:
    ticks = nice_ticks(y.low, y.high, 5)
    spacing = 100 * (ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    lines = [svg.line(LEFT_PX, y(tick), width - RIGHT_PX, y(tick), "grid") for tick in ticks]
    labels = [
        svg.text(LEFT_PX - 7, y(tick) + 4, tick_label(100 * tick, spacing) + "%", anchor="end")
        for tick in ticks
    ]
    return "".join(lines + labels)


def _loop_axis(x: Scale, loops: Sequence[ProgressPoint], height: int) -> str:
    numbers = sorted({point.loop for point in loops})
    n_target = max(2, int((x.end_px - x.start_px) // 44))
    whole = {round(tick) for tick in nice_ticks(x.low, x.high, n_target) if abs(tick - round(tick)) < 1e-9}
    shown = numbers if len(numbers) <= n_target + 1 else sorted(whole)
    marks = [svg.text(x(number), height - 21, str(number), anchor="middle") for number in shown]
    middle = (x.start_px + x.end_px) / 2
    return "".join(marks) + svg.text(middle, height - 4, "loop", "axis-name", "middle")


def _baseline(baseline: Reference, y: Scale, x: Scale, width: int) -> str:
    top, low = y(baseline.ci95[1]), y(baseline.ci95[0])
    band = svg.element(
        "rect",
        x=LEFT_PX,
        y=top,
        width=width - LEFT_PX - RIGHT_PX,
        height=max(0.0, round(low - top, 1)),
        class_="band",
    )
    level = svg.line(LEFT_PX, y(baseline.value), width - RIGHT_PX, y(baseline.value), "base-line")
    return svg.tooltip(band + level, f"base model: {percent(baseline.value)}")


def _failed_lane(failed: Sequence[ProgressPoint], x: Scale, height: int, width: int) -> str:
    middle = height - AXIS_PX - LANE_PX / 2 + 2
    lane = svg.line(LEFT_PX, middle - LANE_PX / 2 + 2, width - RIGHT_PX, middle - LANE_PX / 2 + 2, "axis")
    crosses = [svg.tooltip(svg.marker("failed", x(p.loop), middle + 2), p.label) for p in failed]
    return lane + svg.text(LEFT_PX - 7, middle + 6, "failed", anchor="end") + "".join(crosses)


def _running_best(
    scored: Sequence[ProgressPoint], baseline: Reference | None, x: Scale, y: Scale
) -> str:  # fmt: skip
    leaders = [point for point in scored if point.leads and point.value is not None]
    if not leaders:
        return ""
    corners: list[tuple[float, float]] = []
    level = y(baseline.value) if baseline else y(leaders[0].value or 0.0)
    corners.append((float(LEFT_PX), level))
    for leader in leaders:
        corners += [(x(leader.loop), level), (x(leader.loop), y(leader.value or 0.0))]
        level = y(leader.value or 0.0)
    corners.append((x.end_px + (x.start_px - LEFT_PX), level))
    return svg.polyline(corners, "running-best")


def _scored_point(point: ProgressPoint, x: Scale, y: Scale) -> str:
    assert point.value is not None
    centre = x(point.loop)
    bar = ""
    if point.ci95 is not None:
        top, low = y(point.ci95[1]), y(point.ci95[0])
        style = f"error-{point.status}"
        bar = svg.line(centre, top, centre, low, style)
        bar += "".join(svg.line(centre - 3, end, centre + 3, end, style) for end in (top, low))
    return svg.tooltip(bar + svg.marker(point.status, centre, y(point.value)), point.label)


def _end_labels(
    scored: Sequence[ProgressPoint], baseline: Reference | None, y: Scale, width: int
) -> str:  # fmt: skip
    """Name the running best and the base line at the right edge, kept 28 px apart."""
    leaders = [point.value for point in scored if point.leads and point.value is not None]
    labels = [("best", leaders[-1], "label-best")] if leaders else []
    labels += [("base", baseline.value, "label-base")] if baseline else []
    if not labels:
        return ""
    places = [y(value) for _, value, _ in labels]
    if len(places) == 2 and abs(places[0] - places[1]) < 30:
        middle = min(max(sum(places) / 2, TOP_PX + 20), y.start_px - 18)
        upper = 0 if places[0] <= places[1] else 1
        places[upper], places[1 - upper] = middle - 15, middle + 15
    left = width - RIGHT_PX + 8
    return "".join(
        svg.text(left, round(place - 2, 1), word, style)
        + svg.text(left, round(place + 12, 1), percent(value), style)
        for (word, value, style), place in zip(labels, places, strict=True)
    )
