"""A benchmark call with what only its asking needs: whose prompts, which engine in the job, which items.

Where results go and which models there are is `evaluation.results.plan`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rdagent_ft.evaluation.lm_eval_harness import JobBackend
from rdagent_ft.evaluation.results.plan import BenchmarkPlan

Protocol = Literal["own", "opencompass"]
CHOSEN = "chosen"
"""What a result calls its suite when the benchmarks were named one by one."""


class AskPlan(BenchmarkPlan):
    """One call of `benchmark`, whole.

    Attributes:
        protocol: `own` asks our rendered items; `opencompass` asks in the words of OpenCompass's documented
            dataset configs. Results of one are never compared with results of the other.
        engine: what generates in the job of the backend `hf`: transformers (`hf`) or vLLM in its process.
        benchmarks: registry names that are asked whole instead of a suite; empty asks the suite.
    """

    protocol: Protocol = "own"
    engine: JobBackend = "hf"
    benchmarks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_asked(self) -> AskPlan:
        if self.protocol == "opencompass" and self.harness != "opencompass":
            raise ValueError("the prompts of OpenCompass are asked by the harness `opencompass`")
        if self.engine == "vllm" and self.backend != "hf":
            raise ValueError("vLLM inside a job is no server: `backend` stays `hf`")
        return self


def whole_plan(plan: BenchmarkPlan) -> AskPlan:
    """Return the plan as it is, or a plain one with our own prompts and transformers in its job."""
    return plan if isinstance(plan, AskPlan) else AskPlan.model_validate(plan.model_dump())
