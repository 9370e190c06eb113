"""Mathematics with an open answer: word problems and competitions."""

from __future__ import annotations

from rdagent_ft.evaluation.public.benchmark import Benchmark

_BOXED = "Put the final answer within \\boxed{}."
_SMALL = "30 items: one standard error is up to 9 pp, a paired change below about 25 pp cannot be shown"
_MAA = "problems (c) MAA: evaluation only, do not redistribute"

GSM8K = Benchmark(
    name="gsm8k",
    title="GSM8K, grade-school maths word problems (test split)",
    source="openai/grade-school-math",
    licence="MIT",
    split="test",
    files=("test.jsonl", "gsm8k.jsonl", "gsm8k_test.jsonl"),
    question=("question",),
    answer=("answer",),
    max_new_tokens=512,
    guide_names=("gsm8k_gen_1d7fe4", "gsm8k_0shot_v2_gen_17d799", "gsm8k_0shot_v2_gen_6e39a4"),
    noise="1,319 items: a paired change of about 3.5 pp can be shown on all of them",
    n_items=1319,
)

MATH = Benchmark(
    name="math",
    title="MATH-500, competition maths",
    source="openai/prm800k split of hendrycks/math, as collected by evalchemy",
    licence="MIT; problems from AoPS, do not redistribute",
    scorer="math_match",
    split="the 500 test problems of prm800k",
    files=("math500.jsonl", "test_prm800k_500.jsonl", "test.jsonl"),
    folders=("math500", "math-500"),
    question=("problem", "question"),
    answer=("answer",),
    instruction=_BOXED,
    max_new_tokens=4096,
    guide_names=(
        "math_500_gen",
        "math_500_llmjudge_gen_6ff468",
        "math_500_cascade_eval_gen_6ff468",
        "math_prm800k_500_0shot_cot_gen_11c4b5",
    ),
    noise="500 items: a paired change of about 5.6 pp can be shown; answers are compared as mathematics "
    "by math-verify, zero-shot, so published zero-shot MATH-500 scores by the same checker compare, "
    "scores by a judge or by text rules do not",
    n_items=500,
)

AIME24 = Benchmark(
    name="aime24",
    title="AIME 2024 I and II",
    source="Mathematical Association of America, as collected by evalchemy",
    licence=_MAA,
    files=("aime24.jsonl", "aime.jsonl", "test.jsonl"),
    question=("problem", "question", "origin_prompt"),
    answer=("expected_answer", "answer", "gold_answer"),
    instruction=_BOXED,
    max_new_tokens=32_768,
    guide_names=(
        "aime2024_gen_17d799",
        "aime2024_gen_6e39a4",
        "aime2024_llmjudge_gen_5e9f4f",
        "aime2024_cascade_eval_gen_5e9f4f",
    ),
    noise=_SMALL,
    n_items=30,
)

AIME25 = Benchmark(
    name="aime25",
    title="AIME 2025 I and II",
    source="Mathematical Association of America, as collected by evalchemy",
    licence=_MAA,
    files=("aime25.jsonl", "aime2025.jsonl", "test.jsonl"),
    folders=("aime2025",),
    question=("problem", "question"),
    answer=("answer", "expected_answer"),
    instruction=_BOXED,
    max_new_tokens=32_768,
    guide_names=("aime2025_llmjudge_gen_5e9f4f", "aime2025_cascade_eval_gen_5e9f4f"),
    noise=_SMALL,
    n_items=30,
)

SVAMP = Benchmark(
    name="svamp",
    title="SVAMP, varied one-step arithmetic word problems",
    source="arkilpatel/SVAMP",
    licence="MIT",
    reader="svamp",
    split="the whole challenge set",
    files=("SVAMP.json", "svamp.json", "test.jsonl", "test.json"),
    max_new_tokens=512,
    guide_names=("svamp_gen_fb25e4",),
    noise="1,000 items: a paired change of about 4 pp can be shown; many are variations of one another, "
    "so the interval is a little too narrow",
    n_items=1000,
)

MAWPS = Benchmark(
    name="mawps",
    title="MAWPS, arithmetic word problems",
    source="sroy9/mawps; the test file as collected by ToRA",
    licence="MIT",
    split="test",
    files=("test.jsonl", "mawps.jsonl", "mawps_test.jsonl"),
    question=("question", "input", "sQuestion", "Question", "problem"),
    answer=("answer", "target", "lSolutions", "Answer"),
    max_new_tokens=512,
    noise="2,065 items of the usual test file: a paired change of about 2.8 pp can be shown",
    n_items=2065,
)

MATHS = (GSM8K, MATH, AIME24, AIME25, SVAMP, MAWPS)
