"""The documented short names: OpenCompass 0.5.4's dataset config and data format of each.

Facts only, read off its `configs/datasets`, `datasets` and `utils/datasets_info.py`. The parts of a
config that ask are used, its evaluators are not: whether it says llmjudge does not matter here.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.opencompass.spec import ShortName
from rdagent_ft.values import Frozen

Layout = Literal["jsonl", "gsm8k", "mbpp", "mmlu", "gpqa"]


class Documented(Frozen):
    """One dataset config.

    Attributes:
        module: below `opencompass.configs.datasets`; its last part is the documented full name.
        variable: the list of datasets in that module.
        path: the data file (or folder) below COMPASS_DATA_CACHE.
        layout: how the data is written.
        fields: column in OpenCompass's file -> the fields of a record it is taken from, best first.
        question: the column whose text must stand in the prompt.
        gold: the column that OpenCompass reports as gold, None when it makes that up itself.
        filled: column names that its template replaces when they stand in braces in a question.
        pass_through: other fields of the record are written too.
    """

    module: str
    variable: str
    path: str
    layout: Layout = "jsonl"
    fields: dict[str, tuple[str, ...]]
    question: str
    gold: str | None
    filled: tuple[str, ...]
    pass_through: bool = False

    @property
    def full_name(self) -> str:
        """Return the documented full name, e.g. `aime2025_llmjudge_gen_5e9f4f`."""
        return self.module.rsplit(".", 1)[1]


_ADDED = ("subdivision", "idx")
"""Columns that OpenCompass adds to every row."""

CATALOGUE: dict[ShortName, Documented] = {
    "aime24": Documented(
        module="aime2024.aime2024_llmjudge_gen_5e9f4f",
        variable="aime2024_datasets",
        path="data/aime.jsonl",
        fields={
            "origin_prompt": ("problem", "question", "origin_prompt"),
            "gold_answer": ("answer", "expected_answer", "gold_answer"),
        },
        question="origin_prompt",
        gold="gold_answer",
        filled=("origin_prompt", "gold_answer", "question", "answer", *_ADDED),
    ),
    "aime25": Documented(
        module="aime2025.aime2025_llmjudge_gen_5e9f4f",
        variable="aime2025_datasets",
        path="data/aime2025/aime2025.jsonl",
        fields={"question": ("problem", "question"), "answer": ("answer", "expected_answer")},
        question="question",
        gold="answer",
        filled=("question", "answer", *_ADDED),
    ),
    "gpqa": Documented(
        module="gpqa.gpqa_openai_simple_evals_gen_5aeece",
        variable="gpqa_datasets",
        path="data/gpqa/gpqa_diamond.csv",
        layout="gpqa",
        fields={
            "question": ("Question", "question"),
            "right": ("Correct Answer",),
            "wrong1": ("Incorrect Answer 1",),
            "wrong2": ("Incorrect Answer 2",),
            "wrong3": ("Incorrect Answer 3",),
        },
        question="question",
        gold=None,
        filled=("question", "A", "B", "C", "D", "answer", *_ADDED),
    ),
    "gsm8k": Documented(
        module="gsm8k.gsm8k_gen_1d7fe4",
        variable="gsm8k_datasets",
        path="data/gsm8k/test.jsonl",
        layout="gsm8k",
        fields={"question": ("question",), "answer": ("answer",)},
        question="question",
        gold="answer",
        filled=("question", "answer", *_ADDED),
    ),
    "humaneval": Documented(
        module="humaneval.humaneval_openai_sample_evals_gen_dcae0e",
        variable="humaneval_datasets",
        path="data/humaneval/human-eval-v2-20210705.jsonl",
        fields={"task_id": ("task_id",), "prompt": ("prompt",)},
        question="prompt",
        gold="task_id",
        filled=("task_id", "prompt", "entry_point", "canonical_solution", "test", *_ADDED),
        pass_through=True,
    ),
    "ifeval": Documented(
        module="IFEval.IFEval_gen_353ae7",
        variable="ifeval_datasets",
        path="data/ifeval/input_data.jsonl",
        fields={"prompt": ("prompt",)},
        question="prompt",
        gold=None,
        filled=("prompt", "reference", *_ADDED),
        pass_through=True,
    ),
    "math": Documented(
        module="math.math_500_gen",
        variable="math_datasets",
        path="data/math/test_prm800k_500.jsonl",
        fields={"problem": ("problem", "question"), "solution": ("solution", "answer")},
        question="problem",
        gold="solution",
        filled=("problem", "solution", *_ADDED),
    ),
    "mbpp": Documented(
        module="mbpp.mbpp_gen_830460",
        variable="mbpp_datasets",
        path="data/mbpp/mbpp.jsonl",
        layout="mbpp",
        fields={"text": ("text", "prompt")},
        question="text",
        gold=None,
        filled=("text", "code", "task_id", "test_list", "test_list_2", "test_case", *_ADDED),
        pass_through=True,
    ),
    "mmlu": Documented(
        module="mmlu.mmlu_openai_simple_evals_gen_b618ea",
        variable="mmlu_datasets",
        path="data/mmlu",
        layout="mmlu",
        fields={
            "subject": ("subject",),
            "input": ("question", "input"),
            "A": ("A",),
            "B": ("B",),
            "C": ("C",),
            "D": ("D",),
            "target": ("answer", "target"),
        },
        question="input",
        gold="target",
        filled=("input", "A", "B", "C", "D", "target", *_ADDED),
    ),
}
