"""Every benchmark name a user may type, and what it means.

Data never ships with the package: licences differ, and AIME problems belong to the MAA.
"""

from __future__ import annotations

from rdagent_ft.evaluation.public.benchmark import Benchmark as Benchmark
from rdagent_ft.evaluation.public.choices import CHOICES
from rdagent_ft.evaluation.public.maths import MATHS
from rdagent_ft.evaluation.public.tasks import TASKS

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*MATHS, *CHOICES, *TASKS)}

UNAVAILABLE: dict[str, str] = {
    "aime26": "its items are not public in a form that can be scored here",
    "bbh": "its 27 task formats are not read yet",
    "ifbench": "its instruction checks are not built in yet",
    "mmlu_pro": "its ten-option file is not read yet",
    "mt_bench": "it is a two-turn conversation for a judge, which is not read here",
}
"""Names that users may expect, with the reason why they cannot run."""

ALIASES: dict[str, str] = {
    "aime2024": "aime24",
    "aime2025": "aime25",
    "math500": "math",
    "math-500": "math",
    "math_500": "math",
    "human_eval": "humaneval",
    "csqa": "commonsenseqa",
    "commonsense_qa": "commonsenseqa",
    "aqua_rat": "aqua",
    "math_qa": "mathqa",
    "gpqa_diamond": "gpqa",
}

_GUIDE_NAMES: dict[str, str] = {
    guide_name.lower(): benchmark.name
    for benchmark in BENCHMARKS.values()
    for guide_name in benchmark.guide_names
}


def canonical_name(name: str) -> str:
    """Return the registry name of a name, an alias or another harness's config name; else it as given.

    Case counts no more than blanks around it. A module in front (`aime2025.aime2025_gen_…`) is dropped.
    """
    lowered = name.strip().lower()
    known = ALIASES.get(lowered, lowered)
    return _GUIDE_NAMES.get(known) or _GUIDE_NAMES.get(known.rpartition(".")[2], known)
