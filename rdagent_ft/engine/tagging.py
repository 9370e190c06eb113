"""Label the rows of a dataset by a taxonomy: the teacher chooses, paid labels are kept and never paid twice.

Outside a run: the money is bounded by FT_MAX_COST for this call alone. A row that gets no usable label is
left out of the file and counted; nothing is guessed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.data.decontaminate import write_records
from rdagent_ft.data.read import records_of, usable_row
from rdagent_ft.data.records import Record
from rdagent_ft.data.rows import DatasetSource, Row
from rdagent_ft.data.stream import row_mapping, scan
from rdagent_ft.data.tags import Taxonomy, check_free, reply_class, tag_counts, with_tags
from rdagent_ft.data.teacher_cache import TeacherCache
from rdagent_ft.data.turns import Unusable
from rdagent_ft.engine.teacher_asks import Question, ask_all
from rdagent_ft.errors import DataError
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.llm.teacher_endpoint import build_teacher
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

MAX_TAG_TOKENS = 512
MAX_ROW_CHARS = 8_000


class TagReport(Frozen):
    """What was labelled.

    Attributes:
        model: who chose.
        n_records: records of the dataset.
        n_tagged: records that were written.
        n_cached: labels that were paid for before.
        dropped: reason -> records that are not in the file.
        counts: name -> value -> records.
        usd: dollars of this call.
    """

    model: str
    n_records: int
    n_tagged: int
    n_cached: int
    dropped: dict[str, int]
    counts: dict[str, dict[str, int]]
    usd: float


def tag_dataset(
    source: DatasetSource, out: Path, taxonomy: Taxonomy, settings: Settings, note: Callable[[str], None],
    *, columns: dict[str, str] | None = None, limit: int | None = None, seed: int = 42,
) -> TagReport:  # fmt: skip
    """Write the records of `source` with their labels as columns to `out` (jsonl, json or csv).

    `limit` labels so many records, drawn by `seed`. Records keep their order. Raises `DataError` for data
    without rows, `PreflightError` without a teacher, `BudgetError` when FT_MAX_COST is reached (labels that
    were paid are kept for the next call) and `LlmError` when the teacher fails for good.
    """
    records, rows, dropped = _usable(source, columns)
    check_free(records, taxonomy)
    n_records = len(records) + sum(dropped.values())
    if limit is not None and limit < len(records):
        drawn = sorted(random.Random(seed).sample(range(len(records)), limit))
        dropped["beyond the limit"] = len(records) - limit
        records, rows = [records[place] for place in drawn], [rows[place] for place in drawn]
    teacher = build_teacher(settings, MemoryLedger(), note, temperature=0.0, max_tokens=MAX_TAG_TOKENS)
    cache = TeacherCache(settings.file_path / "cache" / "teacher")
    questions = [_question(row, taxonomy) for row in rows]
    told = ask_all(teacher, cache, questions, reply_class(taxonomy), check_stop=lambda: None)
    tagged: list[Record] = []
    labels: list[dict[str, str]] = []
    for record, one in zip(records, told, strict=True):
        if one.reply is None:
            dropped[f"no label ({one.lost})"] += 1
            continue
        labels.append(one.reply.model_dump(mode="json"))
        tagged.append(with_tags(record, labels[-1]))
    if not tagged:
        raise DataError(f"{teacher.endpoint.model} gave no usable label", hint="try another FT_TEACHER_MODEL")
    write_records(out, tagged)
    return TagReport(
        model=teacher.endpoint.model,
        n_records=n_records,
        n_tagged=len(tagged),
        n_cached=sum(one.is_cached for one in told),
        dropped=dict(dropped),
        counts=tag_counts(taxonomy, labels),
        usd=teacher.ledger.spent_usd,
    )


def _usable(
    source: DatasetSource, columns: dict[str, str] | None
) -> tuple[list[Record], list[Row], Counter[str]]:
    """Return the records that can be read as rows, those rows, and reason -> others."""
    found = scan(source, columns)
    if found.preferences is not None:
        raise DataError(
            "preference data has several answers a row, and labels are for one",
            hint="label the rows before pairs are made",
        )
    mapping = row_mapping(found, columns)
    records: list[Record] = []
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    for record in (record for ref in source.files for record in records_of(Path(ref.path))):
        try:
            rows.append(usable_row(record, mapping, labelled=False))
        except Unusable as error:
            dropped[str(error)] += 1
        else:
            records.append(record)
    if not rows:
        raise DataError(f"no record of {source.name!r} can be read as a row")
    return records, rows, dropped


def _question(row: Row, taxonomy: Taxonomy) -> Question:
    text = "\n\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)
    shown = delimited("row", text, salt="tag", max_chars=MAX_ROW_CHARS)
    return Question(render_prompt("tag", taxonomy=taxonomy.words, row=shown), salt="tag")
