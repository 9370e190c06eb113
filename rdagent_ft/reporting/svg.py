"""The few SVG elements that the plots use, as escaped strings. Colours come from CSS classes."""

from __future__ import annotations

from html import escape

from rdagent_ft.reporting.text import one_line

_MAX_CHARS = 100_000
Attribute = str | float | int


def element(name: str, content: str = "", **attributes: Attribute) -> str:
    """Return one element. `content` is markup already; attribute values are escaped.

    A trailing underscore is dropped (`class_`), other underscores become hyphens.
    """
    parts = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(one_line(str(value), _MAX_CHARS), quote=True)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{parts}>{content}</{name}>" if content else f"<{name}{parts}/>"


def text(x: float, y: float, content: str, class_: str = "tick", anchor: str = "start") -> str:
    """Return a text element with escaped content."""
    return element("text", escape(one_line(content, _MAX_CHARS)), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: list[tuple[float, float]], class_: str) -> str:
    """Return connected line segments."""
    return element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=class_)


def tooltip(content: str, label: str) -> str:
    """Group `content` with a title that browsers show on hover and screen readers speak."""
    return element("g", element("title", escape(one_line(label, _MAX_CHARS))) + content)


def canvas(content: str, *, width: int, height: int, name: str, title: str, description: str) -> str:
    """Return a whole `svg` with title and description; `name` must be unique on the page."""
    head = element("title", escape(one_line(title, _MAX_CHARS)), id=f"{name}-title")
    head += element("desc", escape(one_line(description, _MAX_CHARS)), id=f"{name}-desc")
    return element(
        "svg",
        head + content,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="plot",
    )


def marker(status: str, x: float, y: float, size: float = 5.0) -> str:
    """Return the sign of a loop's status: filled disc, ring or cross. Shape and colour both differ."""
    if status == "accepted":
        return element("circle", cx=x, cy=y, r=size, class_="kept")
    if status == "rejected":
        return element("circle", cx=x, cy=y, r=size - 0.5, class_="rejected")
    half = size * 0.8
    path = f"M{x - half:.1f} {y - half:.1f}L{x + half:.1f} {y + half:.1f}"
    path += f"M{x + half:.1f} {y - half:.1f}L{x - half:.1f} {y + half:.1f}"
    return element("path", d=path, class_="failed")
