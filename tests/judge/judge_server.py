"""Judges for tests: real servers that read a request's marked texts and answer by a rule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_openai import FakeOpenAI, Reply, Status

from rdagent_ft.evaluation.judge.build import BuiltJudge, build_judge
from rdagent_ft.evaluation.judge.calibration_sets import CalibrationSet
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.settings import Settings

KEY = "sk-judge-secret-0123456789"
_NUMBER = re.compile(r"between lines <<NAME ([0-9a-f]{16})>>")


def texts_of(body: dict[str, Any]) -> dict[str, str]:
    """Name -> text, read by the marks whose number stands in the system message."""
    system, user = body["messages"][0]["content"], body["messages"][1]["content"]
    number = _NUMBER.search(system)[1]
    found = re.findall(rf"<<([a-z ]+) {number}>>\n(.*?)\n<<end of \1 {number}>>", user, re.S)
    return dict(found)


def number_of(body: dict[str, Any]) -> str:
    return _NUMBER.search(body["messages"][0]["content"])[1]


def says(verdict: str, **more: Any) -> Reply:
    """A reply of the usual form."""
    return Reply(json.dumps({"verdict": verdict, **more, "confidence": 0.9, "rationale": "because"}))


def by(rule: Callable[[dict[str, str]], str]) -> Callable[[dict[str, Any]], Reply]:
    """A server step that judges by the request's texts."""
    return lambda body: says(rule(texts_of(body)))


def gold_rule(*sets: CalibrationSet, is_contrary: bool = False) -> Callable[[dict[str, str]], str]:
    """A judge that knows all labels, or always says their opposite."""
    better = {
        (p.input.strip(), p.output_1.strip(), p.output_2.strip()): p.label for s in sets for p in s.pairs
    }
    right = {(a.question, a.reference, a.answer): a.label for s in sets for a in s.answers}
    opposite = {"first": "second", "second": "first", "correct": "incorrect", "incorrect": "correct"}

    def rule(texts: dict[str, str]) -> str:
        if "answer" in texts:
            verdict = right[texts["question"], texts["reference"], texts["answer"]]
        else:
            one, two, asked = texts["first answer"], texts["second answer"], texts["instruction"]
            label = better.get((asked, one, two))
            if label is None:
                label = 3 - better[asked, two, one]
            verdict = "first" if label == 1 else "second"
        return opposite[verdict] if is_contrary else verdict

    return rule


def built(server: FakeOpenAI, folder: Path, **settings: Any) -> tuple[BuiltJudge, MemoryLedger, list[str]]:
    """The judge of these settings, as the program builds it."""
    values: dict[str, Any] = {
        "file_path": folder,
        "planner_model": "judge-1",  # so that the prices below are the judge's
        "judge_model": "judge-1",
        "judge_api_base": server.base_url,
        "judge_api_key": KEY,
        "llm_timeout": 5.0,
        "llm_max_wait": 0.2,
        "llm_price_input": 1.0,
        "llm_price_output": 10.0,
        "llm_max_output_tokens": 256,
    }
    ledger, notes = MemoryLedger(), []
    found = build_judge(Settings.model_validate({**values, **settings}), ledger, notes.append)
    assert found is not None
    return found, ledger, notes


def row(item_id: str, prediction: str, gold: str, score: float | None, **more: Any) -> SampleRow:
    """A row of a benchmark."""
    return SampleRow.model_validate(
        {
            "benchmark": "b", "split": "val", "item_id": item_id, "prompt_hash": "0" * 16,
            "prediction": prediction, "gold": gold, "score": score, **more,
        }
    )  # fmt: skip


OUTAGE = Status(503, "the judge is away")
