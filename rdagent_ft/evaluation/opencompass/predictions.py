"""What OpenCompass left, read as hostile input and matched to the items.

`predictions/<model>/<dataset>.json` is written when a dataset is done: {"0": {origin_prompt, prediction,
gold}, ...}. Until then `tmp_<dataset>.jsonl` grows batch by batch. The index is only a claim: an answer
counts when the prompt that was asked, and the gold where the item knows it, are those of the item.
OpenCompass keeps neither why generation ended nor how many tokens it took, so both stay unknown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.items import Answer, EvalItem, prompt_hash
from rdagent_ft.evaluation.opencompass.place import Placed
from rdagent_ft.evaluation.opencompass.spec import OpenCompassTask
from rdagent_ft.execution.outputs import iter_json_lines, read_json_file
from rdagent_ft.values import Frozen, canonical_json, content_hash, sha256_text, write_atomic

MAX_FILE_BYTES = 1 << 30
BYTES_PER_TOKEN, ROW_MIN_BYTES = 512, 1 << 20
_ROLES = {"HUMAN": "user", "BOT": "assistant", "SYSTEM": "system"}

State = Literal["complete", "partial", "none"]


class DatasetAnswers(Frozen):
    """The answers of one dataset.

    Attributes:
        state: `complete` (the finished file, every item), `partial` or `none`.
        answers: in item order, then by repeat.
        asked_sha256: hash over all prompts in order as OpenCompass reports them; equal for two models
            that were asked alike. Only with `complete`.
    """

    abbr: str
    state: State
    answers: tuple[Answer, ...] = ()
    asked_sha256: str | None = None


def read_dataset(
    run_dir: Path, role: str, task: OpenCompassTask, placed: Placed, items: dict[str, EvalItem]
) -> DatasetAnswers:
    """Read one dataset's predictions below `run_dir` (OpenCompass's timestamp folder).

    Raises `JobError` for a file that is malformed or whose prompts, golds or number of answers are not
    those of the items: such answers belong to something else.
    """
    folder = f"predictions/{role}"
    final, unfinished = f"{folder}/{placed.abbr}.json", f"{folder}/tmp_{placed.abbr}.jsonl"
    n_expected = len(placed.asked) * task.task.repeats
    is_complete = (run_dir / final).exists()
    if is_complete:
        found = _finished(run_dir, final, n_expected)
    elif (run_dir / unfinished).exists():
        found = _unfinished(run_dir, unfinished, n_expected, task.task.max_new_tokens)
    else:
        return DatasetAnswers(abbr=placed.abbr, state="none")
    name = final if is_complete else unfinished
    answers = [
        _answer(found[index], index, placed, items, f"{name}, entry {index}") for index in sorted(found)
    ]
    place = {asked.item_id: number for number, asked in enumerate(placed.asked)}
    ordered = sorted(answers, key=lambda answer: (place[answer.item_id], answer.repeat))
    if not is_complete:
        return DatasetAnswers(
            abbr=placed.abbr, state="partial" if ordered else "none", answers=tuple(ordered)
        )
    prompts = [canonical_json(found[index]["origin_prompt"]) for index in range(n_expected)]
    return DatasetAnswers(
        abbr=placed.abbr,
        state="complete",
        answers=tuple(ordered),
        asked_sha256=sha256_text("\n".join(prompts)),
    )


def mend_unfinished(
    run_dir: Path, role: str, task: OpenCompassTask, placed: Placed, items: dict[str, EvalItem]
) -> None:
    """Rewrite what an interrupted run saved so that OpenCompass can go on from it.

    It gives up the whole file when the last line is cut, or when a text holds one of the characters
    that `str.splitlines` takes for a line end; and it goes on at the number of lines, so they must be
    the first ones. Raises `JobError` as `read_dataset` does.
    """
    name = f"predictions/{role}/tmp_{placed.abbr}.jsonl"
    if not (run_dir / name).exists() or (run_dir / f"predictions/{role}/{placed.abbr}.json").exists():
        return
    found = _unfinished(run_dir, name, len(placed.asked) * task.task.repeats, task.task.max_new_tokens)
    lines: list[str] = []
    for index in range(len(found)):
        if index not in found:
            raise JobError(f"{name} answers question {max(found)} but not {index}")
        _answer(found[index], index, placed, items, f"{name}, entry {index}")
        lines.append(json.dumps({**found[index], "idx": str(index)}) + "\n")
    write_atomic(run_dir / name, "".join(lines))


def _finished(run_dir: Path, name: str, n_expected: int) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for key, value in read_json_file(run_dir, name, MAX_FILE_BYTES).items():
        found[_index(key, n_expected, name)] = _entry(value, f"{name}, entry {key[:20]}")
    if len(found) != n_expected:
        raise JobError(f"{name} holds {len(found)} answers to {n_expected} questions")
    return found


def _unfinished(run_dir: Path, name: str, n_expected: int, max_new_tokens: int) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    longest = ROW_MIN_BYTES + BYTES_PER_TOKEN * max_new_tokens
    lines = iter_json_lines(
        run_dir, name, MAX_FILE_BYTES, n_expected, max_line_bytes=longest, allow_cut_end=True
    )
    for number, line in lines:
        index = _index(line.get("idx"), n_expected, f"{name}:{number}")
        if index in found:
            raise JobError(f"{name}:{number} answers question {index} a second time")
        found[index] = _entry(line, f"{name}:{number}")
    return found


def _index(key: object, n_expected: int, place: str) -> int:
    """Return the index that a key names. Only the plain form counts: `01`, `+1` or `¹` could double one."""
    text = str(key) if isinstance(key, (str, int)) and not isinstance(key, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and str(int(text)) == text):
        raise JobError(f"{place} has {str(key)[:40]!r} where an index belongs")
    if int(text) >= n_expected:
        raise JobError(f"{place} has the index {text}, but only {n_expected} questions were asked")
    return int(text)


def _entry(value: object, place: str) -> dict[str, Any]:
    entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if not isinstance(entry.get("prediction"), str) or "origin_prompt" not in entry:
        raise JobError(f"{place} is no answer: it needs `origin_prompt` and a text as `prediction`")
    return entry


def _answer(
    entry: dict[str, Any], index: int, placed: Placed, items: dict[str, EvalItem], place: str
) -> Answer:
    asked = placed.asked[index % len(placed.asked)]
    seen = _messages(entry["origin_prompt"], place)
    if asked.messages and seen != asked.messages:
        raise JobError(f"{place} was asked another text than item {asked.item_id}")
    if asked.contains and (not seen or seen[-1][0] != "user" or asked.contains not in seen[-1][1]):
        raise JobError(f"{place} was not asked the question of item {asked.item_id}")
    if asked.gold is not None and str(entry.get("gold", "")) != asked.gold:
        raise JobError(f"{place} has another gold than item {asked.item_id}")
    # Verbatim: the item's own prompt, which was just found to be what was asked. Documented: what
    # OpenCompass made of the record.
    if asked.messages:
        hashed = prompt_hash(items[asked.item_id].prompt)
    else:
        hashed = content_hash([list(turn) for turn in seen], 16)
    return Answer(
        item_id=asked.item_id,
        repeat=index // len(placed.asked),
        prompt_hash=hashed,
        prediction=entry["prediction"].encode("utf-8", "replace").decode("utf-8"),
    )


def _messages(prompt: object, place: str) -> tuple[tuple[str, str], ...]:
    """Return (role, content) of each turn; OpenCompass reports its own form or the protocol's."""
    turns: list[tuple[str, str]] = []
    for turn in cast("list[Any]", prompt) if isinstance(prompt, list) else [None]:
        fields = cast("dict[str, Any]", turn) if isinstance(turn, dict) else {}
        role, content = fields.get("role"), fields.get("content", fields.get("prompt"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise JobError(f"{place} has an `origin_prompt` that is no list of turns")
        turns.append((_ROLES.get(role, role), content))
    return tuple(turns)
