"""A comparison as text for a terminal, one line a benchmark, and the sentences below it.

Numbers are percent and percentage points. What is partial is marked `!` and can be greyed; it
decided nothing. With `ascii_only` every sign is ASCII.
"""

from __future__ import annotations

from rdagent_ft.evaluation.guards import HOLM_LEVEL
from rdagent_ft.evaluation.results.comparison import ComparisonDocument, HealthDelta, Pair
from rdagent_ft.evaluation.results.document import Health
from rdagent_ft.execution.outputs import clean_text

ASCII_SIGNS = {"↑": "^", "↗": "/", "→": "=", "↘": "\\", "↓": "v", "–": "-", "−": "-", "±": "+-"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_HEAD = ("benchmark", "metric", "n", "base", "tuned", "delta [95% CI]", "", "relative", "MDE", "verdict")
_RIGHT = {2, 3, 4, 7, 8}
_NAME_CHARS, _METRIC_CHARS = 40, 32
_NOTABLE_RATE = 0.02
_LENGTH_RATIO = 1.3


def table_lines(document: ComparisonDocument, *, ascii_only: bool = False, dim: bool = False) -> list[str]:
    """Return the table: head, one line a benchmark, an indented line a further measure.

    `dim` greys partial rows with terminal codes.
    """
    rows: list[tuple[tuple[str, ...], bool]] = [(_HEAD, False)]
    for name, pair in document.pairs.items():
        rows.append((_cells(name, pair, document), pair.partial is not None))
        rows += [(cells, pair.partial is not None) for cells in _measure_cells(pair)]
    widths = [max(len(cells[at]) for cells, _ in rows) for at in range(len(_HEAD))]
    lines: list[str] = []
    for cells, is_partial in rows:
        line = "  ".join(
            cell.rjust(widths[at]) if at in _RIGHT else cell.ljust(widths[at])
            for at, cell in enumerate(cells)
        ).rstrip()
        line = _ascii(line) if ascii_only else line
        lines.append(f"{_DIM}{line}{_PLAIN}" if dim and is_partial else line)
    return lines


def sentence_lines(document: ComparisonDocument, *, ascii_only: bool = False) -> list[str]:
    """Return what stands below the table: signs, smallest visible change, behaviour, decision."""
    lines = [_smallest(document), *_health_lines(document)]
    lines += [f"note: {warning}" for warning in document.warnings]
    lines.append(f"decision: {document.decision}")
    lines += [f"  {reason}" for reason in document.reasons]
    cleaned = [clean_text(line) for line in lines if line]
    return [_ascii(line) for line in cleaned] if ascii_only else cleaned


def _cells(name: str, pair: Pair, document: ComparisonDocument) -> tuple[str, ...]:
    mark = " (target)" if pair.role == "target" and len(document.pairs) > 1 else ""
    star = "*" if pair.p_holm is not None and pair.p_holm < HOLM_LEVEL else ""
    return (
        clean_text(name)[:_NAME_CHARS] + mark + ("!" if pair.partial is not None else ""),
        clean_text(pair.metric)[:_METRIC_CHARS],
        str(pair.n_pairs) if pair.n_pairs else "–",
        _percent(pair.base),
        _percent(pair.cand),
        "–" if pair.delta is None or pair.ci95 is None else _delta(pair.delta, pair.ci95),
        pair.arrow + star,
        "–" if pair.relative is None else f"({100 * pair.relative:+.1f}%)",
        "–" if pair.mde is None else f"{100 * pair.mde:.1f}",
        _verdict(pair),
    )


def _measure_cells(pair: Pair) -> list[tuple[str, ...]]:
    return [
        ("", clean_text(name)[:_METRIC_CHARS], "", _percent(found.base), _percent(found.cand),
         _delta(found.delta, found.ci95), "", "", "", "")
        for name, found in pair.measures.items()
    ]  # fmt: skip


def _verdict(pair: Pair) -> str:
    if pair.verdict is None:
        return pair.partial or "–"
    words = [pair.verdict]
    if pair.size is not None and (pair.delta or 0) > 0:
        words.append(pair.size)
    if pair.guard is not None and pair.guard.outcome == "not_shown":
        words.append(f"margin {100 * pair.guard.margin:g}: NOT shown safe")
    if pair.possible_forgetting:
        words.append("possible forgetting" + ("" if pair.verdict == "regressed" else ", not shown"))
    if pair.unequal:
        words.append("asked differently")
    if pair.partial is not None:
        words.append(f"partial, {pair.partial}")
    return words[0] + (f" ({'; '.join(words[1:])})" if words[1:] else "")


def _smallest(document: ComparisonDocument) -> str:
    found = [f"{name} {100 * pair.mde:.1f}" for name, pair in document.pairs.items() if pair.mde is not None]
    if not found:
        return ""
    return f"This comparison could only have seen changes above (points): {', '.join(found)}."


def _health_lines(document: ComparisonDocument) -> list[str]:
    lines: list[str] = []
    for name, pair in document.pairs.items():
        if pair.health is not None and (changes := _health_changes(pair.health)):
            lines.append(f"{name}: {', '.join(changes)}")
    return lines


def _health_changes(health: HealthDelta) -> list[str]:
    base, cand = health.base, health.cand
    if base is None or cand is None:
        return []
    changes: list[str] = []
    for words, before, after in _rates(base, cand):
        if before is not None and after is not None and abs(after - before) >= _NOTABLE_RATE:
            changes.append(f"{words} {100 * before:.0f}% -> {100 * after:.0f}%")
    before, after, unit = base.mean_tokens, cand.mean_tokens, "tokens"
    if before is None or after is None:
        before, after, unit = base.mean_chars, cand.mean_chars, "characters"
    if before and after is not None and not 1 / _LENGTH_RATIO < after / before < _LENGTH_RATIO:
        changes.append(f"mean length {before:.0f} -> {after:.0f} {unit}")
    return changes


def _rates(base: Health, cand: Health) -> list[tuple[str, float | None, float | None]]:
    return [
        ("cut by the limit", base.length_rate, cand.length_rate),
        ("empty", base.empty_rate, cand.empty_rate),
        ("repeating", base.repeat_rate, cand.repeat_rate),
        ("no answer found", base.extract_fail, cand.extract_fail),
        ("refused", base.refused_rate, cand.refused_rate),
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _delta(delta: float, ci95: tuple[float, float]) -> str:
    return f"{_points(delta)} [{_points(ci95[0])}, {_points(ci95[1])}]"


def _points(share: float) -> str:
    """Return points with a sign; what rounds to zero has none of its own."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}"


def _ascii(line: str) -> str:
    for sign, plain in ASCII_SIGNS.items():
        line = line.replace(sign, plain)
    return line.encode("ascii", "replace").decode("ascii")
