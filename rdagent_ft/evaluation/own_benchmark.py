"""A user's own benchmark: one JSON lines file of questions with references, and a scorer.

A line is `{"id", "prompt" | "messages", "answer" | "rubric", "cluster"?}`. All bad lines are reported
together. Covers neither code (its programs need a benchmark's own tests) nor instruction checks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from pydantic import ValidationError

from rdagent_ft.data.rows import Message, Row, make_row
from rdagent_ft.errors import DataError, Problem, UserError
from rdagent_ft.evaluation.benchmark_registry import BENCHMARKS
from rdagent_ft.evaluation.public.benchmark import Benchmark
from rdagent_ft.evaluation.public.records import json_records
from rdagent_ft.evaluation.rows import RuleName, ScorerName
from rdagent_ft.evaluation.scorers import choose_scorer, score_answer
from rdagent_ft.values import canonical_json

OWN_SCORERS: tuple[ScorerName, ...] = (*get_args(RuleName), "math_match", "rubric")
FIELDS = frozenset({"id", "prompt", "messages", "answer", "rubric", "cluster"})
MAX_SHOWN = 10
MAX_NEW_TOKENS = 2048
_EXAMPLE = 'write {"id": "1", "prompt": "…", "answer": "…"}, or `messages` and `rubric` instead'
_SPEC = re.compile(r"(?P<path>.+?\.jsonl)(?::(?P<scorer>[A-Za-z_]+))?", re.DOTALL)


class _Line(NamedTuple):
    row: Row
    item_id: str
    judged: bool


def is_own(name: str) -> bool:
    """Return whether the name is a file: it ends in `.jsonl` or `.jsonl:scorer`."""
    return _SPEC.fullmatch(name.strip()) is not None


def own_spec(name: str) -> tuple[Path, str | None, str]:
    """Return (absolute path, scorer as named or None, short name for files and tables)."""
    match = _SPEC.fullmatch(name.strip())
    if match is None:
        raise UserError(f"{name!r} is not a .jsonl file with an optional scorer")
    path = Path(match["path"]).expanduser().absolute()
    short = re.sub(r"[^a-z0-9_-]+", "_", path.stem.lower()).strip("_-")[:60] or "own"
    return path, match["scorer"], f"own_{short}" if short in BENCHMARKS or short == "heldout" else short


def own_problems(name: str) -> list[Problem]:
    """Return everything that is wrong with the file, limited to the first 10 lines, or nothing."""
    return _read(name)[2]


def read_own(name: str) -> tuple[Benchmark, list[Row]]:
    """Return the benchmark and its items. Raises `DataError` that lists all bad lines together."""
    benchmark, rows, problems = _read(name)
    if problems or benchmark is None:
        raise DataError(f"the benchmark {name} cannot be used", problems=tuple(problems))
    return benchmark, rows


def _read(name: str) -> tuple[Benchmark | None, list[Row], list[Problem]]:
    path, scorer, short = own_spec(name)
    if scorer is not None and scorer not in OWN_SCORERS:
        return (
            None,
            [],
            [_problem(name, "no such scorer for an own file", f"use one of {', '.join(OWN_SCORERS)}")],
        )
    if not path.is_file():
        return None, [], [_problem(name, f"there is no file {path}", "check the path")]
    try:
        records = json_records(path)
    except DataError as error:
        return None, [], [_problem(name, error.message, "write one JSON object a line")]
    lines, problems = _lines(records)
    if not problems and not lines:
        problems = [_problem(name, "it holds no item", "write one JSON object a line")]
    if problems:
        return None, [], _limited(problems, str(path))
    chosen, reason = _scorer(scorer, lines)
    problems = _unscorable(chosen, lines, str(path))
    if problems:
        return None, [], _limited(problems, str(path))
    rows = [line.row for line in lines]
    benchmark = Benchmark(
        name=short,
        title=f"own file {path.name}, {reason}",
        source=str(path),
        licence="the user's own",
        metric="accuracy" if chosen not in ("token_f1", "rubric") else "mean_score",
        scorer=chosen,
        reader="own",
        files=(path.name,),
        max_new_tokens=MAX_NEW_TOKENS,
        noise=f"{len(rows)} items: a paired change below about {_shown_pp(len(rows)):.0f} pp cannot be shown",
        n_items=len(rows),
    )
    return benchmark, rows, []


def _lines(records: list[tuple[str, dict[str, Any]]]) -> tuple[list[_Line], list[Problem]]:
    lines: list[_Line] = []
    problems: list[Problem] = []
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    for place, record in records:
        found = _line(record)
        if isinstance(found, str):
            problems.append(_problem(place, found, _EXAMPLE))
            continue
        if found.item_id in ids:
            rule = f"the id {found.item_id[:60]!r} is already at {ids[found.item_id]}"
            problems.append(_problem(place, rule, "give every item its own id"))
        elif found.row.item_id in texts:
            rule = f"question and reference are those of {texts[found.row.item_id]}"
            problems.append(_problem(place, rule, "remove one of the two"))
        ids.setdefault(found.item_id, place)
        texts.setdefault(found.row.item_id, place)
        lines.append(found)
    if len({line.judged for line in lines}) > 1:
        problems.append(_problem(None, "some lines have an answer, others a rubric only", "use two files"))
    return lines, problems


def _line(record: dict[str, Any]) -> _Line | str:
    """Return the item of a line, or what is wrong with it."""
    unknown = sorted(set(record) - FIELDS)
    if unknown:
        return f"unknown keys {', '.join(unknown)[:120]}; known: {', '.join(sorted(FIELDS))}"
    item_id = record.get("id")
    if not isinstance(item_id, (str, int)) or isinstance(item_id, bool) or item_id == "":
        return "`id` must be a text or a whole number"
    cluster = record.get("cluster")
    if cluster is not None and (not isinstance(cluster, (str, int)) or isinstance(cluster, bool)):
        return "`cluster` must be a text or a whole number"
    turns, gold = _turns(record), _gold(record)
    if isinstance(turns, str):
        return turns
    if gold is None:
        return "`answer` must be a text or a number, or `rubric` a text or a list of texts"
    meta: dict[str, Any] = {"id": str(item_id), "answer_text": gold.plain}
    if cluster is not None:
        meta["cluster"] = str(cluster)
    row = make_row((*turns, Message(role="assistant", content=gold.text)), meta=meta)
    return _Line(row, str(item_id), gold.judged)


def _turns(record: dict[str, Any]) -> tuple[Message, ...] | str:
    prompt, messages = record.get("prompt"), record.get("messages")
    if (prompt is None) == (messages is None):
        return "give either `prompt` or `messages`"
    if prompt is not None:
        good = isinstance(prompt, str) and prompt.strip()
        return (Message(role="user", content=prompt),) if good else "`prompt` must be a text"
    try:
        turns = tuple(Message.model_validate(turn) for turn in cast("list[Any]", messages))
    except (ValidationError, TypeError):
        return "`messages` must be a list of {role, content}"
    if not turns or turns[-1].role != "user":
        return "the last of `messages` must be the user's"
    return turns


class _Gold(NamedTuple):
    text: str
    plain: str
    judged: bool


def _gold(record: dict[str, Any]) -> _Gold | None:
    answer, rubric = record.get("answer"), record.get("rubric")
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and (not isinstance(answer, str) or not answer.strip()):
        return None
    if rubric is None:
        return None if answer is None else _Gold(answer, answer, judged=False)
    points = cast("list[Any]", rubric) if isinstance(rubric, list) else [rubric]
    if not points or not all(isinstance(point, str) and point.strip() for point in points):
        return None
    gold = {"rubric": "\n".join(cast("list[str]", points)), "reference": answer}
    return _Gold(canonical_json(gold), answer or "", judged=True)


def _scorer(named: str | None, lines: list[_Line]) -> tuple[ScorerName, str]:
    if named is not None:
        return cast("ScorerName", named), f"scored by {named}"
    if lines[0].judged:
        return "rubric", "scored by a judge, as it holds rubrics"
    return choose_scorer([line.row.completion for line in lines])


def _unscorable(scorer: ScorerName, lines: list[_Line], path: str) -> list[Problem]:
    """Return the lines whose reference the scorer cannot use."""
    if lines[0].judged != (scorer == "rubric"):
        rule = f"{scorer} needs {'a rubric' if scorer == 'rubric' else 'an answer'} in every line"
        return [_problem(path, rule, "name another scorer")]
    if scorer not in get_args(RuleName):
        return []
    rule_name = cast("RuleName", scorer)
    problems: list[Problem] = []
    for line in lines:
        reason = score_answer(rule_name, "", line.row.completion).unscored_reason
        if reason is not None:
            problems.append(
                _problem(f"{path}, id {line.item_id[:60]}", reason, f"correct it, or not {scorer}")
            )
    return problems


def _limited(problems: list[Problem], path: str) -> list[Problem]:
    if len(problems) <= MAX_SHOWN:
        return problems
    rest = _problem(path, f"{len(problems) - MAX_SHOWN} further lines are wrong", "correct these first")
    return [*problems[:MAX_SHOWN], rest]


def _problem(value: str | None, rule: str, fix: str) -> Problem:
    return Problem(key="benchmark", value=value, rule=rule, problem_class="benchmark.own_file", fix=fix)


def _shown_pp(n: int) -> float:
    """Return the smallest change in pp that `n` pairs show when 20 % differ: 280 sqrt(0.2 / n)."""
    return 280 * (0.2 / n) ** 0.5
