"""What `rdagent-ft benchmark` is asked to do, as one value, and where its results go.

Running it is the engine's; the answers end up in

    OUT/base/                      the base model, once
    OUT/fine-tuned/<time>/         the tuned model, one folder a run
    OUT/benchmark.json  OUT/comparison.json    the summary of both (`summary`)
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rdagent_ft.evaluation.suites import SuiteName
from rdagent_ft.values import Frozen

Backend = Literal["hf", "server"]
HarnessName = Literal["lm-eval", "opencompass"]
BATCH_SIZES = (1, 4, 8, 16, 32)
WEIGHT_FOLDERS = frozenset({"merged", "merged_16bit", "merged_4bit", "lora", "adapter"})
"""Names of folders inside a model's folder; the results belong beside them."""


class Endpoint(Frozen):
    """An OpenAI-compatible server that serves the models under names of its own.

    `tokenizer`: folder with their tokenizer.json, for a harness that counts tokens.
    """

    url: str
    model_name: str
    base_model_name: str | None = None
    tokenizer: Path | None = None


class BenchmarkPlan(Frozen):
    """One call of `benchmark`.

    Attributes:
        model: folder of the tuned model or of its adapter; None with an endpoint.
        base: folder of the base model; an adapter is loaded on it. None when there is none to use.
        compare_base: whether the base is scored too.
        endpoint: where the models are served; None when they are loaded here.
        suite: which items are asked.
        limit: items a benchmark, a try-out; None asks the whole suite.
        timeout_s: of the whole call; what is done by then is kept as partial. None is no limit.
        out: the folder of results.
        backend: `hf` loads the model in a job, `server` asks one.
        harness: what asks over HTTP; `opencompass` needs a server or an endpoint.
        batch_size: sequences per forward pass, or requests in flight.
        resume: use what an interrupted call of the same plan left.
        started: names the folder of this run.
    """

    model: Path | None
    base: Path | None = None
    compare_base: bool = True
    endpoint: Endpoint | None = None
    suite: SuiteName = "quick"
    limit: Annotated[int, Field(ge=1)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    out: Path
    backend: Backend = "hf"
    harness: HarnessName = "lm-eval"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    resume: bool = False
    started: datetime

    @model_validator(mode="after")
    def _one_source(self) -> BenchmarkPlan:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("either a model folder or an endpoint is scored")
        if self.endpoint is not None and self.backend != "server":
            raise ValueError("an endpoint is asked with the backend `server`")
        if self.harness == "opencompass" and self.backend != "server":
            raise ValueError("opencompass asks a server or an endpoint")
        return self

    @property
    def has_base(self) -> bool:
        """Whether the base model is scored too."""
        if self.endpoint is not None:
            return self.compare_base and self.endpoint.base_model_name is not None
        return self.compare_base and self.base is not None

    @property
    def base_folder(self) -> Path:
        """Where the base model's result belongs."""
        return self.out / "base"

    @property
    def tuned_folder(self) -> Path:
        """Where this run's result of the tuned model belongs."""
        return self.out / "fine-tuned" / folder_time(self.started)


def folder_time(moment: datetime) -> str:
    """Return a time as a folder name that sorts: `2025-11-23T10-30-15`."""
    return moment.strftime("%Y-%m-%dT%H-%M-%S")


def default_out(model: Path) -> Path:
    """Return MODEL/benchmarks; for `…/merged_16bit` and the like, beside it."""
    folder = model.parent if model.name in WEIGHT_FOLDERS else model
    return folder / "benchmarks"
