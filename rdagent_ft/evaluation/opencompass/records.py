"""The benchmark's own records behind its items: what OpenCompass makes its documented prompts from.

An item is a benchmark's question in our words, with our instruction; OpenCompass wants the raw record. So
the data file is read again and each item is paired with the record that it was made from. Which items are
asked is not decided here, and what OpenCompass does with a record is `place`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from rdagent_ft.data.rows import Row
from rdagent_ft.data.write import write_lines
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import FoundBenchmark
from rdagent_ft.evaluation.items import EvalItem, Turn
from rdagent_ft.evaluation.opencompass.catalogue import CATALOGUE
from rdagent_ft.evaluation.opencompass.place import GPQA_ORDERS
from rdagent_ft.evaluation.opencompass.spec import ShortName
from rdagent_ft.evaluation.public.records import csv_table, csv_tables, json_records

Record = dict[str, Any]
_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")


class Paired(NamedTuple):
    """An item's record, its question as it stands there, and the reference that our scorer reads."""

    record: Record
    question: str
    gold: str


def short_name(name: str) -> ShortName | None:
    """Return the documented short name that a registry name is; None for all others."""
    known: tuple[ShortName, ...] = get_args(ShortName)
    return next((short for short in known if short == name), None)


def records_of(found: FoundBenchmark, rows: Sequence[Row]) -> list[Paired]:
    """Return the record of each item, in the order of the items.

    The reference is the item's own, but for `gpqa`: OpenCompass turns the options by the item's place.
    Raises `DataError` for a benchmark without a documented config, or an item that the file has not.
    """
    name = short_name(found.benchmark.name)
    if name is None:
        raise DataError(f"OpenCompass has no documented config for {found.benchmark.name} here")
    known: dict[str, Record] = {}
    for record in _records(found, name):
        known.setdefault(_key_of(record, found, name), record)
    pairs: list[Paired] = []
    for number, row in enumerate(rows, start=1):
        record = known.get(_key_of_item(row, found, name))
        if record is None:
            raise DataError(f"{found.path} holds no record of item {row.item_id}")
        gold = "ABCD"[GPQA_ORDERS[number % 4].index("A")] if name == "gpqa" else row.completion
        asked = (record.get(field) for field in CATALOGUE[name].fields[CATALOGUE[name].question])
        question = next((text for text in asked if isinstance(text, str) and text.strip()), "")
        pairs.append(Paired(record, question, gold))
    return pairs


def write_documented(
    items_file: Path, records_file: Path, found: FoundBenchmark, rows: Sequence[Row]
) -> None:
    """Write items and records, line by line the same, as `OpenCompassTask` takes them.

    An item's prompt is the bare question: what stands around it is OpenCompass's. Raises `DataError`.
    """
    pairs = records_of(found, rows)
    clusters = (row.meta.get("cluster") for row in rows)
    items = [
        EvalItem(
            item_id=row.item_id,
            prompt=pair.question,
            gold=pair.gold,
            cluster=None if cluster is None else str(cluster),
            messages=(Turn(role="user", content=pair.question),),
        )
        for row, pair, cluster in zip(rows, pairs, clusters, strict=True)
    ]
    write_lines(items_file, (item.model_dump(mode="json") for item in items))
    write_lines(records_file, (pair.record for pair in pairs))


def _records(found: FoundBenchmark, name: ShortName) -> Iterator[Record]:
    """Yield the records of the data file as it has them, in file order."""
    if name == "mmlu":
        for subject, table in csv_tables(found.path, "_test.csv"):
            for _, cells in table:
                yield {"subject": subject, **dict(zip(_MMLU_COLUMNS, cells, strict=False))}
    elif name == "gpqa":
        table = csv_table(found.path)
        for _, cells in table[1:]:
            yield dict(zip(table[0][1], cells, strict=False))
    else:
        yield from (record for _, record in json_records(found.path))


def _key_of(record: Record, found: FoundBenchmark, name: ShortName) -> str:
    """Return what tells a record from the others: equal to `_key_of_item` of the item made from it."""
    match name:
        case "humaneval" | "mbpp":
            return str(record.get("task_id"))
        case "ifeval":
            return str(record.get("prompt"))
        case "gpqa":
            return str(record.get("Question")).strip()
        case "mmlu":
            listed = "\n".join(f"{letter}. {str(record.get(letter)).strip()}" for letter in "ABCD")
            return f"{str(record.get('question')).strip()}\n\n{listed}"
        case _:
            texts = (record.get(field) for field in found.benchmark.question)
            return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def _key_of_item(row: Row, found: FoundBenchmark, name: ShortName) -> str:
    match name:
        case "humaneval" | "mbpp":
            return str(_gold_of(row).get("task_id"))
        case "ifeval":
            return str(_gold_of(row).get("prompt"))
        case _:
            asked = row.prompt_text
            if found.benchmark.instruction:
                asked = asked.removesuffix(f"\n\n{found.benchmark.instruction}")
            # Our own letters follow the question of a GPQA item, in an order of our own.
            return asked.partition("\n\nA. ")[0].strip() if name == "gpqa" else asked


def _gold_of(row: Row) -> Record:
    value: Any = json.loads(row.completion)
    return cast("Record", value) if isinstance(value, dict) else {}
