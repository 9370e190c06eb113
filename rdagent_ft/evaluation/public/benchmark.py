"""What is known of one benchmark. Facts only; finding files is in `benchmarks`, reading in `readers`."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.evaluation.rows import ScorerName
from rdagent_ft.values import Frozen

ReaderName = Literal[
    "question_answer", "options", "svamp", "mmlu", "mmlu_ll", "gpqa", "ifeval", "humaneval", "mbpp", "own"
]
MetricName = Literal["accuracy", "prompt_strict", "pass@1", "mean_score"]


class Benchmark(Frozen):
    """One benchmark.

    Attributes:
        name: registry name, also the folder under FT_FILE_PATH/benchmarks.
        title: full name for people.
        source, licence: where the items come from and under which terms.
        metric, higher_is_better: what the score is; further measures are in `SampleRow.parts`.
        scorer: the rule that scores an answer.
        method: `generate` text, or `choose` the likeliest of the item's choices by log-probability.
        reader: how a record becomes an item.
        split: which part of the published data is scored.
        files: candidate file or folder names in the benchmark's folder, best first.
        folders: other folder names under which the files are found.
        question, answer: candidate field names, best first.
        instruction: added to every question as its own paragraph; empty for none.
        max_new_tokens: generation limit per answer.
        guide_names: dataset config names of other harnesses that users know; accepted as names.
        noise: what the number of items can and cannot show, and what the score compares with.
        n_items: items of the complete file.
    """

    name: str
    title: str
    source: str
    licence: str
    metric: MetricName = "accuracy"
    higher_is_better: bool = True
    scorer: ScorerName = "numeric_match"
    method: Literal["generate", "choose"] = "generate"
    reader: ReaderName = "question_answer"
    split: str = "the whole file"
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    question: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    instruction: str = ""
    max_new_tokens: int
    guide_names: tuple[str, ...] = ()
    noise: str
    n_items: int
