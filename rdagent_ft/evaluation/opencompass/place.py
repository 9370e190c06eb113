"""OpenCompass's private data folder: exactly the wanted items, in the files its datasets read.

Its own ways to take a subset are a `test_range` expression that it evaluates and a sample seeded by the
sample's size; a file that holds the wanted items and nothing else needs neither. Missing files would be
taken from `~/.cache/opencompass` or downloaded, so everything a dataset opens is written here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdagent_ft.errors import DataError, JobError
from rdagent_ft.evaluation.items import ITEMS_MAX_BYTES, EvalItem, read_items
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE, Documented
from rdagent_ft.evaluation.opencompass.spec import OpenCompassTask
from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.values import Frozen, write_atomic

GPQA_ORDERS = ("ABCD", "BCDA", "CDAB", "DABC")
"""`GPQADataset` turns the options by the row's number, from 1, modulo 4."""
MBPP_HEAD = 10
"""`MBPPDataset` takes its test split from row 10 on."""
_SUBJECT = re.compile(r"[a-z][a-z_]{0,62}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Asked(Frozen):
    """One question as OpenCompass will report it.

    Attributes:
        item_id: the item that it asks.
        messages: what must be sent, exactly, as (role, content); empty for a documented prompt.
        contains: text that the prompt must contain; empty when `messages` says it all.
        gold: what OpenCompass must report as gold, None when that is not checked.
    """

    item_id: str
    messages: tuple[tuple[str, str], ...] = ()
    contains: str = ""
    gold: str | None = None


class Placed(Frozen):
    """One dataset of the config, in OpenCompass's sense: one file of predictions.

    Attributes:
        task_name: `OpenCompassTask.name`.
        abbr: its name, also of its predictions.
        subject: which of a documented config's datasets it is (`mmlu`), else None.
        path: the data file of own items, None for a documented config.
        asked: row i of the dataset.
    """

    task_name: str
    abbr: str
    subject: str | None = None
    path: Path | None = None
    asked: tuple[Asked, ...]


def place_data(tasks: Sequence[OpenCompassTask], data_dir: Path) -> tuple[Placed, ...]:
    """Write the data of every task below `data_dir` (COMPASS_DATA_CACHE); return its datasets.

    Raises `JobError` for an items file that is not what its task says, `DataError` for a record that
    lacks a field or that OpenCompass would alter; the message names file and line.
    """
    placed: list[Placed] = []
    for task in tasks:
        items = read_items(task.task.items_file, task.task.n_items)
        if task.documented is None:
            placed.append(_place_own(task, items, data_dir))
        else:
            placed += _place_documented(task, CATALOGUE[task.documented], items, data_dir)
    return tuple(placed)


def own_messages(item: EvalItem) -> tuple[tuple[str, str], ...]:
    """Return what a chat endpoint is sent for an item: its conversation, or its prompt as one turn."""
    if item.messages:
        return tuple((turn.role, turn.content) for turn in item.messages)
    return (("user", item.prompt),)


def _place_own(task: OpenCompassTask, items: Sequence[EvalItem], data_dir: Path) -> Placed:
    path = data_dir / "own" / f"{task.name}.jsonl"
    asked = tuple(
        Asked(item_id=item.item_id, messages=own_messages(item), gold=item.item_id) for item in items
    )
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": r, "content": c} for r, c in one.messages], "item_id": one.item_id}
        for one in asked
    ]
    _write_lines(path, rows, task.task.items_file)
    return Placed(task_name=task.name, abbr=task.name, path=path, asked=asked)


def _place_documented(
    task: OpenCompassTask, entry: Documented, items: Sequence[EvalItem], data_dir: Path
) -> list[Placed]:
    assert task.records_file is not None
    source = task.records_file
    records = read_json_lines(source.parent, source.name, ITEMS_MAX_BYTES)
    if len(records) != len(items):
        raise JobError(f"{source} holds {len(records)} records for {len(items)} items")
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records, start=1):
        place = f"{source}:{number}"
        row = {name: _field(record, name, names, place) for name, names in entry.fields.items()}
        _refuse_filled(row, entry, place)
        rows.append({**record, **row} if entry.pass_through else row)
    path = data_dir / entry.path
    match entry.layout:
        case "mmlu":
            return _place_mmlu(task, items, rows, path, source)
        case "gpqa":
            return [_place_gpqa(task, items, rows, path)]
        case "gsm8k":
            # Loaded, never shown: the config has its four examples in the prompt.
            _write_lines(path.with_name("train.jsonl"), [{"question": "-", "answer": "#### 0"}], source)
            written = rows
        case "mbpp":
            written = [rows[0]] * MBPP_HEAD + rows
            if len(rows) > 500:
                raise DataError(f"{source}: OpenCompass reads 500 items of MBPP at most, not {len(rows)}")
        case "jsonl":
            written = rows
    _write_lines(path, written, source)
    asked = tuple(_asked(item, row, entry) for item, row in zip(items, rows, strict=True))
    return [Placed(task_name=task.name, abbr=task.name, asked=asked)]


def _asked(item: EvalItem, row: dict[str, Any], entry: Documented) -> Asked:
    gold = None if entry.gold is None else str(row[entry.gold])
    return Asked(item_id=item.item_id, contains=str(row[entry.question]), gold=gold)


def _place_mmlu(
    task: OpenCompassTask,
    items: Sequence[EvalItem],
    rows: Sequence[dict[str, Any]],
    folder: Path,
    source: Path,
) -> list[Placed]:
    """Write one CSV a subject. Its dataset opens a `dev` file too, whose rows are not shown."""
    by_subject: dict[str, list[tuple[EvalItem, dict[str, Any]]]] = {}
    for number, (item, row) in enumerate(zip(items, rows, strict=True), start=1):
        if not _SUBJECT.fullmatch(row["subject"]) or row["target"] not in {"A", "B", "C", "D"}:
            raise DataError(f"{source}:{number} needs a subject like `high_school_physics` and a letter A-D")
        by_subject.setdefault(row["subject"], []).append((item, row))
    placed: list[Placed] = []
    for subject, pairs in sorted(by_subject.items()):
        table = [[row[name] for name in ("input", "A", "B", "C", "D", "target")] for _, row in pairs]
        for split, lines in (("test", table), ("dev", [["-", "-", "-", "-", "-", "A"]])):
            write_atomic(folder / split / f"{subject}_{split}.csv", _csv(lines))
        asked = tuple(_asked(item, row, CATALOGUE["mmlu"]) for item, row in pairs)
        placed.append(
            Placed(task_name=task.name, abbr=f"{task.name}-{subject}", subject=subject, asked=asked)
        )
    return placed


def _place_gpqa(
    task: OpenCompassTask, items: Sequence[EvalItem], rows: Sequence[dict[str, Any]], path: Path
) -> Placed:
    table = [["-"] * 7 + ["Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3))]]
    asked: list[Asked] = []
    for number, (item, row) in enumerate(zip(items, rows, strict=True), start=1):
        options = [row[name] for name in ("right", "wrong1", "wrong2", "wrong3")]
        turned = [options["ABCD".index(letter)] for letter in GPQA_ORDERS[number % 4]]
        letter = "ABCD"[turned.index(options[0])]
        if item.gold != letter:
            raise DataError(
                f"item {item.item_id} has the gold {item.gold!r}; OpenCompass shows the right answer of row "
                f"{number} as {letter!r}"
            )
        table.append(["-"] * 7 + [row["question"], *options])
        asked.append(Asked(item_id=item.item_id, contains=row["question"], gold=letter))
    write_atomic(path, _csv(table))
    return Placed(task_name=task.name, abbr=task.name, asked=tuple(asked))


def _field(record: dict[str, Any], column: str, names: Sequence[str], place: str) -> str:
    if column in ("A", "B", "C", "D") and isinstance(record.get("choices"), list):
        choices: list[Any] = record["choices"]
        if len(choices) == 4 and all(isinstance(choice, str) for choice in choices):
            return choices["ABCD".index(column)]
    for name in names:
        value: Any = record.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # Some files give the letter of a choice as its number.
            return "ABCD"[int(value)] if column == "target" and value in (0, 1, 2, 3) else str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise DataError(f"{place} has none of the fields {', '.join(names)} with text")


def _refuse_filled(row: dict[str, Any], entry: Documented, place: str) -> None:
    """OpenCompass fills `{column}` wherever it stands, in a question's own text too."""
    for text in (value for name, value in row.items() if name not in {entry.gold, "subject"}):
        found = [name for name in entry.filled if f"{{{name}}}" in text]
        if found:
            raise DataError(
                f"{place}: OpenCompass would replace `{{{found[0]}}}` inside the question",
                hint="leave this item out, or ask the items verbatim instead of by the documented name",
            )
        if "\r" in text and entry.layout in ("mmlu", "gpqa"):
            raise DataError(f"{place} holds a carriage return, which OpenCompass's CSV reader changes")


def _csv(rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _write_lines(path: Path, rows: Sequence[dict[str, Any]], source: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if _SURROGATE.search(text):
        raise DataError(f"{source} holds a lone surrogate, which no request can carry")
    # Escaped: a line break of Unicode inside a string would end a line for some readers.
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
