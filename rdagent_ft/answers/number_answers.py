"""Finding the number that an answer states, and comparing numbers exactly.

Exact rational arithmetic, never floats: 0.1 + 0.2 questions must not hinge on rounding. Covers plain
numbers, thousands separators, currency and percent signs, a/b and LaTeX fractions; other expressions
(roots, pi, intervals) are not numbers here. Nothing is evaluated.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

# Over 60 digits are noise of a degenerate model, not an answer. Every part is bounded and no two
# neighbours can match the same characters, so that time is linear.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,60})"
_NUMBER = rf"(?<![\w.])(?P<sign>[-+])?(?P<whole>{_DIGITS})?(?P<part>\.\d{{1,60}})?(?!\d)"
_FRACTION = re.compile(rf"{_NUMBER}(?:\s?/\s?(?P<below>\d{{1,60}})(?!\d))?")
_LATEX_FRACTION = re.compile(
    r"(-?)\s?\\[dt]?frac\s?(?:\{\s?(-?\d{1,60})\s?\}|(\d))\s?(?:\{\s?(\d{1,60})\s?\}|(\d))"
)
_SIGNED_DOLLAR = re.compile(r"(?<=-)\\?\$|\\?\$(?=-)")
_HASHES = re.compile(r"####([^\n]{0,200})")
_DRESSING = re.compile(
    r"\\(?:text|mathrm|mbox)\s?\{[^{}]{0,40}\}|\\left|\\right|\\[,;!: ]|\\\$|\\%|\^\s?\{?\\circ\}?|\\circ"
)


def stated_number(text: str) -> Fraction | None:
    """Return the number that a model's answer states: after the first `####`, in the last
    `\\boxed{}`, else the last number of the text; None when there is none."""
    marked = _marked(text)
    if marked is not None:
        found = _numbers(marked)
        return found[0] if found else None
    found = _numbers(text)
    return found[-1] if found else None


def gold_number(text: str) -> Fraction | None:
    """Return the number of a reference answer: after its last `####`, in its last `\\boxed{}`, or the
    whole text; None when that is not exactly one number."""
    hashes = _HASHES.findall(text)
    if hashes:
        return whole_number(hashes[-1])
    boxed = last_boxed(text)
    return whole_number(text if boxed is None else boxed)


def whole_number(text: str) -> Fraction | None:
    """Return the number when the text is one number and nothing else (signs, $, %, a final dot)."""
    plain = _plain(text).strip().rstrip(".").strip()
    if plain.endswith("%"):
        plain = plain[:-1].rstrip()
    match = _FRACTION.fullmatch(plain)
    return None if match is None else _value(match)


def all_numbers(text: str) -> list[Fraction]:
    """Return every number of the text in order."""
    return _numbers(text)


def last_boxed(text: str) -> str | None:
    """Return what the last complete `\\boxed{…}` holds, braces balanced; None when there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for position in range(start + 6, min(len(text), start + 2000)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 7 : position]
    return None


def number_text(value: Fraction) -> str:
    """Return the number as short text: `18`, `0.5`, `1/3`."""
    if value.denominator == 1:
        return str(value.numerator)
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    if below != 1:
        return f"{value.numerator}/{value.denominator}"
    scaled, places = abs(value), 0
    while scaled.denominator != 1:  # by whole numbers: a Decimal keeps 28 digits only
        scaled, places = scaled * 10, places + 1
    digits = str(scaled.numerator).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _marked(text: str) -> str | None:
    hashes = _HASHES.search(text)
    return hashes.group(1) if hashes else last_boxed(text)


def _numbers(text: str) -> list[Fraction]:
    found: list[Fraction] = []
    for match in _FRACTION.finditer(_plain(text)):
        value = _value(match)
        if value is not None:
            found.append(value)
    return found


def _value(match: re.Match[str]) -> Fraction | None:
    whole, part, below = match["whole"], match["part"], match["below"]
    if whole is None and part is None:
        return None
    value = Fraction(Decimal(f"{(whole or '0').replace(',', '')}{part or ''}"))
    if below is not None:
        if int(below) == 0:
            return None
        value /= int(below)
    return -value if match["sign"] == "-" else value


def _plain(text: str) -> str:
    """Return the text with LaTeX fractions as a/b and dressing around numbers removed."""
    text = text.replace("\u2212", "-").replace("{,}", ",").replace("\\!", "")
    text = _LATEX_FRACTION.sub(_as_ratio, text)
    text = _SIGNED_DOLLAR.sub("", text).replace("$", " ")
    return _DRESSING.sub(lambda match: "%" if match[0] == "\\%" else " ", text)


def _as_ratio(match: re.Match[str]) -> str:
    above = match[2] or match[3]
    sign = "-" if (match[1] == "-") != above.startswith("-") else ""
    return f" {sign}{above.lstrip('-')}/{match[4] or match[5]} "
