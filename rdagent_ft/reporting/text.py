"""Hostile text made safe to show, and numbers put into words.

Hypotheses, lessons and log tails come from an LLM or a job. They are cleaned and cut here; escaping
for HTML is the template's work (autoescape), escaping for Markdown is `markdown_text`. No run facts.
"""

from __future__ import annotations

import re
from pathlib import PurePath

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[@-Z\\-_]"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])(?:~|/[\w.@+-]+)(?:/[\w.@+-]+)*/([\w.@+-]+)")
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&!{}])")
_LONGEST_UNBROKEN = 4_000_000
MINUS = "\N{MINUS SIGN}"


def clean_text(text: str, limit: int = 2_000) -> str:
    """Return `text` without terminal sequences, control and direction characters, cut to `limit`.

    Line breaks and tabs stay. A cut is marked with the number of characters left out.
    """
    text = text[:_LONGEST_UNBROKEN].replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text)).strip()
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()} … ({len(text) - limit:,} characters left out)"


def one_line(text: str, limit: int = 300) -> str:
    """Return `clean_text` with every run of white space as one blank."""
    return " ".join(clean_text(" ".join(text[:_LONGEST_UNBROKEN].split()), limit).split())


def tail_lines(text: str, n_lines: int = 25, limit: int = 4_000) -> str:
    """Return the last lines of a log, cleaned, at most `limit` characters."""
    cleaned = clean_text(text[-4 * limit :], 4 * limit)
    return "\n".join(cleaned.splitlines()[-n_lines:])[-limit:]


def without_folders(text: str) -> str:
    """Return `text` with each absolute path cut to its last part: reports are sent to other people."""
    return _ABSOLUTE_PATH.sub(r"…/\1", text)


def markdown_text(text: str, limit: int = 600) -> str:
    """Return `text` as one line that Markdown shows literally, in table cells too."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text, limit))


def markdown_code(text: str, limit: int = 300) -> str:
    """Return `text` as an inline code span; backticks and pipes inside it are replaced."""
    return "`" + (one_line(text, limit).replace("`", "'").replace("|", "¦") or " ") + "`"


def display_name(name: str) -> str:
    """Return a dataset or model name without a machine's folders: `org/name` stays, a path is cut.

    Only the last component of an absolute path, a path with `.`/`~` in front, one with more than
    one slash or one that names a file is kept.
    """
    cleaned = one_line(name, 200)
    looks_local = (
        cleaned.startswith(("/", ".", "~"))
        or cleaned.count("/") > 1
        or PurePath(cleaned).suffix.lower() in {".json", ".jsonl", ".csv", ".parquet", ".gz"}
    )
    return (PurePath(cleaned).name or cleaned) if looks_local else cleaned


def percent(fraction: float, digits: int = 1) -> str:
    """Return 0.612 as `61.2%`."""
    return f"{_plain(100 * fraction, digits)}%"


def points(difference: float, digits: int = 1) -> str:
    """Return 0.052 as `+5.2`: a signed difference in percentage points."""
    value = round(100 * difference, digits) + 0.0
    sign = "+" if value > 0 else MINUS if value < 0 else "±"
    return f"{sign}{abs(value):.{digits}f}"


def interval_points(ci95: tuple[float, float], digits: int = 1) -> str:
    """Return an interval of differences as `[+1.9, +8.5]`, in percentage points."""
    return f"[{points(ci95[0], digits)}, {points(ci95[1], digits)}]"


def interval_percent(ci95: tuple[float, float], digits: int = 1) -> str:
    """Return an interval of scores as `57.0 to 65.4%`."""
    return f"{_plain(100 * ci95[0], digits)} to {_plain(100 * ci95[1], digits)}%"


def duration(seconds: float) -> str:
    """Return seconds as `38 s`, `4 min 10 s` or `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(usd: float) -> str:
    """Return dollars with cents, or with four digits below ten cents."""
    return f"${usd:.4f}" if 0 < usd < 0.1 else f"${usd:,.2f}"


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """Return `1 item`, `600 items`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def value_text(value: object) -> str:
    """Return a recipe value as a person would write it: 0.0002 -> 2e-4, True -> yes."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value != 0.0 and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(item) for item in value) or "none"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return one_line(str(value), 200)


def _plain(value: float, digits: int) -> str:
    value = round(value, digits) + 0.0
    return (MINUS if value < 0 else "") + f"{abs(value):.{digits}f}"
