"""Rung V3: the numbers of an audit, and the problems that stop a training before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rdagent_ft.data.audit import AuditReport, audit_problems, audit_rows
from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.data.tokens import load_encoder

RowMaker = Callable[..., Row]
FolderMaker = Callable[..., Path]


def classes(report: AuditReport) -> list[str]:
    return [problem.problem_class for problem in audit_problems(report)]


def test_good_rows_have_no_problem(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row(f"send report {index}", "mail" if index % 2 else "post") for index in range(20)]
    rows += rows[:3]
    for form in ("plain", "chat"):
        report = audit_rows(rows, encoder, form, 64)
        assert audit_problems(report) == []
        assert (report.n_rows, report.n_exact_duplicates, report.n_truncated) == (23, 3, 0)
        counts = [encoder.row_tokens(item, form) for item in rows]
        assert report.token_percentiles["max"] == max(map(sum, counts))
        n_trained = sum(n_completion for _, n_completion in counts)
        assert report.share_tokens_trained == pytest.approx(n_trained / sum(map(sum, counts)))
        assert report.label_counts_top == {"mail": 11, "post": 12}
        assert len(report.samples_rendered) == 3
        assert report.samples_rendered[0].count("⟦trained⟧") == 1
        assert report.samples_rendered[0].replace("⟦trained⟧", "") == encoder.render_whole(rows[0], form)
        assert report.n_without_end == report.n_template_mismatch == 0


def test_percentiles_are_nearest_rank(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row("p", "é" * n) for n in range(1, 101)]
    totals = sorted(sum(encoder.row_tokens(item, "plain")) for item in rows)
    report = audit_rows(rows, encoder, "plain", 10_000)
    assert report.token_percentiles == {
        "p50": totals[49], "p90": totals[89], "p95": totals[94], "p99": totals[98], "max": totals[99],
    }  # fmt: skip


def test_prompts_that_fill_the_length_train_nothing(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    rows = [row("long prompt " * 20, f"answer {index}") for index in range(10)]
    report = audit_rows(rows, load_encoder(tokenizer_folder()), "plain", 16)
    assert (report.n_prompt_fills_max_length, report.share_tokens_trained) == (10, 0.0)
    assert classes(report) == ["data.empty_after_filter"]
    assert audit_problems(report)[0].key == "stages.0.max_length"


def test_many_cut_rows_name_the_length_that_is_needed(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder())
    rows = [row(f"p {index}", "word " * (60 if index < 3 else 1)) for index in range(10)]
    needed = max(sum(encoder.row_tokens(item, "plain")) for item in rows)
    report = audit_rows(rows, encoder, "plain", 32)
    (problem,) = audit_problems(report)
    assert (report.n_truncated, problem.problem_class) == (3, "data.truncated")
    length = -(-needed // 64) * 64
    assert str(length) in problem.fix
    assert audit_problems(audit_rows(rows, encoder, "plain", length)) == []


def test_a_fifth_of_cut_rows_is_allowed(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    rows = [row(f"p {index}", "word " * (60 if index < 2 else 1)) for index in range(10)]
    assert classes(audit_rows(rows, load_encoder(tokenizer_folder()), "plain", 32)) == []


def test_no_end_token_is_a_problem(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    encoder = load_encoder(tokenizer_folder(eos=None))
    report = audit_rows([row(f"p{index}", "c") for index in range(10)], encoder, "plain", 64)
    assert classes(report) == ["data.eos"]


def test_a_template_without_end_token_is_a_problem(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    encoder = load_encoder(tokenizer_folder(template=template))
    report = audit_rows([row(f"p{index}", "c") for index in range(10)], encoder, "chat", 64)
    assert classes(report) == ["data.eos"]


def test_a_prompt_that_is_no_prefix_is_a_problem(row: RowMaker, tokenizer_folder: FolderMaker) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}think:{% endif %}"
    )
    encoder = load_encoder(tokenizer_folder(template=template))
    report = audit_rows([row(f"p{index}", "c") for index in range(10)], encoder, "chat", 64)
    assert report.n_template_mismatch == 10
    assert classes(report) == ["data.template"]


def test_a_template_that_refuses_system_turns_is_reported_not_raised(tokenizer_folder: FolderMaker) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    turns = (("system", "s"), ("user", "u"), ("assistant", "a"))
    item = make_row(tuple(Message(role=role, content=text) for role, text in turns))  # type: ignore[arg-type]
    report = audit_rows([item], load_encoder(tokenizer_folder(template=template)), "chat", 64)
    assert classes(report) == ["data.template"]
    assert "no system" in audit_problems(report)[0].rule


def test_no_rows_at_all(tokenizer_folder: FolderMaker) -> None:
    report = audit_rows([], load_encoder(tokenizer_folder()), "plain", 64)
    assert classes(report) == ["data.empty_after_filter"]
