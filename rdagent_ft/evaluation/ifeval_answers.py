"""`ifeval`: did the answer follow its instructions? By lm-eval's own checks, in children.

The score of an answer is "all instructions, strict"; the other three published measures are in
`SampleRow.parts` (`ifeval_metrics`). What a model wrote can only cost the model: an answer that hangs
or kills the checks followed none. A new instruction set (IFBench) is not covered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from rdagent_ft.errors import PreflightError, Problem
from rdagent_ft.evaluation.ratios import Ratio, ratio, ratio_difference
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.scorers import MAX_ANSWER_CHARS, Scored
from rdagent_ft.execution.line_worker import LineReply, ask_all
from rdagent_ft.values import Frozen

ITEM_LIMIT_S = 15.0
MODULE = "rdagent_ft.evaluation.ifeval_job"
NLTK_FOLDER = "nltk_data"
PACKAGES = ("lm_eval", "langdetect", "immutabledict", "nltk")

SEED = 0
"""Seeds the checks that draw a letter, before every item. With 0, GPT-4's published answers score as
they do with one `random.seed(0)` before the whole file."""

Metric = Literal["prompt_strict", "inst_strict", "prompt_loose", "inst_loose"]
METRICS: tuple[Metric, ...] = ("prompt_strict", "inst_strict", "prompt_loose", "inst_loose")


class IfevalGold(Frozen):
    """The reference of one item: its question and the instructions to check."""

    key: int
    prompt: str
    instruction_id_list: tuple[str, ...]
    kwargs: tuple[dict[str, Any], ...]


def find_nltk_data(file_path: Path) -> Path | None:
    """Return the folder with NLTK's `tokenizers/punkt_tab`: `NLTK_DATA`, else benchmarks/nltk_data."""
    named = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    for folder in (*named, file_path / "benchmarks" / NLTK_FOLDER):
        if has_punkt(folder):
            return folder
    return None


def has_punkt(folder: Path) -> bool:
    """Return whether the folder holds the sentence splitter's English tables."""
    return (folder / "tokenizers" / "punkt_tab" / "english").is_dir()


def ifeval_problems(nltk_data: Path | None) -> list[Problem]:
    """Return what is missing for `ifeval`: packages, or NLTK's tables."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    problems: list[Problem] = []
    if absent:
        problems.append(
            Problem(
                key="scorer",
                value="ifeval",
                rule=f"needs {', '.join(absent)}, not installed here",
                problem_class="benchmark.package",
                fix="pip install 'lm-eval[ifeval]==0.4.13'",
            )
        )
    if nltk_data is None or not has_punkt(nltk_data):
        problems.append(
            Problem(
                key="NLTK_DATA",
                value=None if nltk_data is None else str(nltk_data),
                rule="ifeval counts sentences with NLTK's `punkt_tab`, which is not on this machine",
                problem_class="benchmark.no_data",
                fix=f"unpack punkt_tab to FT_FILE_PATH/benchmarks/{NLTK_FOLDER}/tokenizers/punkt_tab, "
                "or set NLTK_DATA to a folder that holds tokenizers/punkt_tab",
            )
        )
    return problems


def score_ifeval(
    pairs: Sequence[tuple[str, str]],
    *,
    nltk_data: Path | None,
    seed: int = SEED,
    limit_s: float = ITEM_LIMIT_S,
) -> list[Scored]:
    """Return the scores of (prediction, gold) pairs, in order; `gold` is the JSON of `IfevalGold`.

    Raises `PreflightError` when a package or NLTK data is missing, `JobError` when a scoring process
    cannot start.
    """
    problems = ifeval_problems(nltk_data)
    if problems:
        raise PreflightError("instruction following cannot be scored here", problems=tuple(problems))
    golds = [read_gold(gold) for _, gold in pairs]
    asked = [
        n
        for n, ((prediction, _), gold) in enumerate(zip(pairs, golds, strict=True))
        if gold is not None and len(prediction) <= MAX_ANSWER_CHARS
    ]
    requests = [_request(pairs[n][0], golds[n], seed) for n in asked]
    environment = {"NLTK_DATA": str(nltk_data)}
    replies = ask_all(MODULE, requests, limit_s=limit_s, environment=environment)
    by_number = dict(zip(asked, replies, strict=True))
    return [_scored(gold, by_number.get(n)) for n, gold in enumerate(golds)]


def read_gold(gold: str) -> IfevalGold | None:
    """Return the parsed reference; None when it is none, or its lists do not match."""
    try:
        found = IfevalGold.model_validate_json(gold)
    except ValidationError:
        return None
    right = len(found.instruction_id_list) == len(found.kwargs) > 0
    return found if right else None


def ifeval_metrics(rows: Sequence[SampleRow], *, seed: int = 0) -> dict[Metric, Ratio]:
    """Return the four published measures with bootstrap intervals over prompts.

    Instructions of one prompt are not independent, so whole prompts are drawn. Unscored rows are left
    out. Raises `ValueError` with fewer than 2 scored rows.
    """
    scored = [row for row in rows if row.score is not None]
    return {metric: ratio([_sums(row, metric) for row in scored], seed=seed) for metric in METRICS}


def ifeval_differences(
    base: Sequence[SampleRow], tuned: Sequence[SampleRow], *, seed: int = 0
) -> dict[Metric, Ratio]:
    """Return tuned - base of the four measures over prompts that both sides have scored.

    Raises `ValueError` with fewer than 2 such prompts.
    """
    left = {(row.item_id, row.repeat): row for row in base if row.score is not None}
    right = {(row.item_id, row.repeat): row for row in tuned if row.score is not None}
    shared = [key for key in left if key in right]
    return {
        metric: ratio_difference(
            [_sums(left[key], metric) for key in shared],
            [_sums(right[key], metric) for key in shared],
            seed=seed,
        )
        for metric in METRICS
    }


def _sums(row: SampleRow, metric: Metric) -> tuple[float, float]:
    values = (row.score or 0.0,) if metric == "prompt_strict" else row.parts[metric]
    return sum(values), float(len(values))


def _request(prediction: str, gold: IfevalGold | None, seed: int) -> dict[str, Any]:
    assert gold is not None
    return {**gold.model_dump(mode="json", exclude={"key"}), "response": prediction, "seed": seed}


def _scored(gold: IfevalGold | None, reply: LineReply | None) -> Scored:
    if gold is None:
        return Scored(score=None, unscored_reason="reference is no list of instructions")
    n = len(gold.instruction_id_list)
    value: Mapping[str, Any] = reply.value if reply is not None else {}
    strict, loose = _bits(value.get("strict"), n), _bits(value.get("loose"), n)
    followed = [name for name, bit in zip(gold.instruction_id_list, strict, strict=True) if bit]
    return Scored(
        score=float(all(strict)),
        extracted=f"{len(followed)}/{n} followed: {', '.join(followed)}"[:500],
        parts={"inst_strict": strict, "prompt_loose": (float(all(loose)),), "inst_loose": loose},
    )


def _bits(value: Any, n: int) -> tuple[float, ...]:
    """Return n zeros or ones; zeros for anything but a list of n of them."""
    if isinstance(value, list) and len(value) == n and all(bit in (0, 1) for bit in value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return tuple(float(bit) for bit in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return (0.0,) * n
