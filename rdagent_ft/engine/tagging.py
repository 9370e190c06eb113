"""Label the rows of a dataset by a taxonomy: the teacher chooses, paid labels are kept and never paid twice.

Outside a run: the money is bounded by FT_MAX_COST for this call alone. No row is lost: one that gets no
usable label is written without a value and counted; nothing is guessed. The file is written when every row
was asked about; until then the labels are in the cache alone.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from rdagent_ft.data.added_columns import Added, write_added
from rdagent_ft.data.preference_columns import preference_format
from rdagent_ft.data.read import records_of, usable_row
from rdagent_ft.data.records import Record
from rdagent_ft.data.rows import DatasetSource, Row
from rdagent_ft.data.shares import unit_order
from rdagent_ft.data.stream import Scan, row_mapping, scan
from rdagent_ft.data.tags import Taxonomy, check_free, reply_class, tag_counts, with_tags
from rdagent_ft.data.teacher_cache import StoredReply, TeacherCache
from rdagent_ft.data.turns import Unusable
from rdagent_ft.engine.teacher_asks import Question, Told, ask_all
from rdagent_ft.errors import DataError
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.llm.teacher_endpoint import Teacher, build_teacher
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

MAX_TAG_TOKENS = 512
MAX_ROW_CHARS = 8_000
_N_PLACES = 3
_N_PROGRESS_LINES = 10


class TagReport(Frozen):
    """What was labelled.

    Attributes:
        model: who chose.
        columns: the columns that were added.
        n_records: records of the dataset.
        n_written: records in the file.
        n_tagged: records in the file that have labels.
        n_cached: labels that were paid for before.
        untagged: reason -> records in the file without a label.
        places: reason -> the first of them, as file:line.
        left_out: reason -> records that are not in the file; empty without a limit.
        counts: name -> value -> records.
        usd: dollars of this call.
    """

    model: str
    columns: tuple[str, ...]
    n_records: int
    n_written: int
    n_tagged: int
    n_cached: int
    untagged: dict[str, int]
    places: dict[str, tuple[str, ...]]
    left_out: dict[str, int]
    counts: dict[str, dict[str, int]]
    usd: float


class _Read(NamedTuple):
    """All records; by their number the rows of those that are rows, and the reasons of the others."""

    records: list[Record]
    rows: dict[int, Row]
    unusable: dict[int, str]


def tag_dataset(
    source: DatasetSource, out: Path, taxonomy: Taxonomy, settings: Settings, note: Callable[[str], None],
    *, columns: dict[str, str] | None = None, limit: int | None = None, seed: int = 42,
) -> TagReport:  # fmt: skip
    """Write the records of `source` with their labels as columns to `out`, in the dataset's own format.

    `limit` takes so many rows, drawn by `seed`; a larger one keeps them. Records keep their order. Raises
    `DataError` for data that cannot be labelled and where no row gets a label, `PreflightError` without a
    teacher, `BudgetError` when FT_MAX_COST is reached and `LlmError` when the teacher fails for good. Labels
    that were paid are kept for the next call however this one ends.
    """
    read = _read(source, taxonomy, columns)
    asked = _drawn(read.rows, limit, seed)
    teacher = build_teacher(settings, MemoryLedger(), note, temperature=0.0, max_tokens=MAX_TAG_TOKENS)
    told = _ask(
        teacher, settings, {number: _question(read.rows[number], taxonomy) for number in asked},
        reply_class(taxonomy), note,
    )  # fmt: skip
    labels = {
        number: one.reply.model_dump(mode="json") for number, one in told.items() if one.reply is not None
    }
    lost = {number: f"no label ({one.lost})" for number, one in told.items() if one.reply is None}
    if not labels:
        raise DataError(f"{teacher.endpoint.model} gave no usable label", hint="try another FT_TEACHER_MODEL")
    untagged = lost if limit is not None else {**read.unusable, **lost}
    write_added(source, out, _added(read, taxonomy, labels, untagged))
    return TagReport(
        model=teacher.endpoint.model,
        columns=tuple(tag.name for tag in taxonomy.tags),
        n_records=len(read.records),
        n_written=len(labels) + len(untagged),
        n_tagged=len(labels),
        n_cached=sum(one.is_cached for one in told.values()),
        untagged=dict(Counter(untagged.values()).most_common()),
        places=_places(read.records, untagged),
        left_out=_left_out(read, len(asked), limit),
        counts=tag_counts(taxonomy, list(labels.values())),
        usd=teacher.ledger.spent_usd,
    )


def check_dataset(source: DatasetSource, taxonomy: Taxonomy, columns: dict[str, str] | None = None) -> None:
    """Raise `DataError` where the rows of `source` cannot get the columns of `taxonomy`. Asks nobody."""
    _read(source, taxonomy, columns)


def _read(source: DatasetSource, taxonomy: Taxonomy, columns: dict[str, str] | None) -> _Read:
    found = scan(source, columns)
    if found.preferences is not None:
        raise DataError(
            "preference data has several answers a row, and labels are for one",
            hint="label the rows before pairs are made",
        )
    check_free(found.sample, taxonomy)  # the sample has every column
    mapping = row_mapping(found, columns)
    _check_unseen(found, taxonomy, columns)
    read = _Read([], {}, {})
    for number, record in enumerate(record for ref in source.files for record in records_of(Path(ref.path))):
        read.records.append(record)
        try:
            read.rows[number] = usable_row(record, mapping, labelled=False)
        except Unusable as error:
            read.unusable[number] = str(error)
    if not read.rows:
        raise DataError(f"no record of {source.name!r} can be read as a row")
    return read


def _check_unseen(found: Scan, taxonomy: Taxonomy, columns: dict[str, str] | None) -> None:
    """Raise `DataError` when a later reader would take a label for a part of the conversation."""
    values = {tag.name: tag.values[0] for tag in taxonomy.tags}
    for names in (*((name,) for name in values), tuple(values)):
        added = {name: values[name] for name in names}
        sample = [with_tags(record, added) for record in found.sample]
        if _turns(found._replace(sample=sample), columns) != _turns(found, columns):
            raise DataError(
                f"a column {' or '.join(map(repr, names))} would be read as a part of the conversation",
                hint="give the label another name",
            )


def _turns(found: Scan, columns: dict[str, str] | None) -> dict[str, str] | None:
    """Return which columns hold the conversation; None where they would be taken for preferences."""
    if preference_format(found.sample, columns) is not None:
        return None
    try:
        mapping = row_mapping(found, columns)
    except DataError:
        return None
    return {field: column for field, column in mapping.fields.items() if field != "source"}


def _drawn(rows: Mapping[int, Row], limit: int | None, seed: int) -> list[int]:
    """Return the numbers of the rows to ask about, in order."""
    if limit is None or limit >= len(rows):
        return list(rows)
    order = sorted(rows, key=lambda number: unit_order(seed, f"tag:{rows[number].item_id}"))
    return sorted(order[:limit])


class _Kept(TeacherCache):
    """The cache, counting what was there and what came; several threads store."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lock = threading.Lock()
        self.n_found = 0
        self.n_stored = 0

    def find(self, key: str) -> StoredReply | None:
        """See `TeacherCache.find`."""
        stored = super().find(key)
        self.n_found += stored is not None
        return stored

    def store(self, stored: StoredReply) -> None:
        """See `TeacherCache.store`."""
        super().store(stored)
        with self._lock:
            self.n_stored += 1


def _ask(
    teacher: Teacher,
    settings: Settings,
    questions: Mapping[int, Question],
    schema: type[BaseModel],
    note: Callable[[str], None],
) -> dict[int, Told[BaseModel]]:
    """Return what was told of each row, with a line of progress now and then."""
    cache = _Kept(settings.file_path / "cache" / "teacher")
    n_questions = len(set(questions.values()))
    shown = 0

    def show_progress() -> None:
        nonlocal shown
        n_asked = n_questions - cache.n_found
        share = _N_PROGRESS_LINES * cache.n_stored // max(1, n_asked)
        if share > shown:
            shown = share
            note(f"labels: {cache.n_stored:,} of {n_asked:,} that are not known yet")

    note(f"asking {teacher.endpoint.model} for the labels of {len(questions):,} rows")
    try:
        told = ask_all(teacher, cache, list(questions.values()), schema, check_stop=show_progress)
    except BaseException:
        n_open = n_questions - cache.n_found - cache.n_stored
        note(f"{cache.n_found + cache.n_stored:,} labels are kept; the same command asks for {n_open:,} more")
        raise
    return dict(zip(questions, told, strict=True))


def _added(
    read: _Read, taxonomy: Taxonomy, labels: Mapping[int, Mapping[str, Any]], untagged: Mapping[int, str]
) -> list[Added | None]:
    """Return what each record gets: labels, cells without a value, or None where it is left out."""
    without = {tag.name: None for tag in taxonomy.tags}
    return [
        labels.get(number, without if number in untagged else None) for number in range(len(read.records))
    ]


def _places(records: Sequence[Record], untagged: Mapping[int, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for number in sorted(untagged):
        before = found.get(untagged[number], ())
        found[untagged[number]] = (*before, records[number].place)[:_N_PLACES]
    return found


def _left_out(read: _Read, n_asked: int, limit: int | None) -> dict[str, int]:
    """Return reason -> records that a limit leaves out: rows beyond it, and what is no row."""
    if limit is None:
        return {}
    beyond = {f"over the limit of {limit}": len(read.rows) - n_asked} if n_asked < len(read.rows) else {}
    return {**beyond, **Counter(read.unusable.values())}


def _question(row: Row, taxonomy: Taxonomy) -> Question:
    text = "\n\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)
    shown = delimited("row", text, salt="tag", max_chars=MAX_ROW_CHARS)
    return Question(render_prompt("tag", taxonomy=taxonomy.words, row=shown), salt="tag")
