"""Properties of the readers: what is written in any form comes back byte for byte, and counts add up."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.errors import UserError

SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
CELL = TEXT.filter(lambda text: text not in {"nan", "NaN", "NAN"} and "\0" not in text)


@SHARED
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), ascii_only=st.booleans())
def test_json_forms_keep_every_character(
    tmp_path: Path, pairs: list[tuple[str, str]], ascii_only: bool
) -> None:
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    texts = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    (tmp_path / "a.jsonl").write_bytes("\n".join(texts).encode())
    (tmp_path / "b.json").write_bytes(json.dumps(records, ensure_ascii=ascii_only, indent=1).encode())
    for name in ("a.jsonl", "b.json"):
        rows, report = read_rows(resolve_dataset(str(tmp_path / name), tmp_path))
        assert [(row.prompt_text, row.completion) for row in rows] == pairs
        assert report.n_read == report.n_rows == len(pairs)


@SHARED
@given(pairs=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_csv_keeps_every_character(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("prompt", "completion"), *pairs])
    (tmp_path / "a.csv").write_bytes(stream.getvalue().encode())
    rows, _ = read_rows(resolve_dataset(str(tmp_path / "a.csv"), tmp_path))
    assert [(row.prompt_text, row.completion) for row in rows] == pairs


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@SHARED
@given(values=st.lists(st.tuples(JSON, JSON), min_size=1, max_size=6))
def test_any_json_is_read_or_refused_and_counts_add_up(tmp_path: Path, values: list[tuple[Any, Any]]) -> None:
    records = [{"prompt": prompt, "completion": completion, "x": prompt} for prompt, completion in values]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    try:
        rows, report = read_rows(resolve_dataset(str(tmp_path / "a.jsonl"), tmp_path))
    except UserError:
        return
    assert len(rows) == report.n_rows == report.n_read - sum(report.dropped.values())
    assert all(row.completion.strip() and row.prompt_text.strip() for row in rows)
    json.dumps([row.model_dump() for row in rows], allow_nan=False).encode()


@SHARED
@given(raw=st.binary(max_size=200), suffix=st.sampled_from([".json", ".jsonl", ".csv"]))
def test_any_bytes_give_rows_or_one_clear_error(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(raw)
    with contextlib.suppress(UserError):
        read_rows(resolve_dataset(str(path), tmp_path))
