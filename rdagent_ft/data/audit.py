"""Rung V3: what a trainer would really see of these rows, judged before any training starts.

Looks at all rows: lengths against `max_length`, the share of tokens that is trained, the end token and
the template's round trip. Rows that cannot be read never come here; `read.py` reports them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rdagent_ft.data.rows import Row
from rdagent_ft.data.tokens import PromptFormat, TextEncoder
from rdagent_ft.errors import DataError, Problem, UserError
from rdagent_ft.values import Frozen

MAX_TRUNCATED_SHARE = 0.20
_N_SAMPLES = 3
_MAX_SAMPLE_CHARS = 4_000
_MAX_LABELS = 200
_N_TOP_LABELS = 10
_LENGTH_STEP = 64


class AuditReport(Frozen):
    """What was found. Token counts include the end token and are taken before truncation.

    Attributes:
        prompt_format: `plain` or `chat`.
        max_length: tokens a row may keep; the rest is cut at the right.
        n_rows: rows that would be trained on.
        n_exact_duplicates: rows beyond the first of equal ones.
        token_percentiles: p50, p90, p95, p99 and max of prompt + completion tokens.
        tokens_per_row: mean tokens of a row, cut at `max_length`.
        n_truncated: rows longer than `max_length`; they lose the end of their answer and the end token.
        n_prompt_fills_max_length: rows whose prompt leaves no room: nothing of them is trained.
        share_tokens_trained: completion tokens kept / all tokens kept, 0..1.
        n_template_mismatch: rows whose prompt alone is rendered differently than inside the whole.
        n_without_end: rows whose trained part has no end token (counted before truncation).
        template_error: why the chat template refused a row; then nothing else was measured.
        samples_rendered: up to three rows as trained: prompt, a border mark, completion.
        label_counts_top: answer -> rows, when the answers are few.
    """

    prompt_format: PromptFormat
    max_length: int
    n_rows: int
    n_exact_duplicates: int = 0
    token_percentiles: dict[str, int] = {}
    tokens_per_row: float = 0.0
    n_truncated: int = 0
    n_prompt_fills_max_length: int = 0
    share_tokens_trained: float = 0.0
    n_template_mismatch: int = 0
    n_without_end: int = 0
    template_error: str | None = None
    samples_rendered: tuple[str, ...] = ()
    label_counts_top: dict[str, int] = {}


def audit_rows(
    rows: Sequence[Row], encoder: TextEncoder, prompt_format: PromptFormat, max_length: int
) -> AuditReport:
    """Return the audit of all rows. A template that refuses rows is reported, not raised."""
    n_duplicates = len(rows) - len({row.item_id for row in rows})
    try:
        measured = encoder.measure(rows, prompt_format)
    except (DataError, UserError) as error:
        return AuditReport(
            prompt_format=prompt_format,
            max_length=max_length,
            n_rows=len(rows),
            n_exact_duplicates=n_duplicates,
            template_error=error.message,
        )
    totals = sorted(row.n_total for row in measured)
    n_kept = sum(min(total, max_length) for total in totals)
    n_trained = sum(max(0, min(row.n_total, max_length) - row.n_context) for row in measured)
    return AuditReport(
        prompt_format=prompt_format,
        max_length=max_length,
        n_rows=len(rows),
        n_exact_duplicates=n_duplicates,
        token_percentiles=_percentiles(totals),
        tokens_per_row=round(n_kept / len(totals), 2) if totals else 0.0,
        n_truncated=sum(total > max_length for total in totals),
        n_prompt_fills_max_length=sum(row.n_context >= max_length for row in measured),
        share_tokens_trained=n_trained / n_kept if n_kept else 0.0,
        n_template_mismatch=sum(row.n_context < row.n_prompt for row in measured),
        n_without_end=sum(not row.has_end for row in measured),
        samples_rendered=_samples(rows[:_N_SAMPLES], encoder, prompt_format, max_length),
        label_counts_top=_top_labels(rows),
    )


def audit_problems(report: AuditReport) -> list[Problem]:
    """Return everything that would make training on these rows pointless, with what to do."""
    if report.n_rows == 0:
        return [_problem("data", 0, "no row is left to train on", "empty_after_filter", "filter less")]
    if report.template_error is not None:
        return [
            _problem(
                "prompt_format",
                report.prompt_format,
                report.template_error,
                "template",
                "use data without system or tool turns, or a model whose template accepts them",
            )
        ]
    problems: list[Problem] = []
    fills, truncated = report.n_prompt_fills_max_length, report.n_truncated / report.n_rows
    if fills == report.n_rows:
        rule = "every prompt fills max_length, so no answer token would be trained"
        problems.append(_length_problem(report, rule, "empty_after_filter"))
    elif truncated > MAX_TRUNCATED_SHARE:
        rule = f"{truncated:.0%} of the rows are longer and would lose the end of their answer"
        problems.append(_length_problem(report, rule, "truncated"))
    if report.n_without_end > report.n_rows / 2:
        rule = f"{report.n_without_end} of {report.n_rows} rows end without an end token: answers never stop"
        fix = "set eos_token in tokenizer_config.json, or end the assistant turn in the template with it"
        problems.append(_problem("eos_token", None, rule, "eos", fix))
    if report.prompt_format == "chat" and report.n_template_mismatch > report.n_rows / 2:
        rule = "the template renders a prompt alone differently than inside the conversation"
        fix = "use a template whose generation prompt is a prefix of the trained text"
        problems.append(_problem("chat_template", report.n_template_mismatch, rule, "template", fix))
    return problems


def _samples(
    rows: Sequence[Row], encoder: TextEncoder, prompt_format: PromptFormat, max_length: int
) -> tuple[str, ...]:
    """Return rows as the trainer sees them: decoded from their tokens, cut, the trained part marked."""
    return tuple(
        f"{encoder.decode(whole[:n_context])}⟦trained⟧{encoder.decode(whole[n_context:max_length])}"[
            :_MAX_SAMPLE_CHARS
        ]
        for n_context, _, whole in encoder.row_token_ids(rows, prompt_format)
    )


def _length_problem(report: AuditReport, rule: str, name: str) -> Problem:
    """Return a problem of `max_length` with the values that keep 95 % and all of the rows whole."""
    most, every = (_rounded_up(report.token_percentiles[key]) for key in ("p95", "max"))
    fix = f"set max_length to {most} (keeps 95 % of the rows whole) or {every} (all), or drop longer rows"
    return _problem("stages.0.max_length", report.max_length, rule, name, fix)


def _problem(key: str, value: object, rule: str, name: str, fix: str) -> Problem:
    return Problem(key=key, value=value, rule=rule, problem_class=f"data.{name}", fix=fix)


def _rounded_up(n_tokens: int) -> int:
    return -(-n_tokens // _LENGTH_STEP) * _LENGTH_STEP


def _percentiles(ordered: list[int]) -> dict[str, int]:
    """Return nearest-rank percentiles of sorted values."""
    shares = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    if not ordered:
        return dict.fromkeys(shares, 0)
    return {name: ordered[max(0, -(-percent * len(ordered) // 100) - 1)] for name, percent in shares.items()}


def _top_labels(rows: Sequence[Row]) -> dict[str, int]:
    counts = Counter(row.completion for row in rows)
    few = len(counts) <= _MAX_LABELS and len(counts) * 5 <= len(rows)
    return dict(counts.most_common(_N_TOP_LABELS)) if few else {}
