"""From a benchmark's records to rows: the question as user turn, the reference as completion.

The completion is what the benchmark's scorer reads: a number, a letter, or canonical JSON. What else
is known stands in `Row.meta`: `choices` (for the method `choose`), `cluster`, `subject`, and for
comparison with training data `answer_text`, the reference as plain text, and `question_text`, the
question without options, tests or what we ask besides, where it says enough alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from rdagent_ft.answers.number_answers import gold_number, number_text
from rdagent_ft.data.eval_items import SHORT_WORDS
from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.choice_answers import LETTERS, gold_letter
from rdagent_ft.evaluation.public.benchmark import Benchmark
from rdagent_ft.evaluation.public.records import csv_table, csv_tables, json_records
from rdagent_ft.values import canonical_json, sha256_text

MBPP_TEST_IDS = range(11, 511)
_OPTION = re.compile(r"(?:\A|, )['\"]?([a-e]) \) (.*?)['\"]?(?=, ['\"]?[a-e] \) |\]?\Z)", re.DOTALL)
_CODE_ASK = "Write the complete Python function. Put it in one ```python block."


class _Found(NamedTuple):
    """An item before it is a row."""

    question: str
    gold: str
    meta: dict[str, Any]


def read_benchmark(benchmark: Benchmark, path: Path) -> list[Row]:
    """Return every item that the benchmark's scorer can score, in file order; equal items count once.

    Raises `DataError` with file and line on a bad record.
    """
    rows: dict[str, Row] = {}
    for found in _found(benchmark, path):
        parts = [found.question, benchmark.instruction] if benchmark.instruction else [found.question]
        user = Message(role="user", content="\n\n".join(parts))
        row = make_row((user, Message(role="assistant", content=found.gold)), meta=found.meta)
        rows.setdefault(row.item_id, row)
    return list(rows.values())


def _found(benchmark: Benchmark, path: Path) -> list[_Found]:
    match benchmark.reader:
        case "mmlu" | "mmlu_ll":
            return _mmlu(path, choose=benchmark.reader == "mmlu_ll")
        case "gpqa":
            return _gpqa(path)
        case "own":
            raise DataError(f"{path} is a user's own benchmark, which is read elsewhere")
        case "question_answer":
            read = _question_answer
        case "options":
            read = _options
        case "svamp":
            read = _svamp
        case "ifeval":
            read = _ifeval
        case "humaneval":
            read = _humaneval
        case "mbpp":
            read = _mbpp
    items = (read(benchmark, record, place) for place, record in json_records(path))
    return [item for item in items if item is not None]


def _question_answer(benchmark: Benchmark, record: dict[str, Any], place: str) -> _Found | None:
    question = _field(record, benchmark.question, place)
    answer = _field(record, benchmark.answer, place)
    if benchmark.scorer == "numeric_match":
        number = gold_number(answer)
        if number is None:
            return None
        answer = number_text(number)
    return _Found(question, answer, {})


def _svamp(_: Benchmark, record: dict[str, Any], place: str) -> _Found | None:
    body, asked = _field(record, ("Body",), place), _field(record, ("Question",), place)
    number = gold_number(_field(record, ("Answer",), place))
    stop = "" if body.endswith((".", "?", "!", ",")) else "."
    return None if number is None else _Found(f"{body}{stop} {asked}", number_text(number), {})


def _options(benchmark: Benchmark, record: dict[str, Any], place: str) -> _Found:
    asked: Any = record.get("question")
    if isinstance(asked, dict):  # CommonsenseQA keeps stem and choices inside
        inner = cast("dict[str, Any]", asked)
        question, options = _field(inner, ("stem",), place), _option_texts(inner.get("choices"), place)
    else:
        question = _field(record, benchmark.question, place)
        options = _option_texts(record.get("options"), place)
    return _choice(question, options, _field(record, benchmark.answer, place), place)


def _option_texts(value: Any, place: str) -> list[str]:
    """Return the options' texts in order of their letters.

    Forms: ["A)text", …], [{"label", "text"}, …], "a ) text , b ) text".
    """
    texts: list[str] = []
    if isinstance(value, str):
        pairs = [(match[1], match[2]) for match in _OPTION.finditer(value.strip(" []").replace(" , ", ", "))]
        # Some options of MathQA carry their letter twice: `a ) a ) 4 inches`.
        texts = [text.strip(" ,'\"").removeprefix(f"{letter} ) ") for letter, text in pairs]
        right = [letter for letter, _ in pairs] == list("abcde")[: len(pairs)]
    elif isinstance(value, list):
        entries = cast("list[Any]", value)
        for letter, entry in zip(LETTERS, entries, strict=False):
            if isinstance(entry, dict):
                texts.append(_field(cast("dict[str, Any]", entry), ("text",), place))
            else:
                texts.append(re.sub(rf"\A\(?{letter}\s?\)\s?", "", str(entry)).strip())
        right = len(texts) == len(entries)
    else:
        right = False
    if not right or len(texts) < 2:
        raise DataError(f"{place} has no options that can be read")
    return texts


def _choice(
    question: str, options: Sequence[str], answer: str, place: str, meta: dict[str, Any] | None = None
) -> _Found:
    letter = gold_letter(answer)
    if letter is None or LETTERS.index(letter) >= len(options):
        raise DataError(f"{place}: the answer {answer[:40]!r} is none of the {len(options)} options")
    listed = "\n".join(f"{name}. {text}" for name, text in zip(LETTERS, options, strict=False))
    right = options[LETTERS.index(letter)]
    return _Found(f"{question}\n\n{listed}", letter, {**(meta or {}), **_compared(question, right)})


def _compared(question: str, answer: Any) -> dict[str, Any]:
    """Return what training data is compared with: "Which of these is true?" alone would be no item."""
    plain = {"question_text": question} if len(question.split()) >= SHORT_WORDS else {}
    return {**plain, "answer_text": answer if isinstance(answer, str) else ""}


def _mmlu(path: Path, *, choose: bool) -> list[_Found]:
    items: list[_Found] = []
    for subject, table in csv_tables(path, "_test.csv"):
        for place, cells in table:
            if len(cells) != 6:
                raise DataError(f"{place} has {len(cells)} columns, an MMLU file has 6 and no heading")
            question, *options, answer = (cell.strip() for cell in cells)
            found = _choice(question, options, answer, place, {"subject": subject})
            items.append(_as_likelihood(found, subject) if choose else found)
    return items


def _as_likelihood(item: _Found, subject: str) -> _Found:
    """Return the item as it is usually asked by likelihood: a heading, and `Answer:` to continue."""
    topic = subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {topic}."
    question, _, listed = item.question.rpartition("\n\n")
    asked = f"{head}\n\n{question}\n{listed}\nAnswer:"
    return _Found(asked, item.gold, {**item.meta, "choices": list("ABCD")})


def _gpqa(path: Path) -> list[_Found]:
    table = csv_table(path)
    heading = table[0][1] if table else []
    names = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    absent = [name for name in names if name not in heading]
    if absent:
        raise DataError(f"{path} has no column {', '.join(absent)}; it has: {', '.join(heading[:20])}")
    items: list[_Found] = []
    for place, cells in table[1:]:
        record = dict(zip(heading, cells, strict=False))
        question, right, *wrong = (_field(record, (name,), place) for name in names)
        # By the item's own hash: the place of the right option is fixed and says nothing.
        order = sorted([right, *wrong], key=lambda text: sha256_text(f"{question}\0{text}"))
        items.append(_choice(question, order, LETTERS[order.index(right)], place))
    return items


def _ifeval(_: Benchmark, record: dict[str, Any], place: str) -> _Found:
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{place} has no prompt")
    names, kwargs = record.get("instruction_id_list"), record.get("kwargs")
    if not (isinstance(names, list) and isinstance(kwargs, list) and 0 < len(names) == len(kwargs)):  # pyright: ignore[reportUnknownArgumentType]
        raise DataError(f"{place}: instruction_id_list and kwargs are not lists of one length")
    gold: dict[str, Any] = {
        "key": record.get("key"),
        "prompt": prompt,
        "instruction_id_list": names,
        # Other copies of the file fill every missing argument with null.
        "kwargs": [_without_nulls(entry, place) for entry in cast("list[Any]", kwargs)],
    }
    return _Found(prompt, canonical_json(gold), {"answer_text": ""})


def _without_nulls(entry: Any, place: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f"{place}: kwargs hold something else than objects")
    pairs = cast("dict[str, Any]", entry)
    return {name: value for name, value in pairs.items() if value is not None}


def _humaneval(_: Benchmark, record: dict[str, Any], place: str) -> _Found:
    fields = ("task_id", "prompt", "entry_point", "test")
    gold = {name: _text(record, name, place) for name in fields}
    asked = f"Complete this Python function.\n\n```python\n{gold['prompt'].rstrip()}\n```\n\n{_CODE_ASK}"
    return _Found(asked, canonical_json(gold), _compared(gold["prompt"], record.get("canonical_solution")))


def _mbpp(_: Benchmark, record: dict[str, Any], place: str) -> _Found | None:
    task_id, tests = record.get("task_id"), record.get("test_list")
    if not isinstance(task_id, int):
        raise DataError(f"{place} has no whole number task_id")
    if task_id not in MBPP_TEST_IDS:
        return None
    if (
        not isinstance(tests, list)
        or not tests
        or not all(isinstance(t, str) for t in cast("list[Any]", tests))
    ):
        raise DataError(f"{place} has no test_list of texts")
    listed = cast("list[str]", tests)
    setup = record.get("test_setup_code")
    gold = {"task_id": task_id, "tests": listed, "setup": setup if isinstance(setup, str) else ""}
    text = _field(record, ("text", "prompt"), place)
    asked = f"{text}\n\nYour code should pass these tests:\n\n" + "\n".join(listed) + f"\n\n{_CODE_ASK}"
    return _Found(asked, canonical_json(gold), _compared(text, record.get("code")))


def _text(record: dict[str, Any], name: str, place: str) -> str:
    """Return a text as it stands: in code, blanks count."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} has no text in the field {name}; it has: {', '.join(list(record)[:20])}")
    return value


def _field(record: dict[str, Any], names: Sequence[str], place: str) -> str:
    for name in names:
        value = record.get(name)
        if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
            value = cast("list[Any]", value)[0]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise DataError(
        f"{place} has none of the fields {', '.join(names)} with text; it has: {', '.join(list(record)[:20])}"
    )
