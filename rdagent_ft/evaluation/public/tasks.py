"""Benchmarks whose answers are checked by doing something: following instructions, running tests."""

from __future__ import annotations

from rdagent_ft.evaluation.public.benchmark import Benchmark

IFEVAL = Benchmark(
    name="ifeval",
    title="IFEval, instructions that can be checked",
    source="google-research/instruction_following_eval",
    licence="Apache-2.0",
    metric="prompt_strict",
    scorer="ifeval",
    reader="ifeval",
    files=("input_data.jsonl", "ifeval.jsonl"),
    max_new_tokens=1280,
    guide_names=("IFEval_gen_353ae7", "IFEval_gen_3321a3"),
    noise="541 prompts, 834 instructions: a paired change of about 5 pp of prompts can be shown; the checks "
    "of 2 prompts draw a letter, with a fixed seed here",
    n_items=541,
)

HUMANEVAL = Benchmark(
    name="humaneval",
    title="HumanEval, Python functions from docstrings",
    source="openai/human-eval",
    licence="MIT",
    metric="pass@1",
    scorer="code_pass",
    reader="humaneval",
    files=("HumanEval.jsonl.gz", "HumanEval.jsonl", "human-eval-v2-20210705.jsonl", "humaneval.jsonl"),
    folders=("human_eval", "human-eval"),
    max_new_tokens=1024,
    guide_names=("humaneval_openai_sample_evals_gen_dcae0e", "humaneval_gen_8e312c"),
    noise="164 items: a paired change below about 10 pp cannot be shown with one answer each",
    n_items=164,
)

MBPP = Benchmark(
    name="mbpp",
    title="MBPP, basic Python programs",
    source="google-research/mbpp",
    licence="CC BY 4.0",
    metric="pass@1",
    scorer="code_pass",
    reader="mbpp",
    split="test: task_id 11 to 510",
    files=("mbpp.jsonl", "test.jsonl"),
    max_new_tokens=1024,
    guide_names=("mbpp_gen_830460",),
    noise="500 items: a paired change of about 5.6 pp can be shown; the prompt shows the tests, as published",
    n_items=500,
)

TASKS = (IFEVAL, HUMANEVAL, MBPP)
