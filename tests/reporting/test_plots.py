"""Plots: every mark lies inside the canvas, whatever the values are; the SVG is well-formed."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.reporting import plots, svg
from rdagent_ft.reporting.scales import Scale, nice_ticks, padded, tick_label

finite = st.floats(allow_nan=False, allow_infinity=False)
share = st.floats(0, 1)


def coordinates(markup: str) -> tuple[list[float], list[float], float, float]:
    """Return all x, all y, width and height of an SVG."""
    root = ElementTree.fromstring(markup)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    xs: list[float] = []
    ys: list[float] = []
    for node in root.iter():
        attributes = node.attrib
        xs += [float(attributes[key]) for key in ("x", "x1", "x2", "cx") if key in attributes]
        ys += [float(attributes[key]) for key in ("y", "y1", "y2", "cy") if key in attributes]
        if node.tag == "rect":
            xs.append(float(attributes["x"]) + float(attributes["width"]))
            ys.append(float(attributes["y"]) + float(attributes["height"]))
        for pair in attributes.get("points", "").split():
            x, y = pair.split(",")
            xs.append(float(x))
            ys.append(float(y))
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", attributes.get("d", ""))]
        xs += numbers[0::2]
        ys += numbers[1::2]
    return xs, ys, width, height


def assert_inside(markup: str) -> None:
    xs, ys, width, height = coordinates(markup)
    assert all(-0.11 <= x <= width + 0.11 for x in xs), (min(xs), max(xs), width)
    assert all(-0.11 <= y <= height + 0.11 for y in ys), (min(ys), max(ys), height)


@st.composite
def progress_points(draw: st.DrawFn) -> plots.ProgressPoint:
    low, value, high = sorted(draw(st.tuples(share, share, share)))
    scored = draw(st.booleans())
    return plots.ProgressPoint(
        loop=draw(st.integers(0, 500)),
        status=draw(st.sampled_from(["accepted", "rejected", "failed"])),
        value=value if scored else None,
        ci95=(low, high) if scored and draw(st.booleans()) else None,
        leads=draw(st.booleans()),
        label=draw(st.text(max_size=20)),
    )


@given(finite, finite, finite)
def test_scale_stays_inside_its_range(low: float, high: float, value: float) -> None:
    pixel = Scale(min(low, high), max(low, high), 40, 300)(value)
    assert 40 <= pixel <= 300


def test_scale_refuses_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        Scale(0, 1, 0, 100)(math.nan)


@given(finite, finite, st.integers(2, 10))
def test_ticks_are_inside_and_few(a: float, b: float, n_target: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, n_target)
    assert 1 <= len(ticks) <= 2 * n_target
    assert ticks == sorted(ticks)
    assert all(low <= tick <= high for tick in ticks)


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(0.43, 0.61, 5) == pytest.approx([0.45, 0.5, 0.55, 0.6])
    assert [tick_label(tick, 0.25) for tick in (0.25, 0.5)] == ["0.25", "0.50"]
    assert tick_label(20.0, 20.0) == "20"


@given(st.lists(finite, max_size=5), st.floats(0.01, 10))
def test_padding_covers_the_values(values: list[float], span: float) -> None:
    small = [value for value in values if abs(value) < 1e9]
    low, high = padded(small, least_span=span)
    assert high - low >= span * 0.999
    assert all(low <= value <= high for value in small)


@given(
    st.lists(progress_points(), max_size=12),
    st.one_of(st.none(), st.tuples(share, share, share)),
    st.sampled_from([(860, 340), (350, 300)]),
)
def test_progress_points_are_inside_the_canvas(
    points: list[plots.ProgressPoint], base: tuple[float, float, float] | None, size: tuple[int, int]
) -> None:
    reference = None
    if base is not None:
        low, value, high = sorted(base)
        reference = plots.Reference(value=value, ci95=(low, high))
    markup = plots.progress_plot(points, reference, width=size[0], height=size[1], name="p")
    assert_inside(markup)


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=30), st.one_of(st.none(), st.floats(0, 1e6)))
def test_losses_are_inside_the_canvas(losses: list[tuple[float, float]], y_max: float | None) -> None:
    markup = plots.loss_plot(losses, width=264, height=132, name="l", y_max=y_max)
    if markup:
        assert_inside(markup)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.5))
def test_interval_is_inside_the_canvas(a: float, b: float, c: float, margin: float) -> None:
    low, delta, high = sorted((a, b, c))
    for width in (860, 350):
        assert_inside(plots.interval_plot(delta, (low, high), margin, high, width=width, name="i"))


@given(st.lists(st.floats(0, 1e6), max_size=8))
def test_shares_fill_the_bar(amounts: list[float]) -> None:
    parts = [plots.Part(label=f"p{i}", amount=amount, tone=1) for i, amount in enumerate(amounts)]
    markup = plots.share_bar(parts, width=800, name="s", title="t")
    if markup:
        xs, _, width, _ = coordinates(markup)
        assert max(xs) <= width + 1


def test_text_in_a_picture_is_escaped() -> None:
    point = plots.ProgressPoint(loop=0, status="rejected", value=0.5, label="</title></svg><script>")
    markup = plots.progress_plot([point], None, width=350, height=300, name="p")
    assert "<script" not in markup
    assert "&lt;/svg&gt;" in markup
    ElementTree.fromstring(markup)


def test_a_picture_names_itself() -> None:
    markup = svg.canvas("", width=1, height=1, name="x", title="T", description="D")
    assert 'role="img"' in markup
    assert '<title id="x-title">T</title><desc id="x-desc">D</desc>' in markup
