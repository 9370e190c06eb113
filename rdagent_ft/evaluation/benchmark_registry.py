"""The known public benchmarks: what they are, which local file holds them, how they are scored.

Facts only; finding and reading the files is in `benchmarks.py`. Data never ships with the package:
licences differ, and AIME problems belong to the MAA.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.rows import ScorerName
from rdagent_ft.values import Frozen


class Benchmark(Frozen):
    """One benchmark.

    Attributes:
        name: registry name, also the folder under FT_FILE_PATH/benchmarks.
        title: full name for people.
        source, licence: where the items come from and under which terms.
        metric, higher_is_better: what the score is.
        scorer: the rule that scores an answer.
        files: candidate file names in the benchmark's folder, best first.
        folders: other folder names under which the files are found.
        question, answer: candidate field names, best first.
        instruction: added to every question as its own paragraph; empty for none.
        max_new_tokens: generation limit per answer.
        guide_names: dataset config names of other harnesses that users know, for documentation.
        noise: what the number of items can and cannot show.
        n_items: items of the complete file.
    """

    name: str
    title: str
    source: str
    licence: str
    metric: Literal["accuracy"] = "accuracy"
    higher_is_better: bool = True
    scorer: ScorerName = "numeric_match"
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    question: tuple[str, ...]
    answer: tuple[str, ...]
    instruction: str = ""
    max_new_tokens: int
    guide_names: tuple[str, ...] = ()
    noise: str
    n_items: int


_BOXED = "Put the final answer within \\boxed{}."
_SMALL = "30 items: one standard error is up to 9 pp, a paired change below about 25 pp cannot be shown"

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="gsm8k",
            title="GSM8K, grade-school maths word problems (test split)",
            source="openai/grade-school-math",
            licence="MIT",
            files=("test.jsonl", "gsm8k.jsonl", "gsm8k_test.jsonl"),
            question=("question",),
            answer=("answer",),
            max_new_tokens=512,
            guide_names=("gsm8k_gen_1d7fe4", "gsm8k_0shot_v2_gen_17d799"),
            noise="1,319 items: a paired change of about 3.5 pp can be shown on all of them",
            n_items=1319,
        ),
        Benchmark(
            name="aime24",
            title="AIME 2024 I and II",
            source="Mathematical Association of America, as collected by evalchemy",
            licence="problems (c) MAA: evaluation only, do not redistribute",
            files=("aime24.jsonl", "aime.jsonl", "test.jsonl"),
            question=("problem", "question", "origin_prompt"),
            answer=("expected_answer", "answer", "gold_answer"),
            instruction=_BOXED,
            max_new_tokens=32_768,
            guide_names=("aime2024_llmjudge_gen_5e9f4f", "aime2024_gen_17d799"),
            noise=_SMALL,
            n_items=30,
        ),
        Benchmark(
            name="aime25",
            title="AIME 2025 I and II",
            source="Mathematical Association of America, as collected by evalchemy",
            licence="problems (c) MAA: evaluation only, do not redistribute",
            files=("aime25.jsonl", "aime2025.jsonl", "test.jsonl"),
            folders=("aime2025",),
            question=("problem", "question"),
            answer=("answer", "expected_answer"),
            instruction=_BOXED,
            max_new_tokens=32_768,
            guide_names=("aime2025_llmjudge_gen_5e9f4f",),
            noise=_SMALL,
            n_items=30,
        ),
        Benchmark(
            name="math",
            title="MATH-500, competition maths; the items whose answer is a number",
            source="openai/prm800k split of hendrycks/math, as collected by evalchemy",
            licence="MIT; problems from AoPS, do not redistribute",
            files=("math500.jsonl", "test_prm800k_500.jsonl", "test.jsonl"),
            folders=("math500", "math-500"),
            question=("problem", "question"),
            answer=("answer",),
            instruction=_BOXED,
            max_new_tokens=4096,
            guide_names=("math_500_gen", "math_500_llmjudge_gen_6ff468"),
            noise="395 of 500 items: answers that are no plain number need a symbolic checker and "
            "are left out, so the score is not comparable with published MATH-500 scores",
            n_items=500,
        ),
    )
}

UNAVAILABLE: dict[str, str] = {
    "aime26": "its items are not public in a form that can be scored here",
    "bbh": "its 27 task formats are not read yet",
    "gpqa": "its data is gated by its authors",
    "humaneval": "running model-written code needs the docker executor",
    "ifbench": "its instruction checks are not built in yet",
    "ifeval": "its instruction checks are not built in yet",
    "mbpp": "running model-written code needs the docker executor",
    "mmlu": "scoring by option likelihood is not built in yet",
    "mmlu_pro": "scoring by option likelihood is not built in yet",
    "mt_bench": "it needs a judge, which is not built in yet",
}
"""Names that users may expect, with the reason why they cannot run."""

ALIASES: dict[str, str] = {
    "aime2024": "aime24",
    "aime2025": "aime25",
    "math500": "math",
    "math-500": "math",
    "math_500": "math",
    "human_eval": "humaneval",
}
