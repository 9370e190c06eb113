"""What an OpenCompass run is asked for, checked before anything is written.

Every value that ends in OpenCompass's config file has a strict pattern here: that file is Python which
OpenCompass executes, and braces in it are replaced by mmengine before it is parsed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.values import Frozen

ShortName = Literal["aime24", "aime25", "gpqa", "gsm8k", "humaneval", "ifeval", "math", "mbpp", "mmlu"]
"""The documented benchmark names; `catalogue` maps each to OpenCompass's dataset config."""

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
"""Part of a file name and of an OpenCompass `abbr`. No dot: it cuts `abbr` at the last one."""
ServedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-/:]{0,127}$")]
BaseUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://(?:[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:]{2,39}\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9_.\-]{1,64}){0,8}/?$"
    ),
]
SHELL_SAFE = r"^/[A-Za-z0-9_./+=,@\-]{1,1024}$"
"""Absolute paths that OpenCompass's runner can put into its shell command as they are."""
PATH_IN_CONFIG = r"^/[^{}\x00-\x1f\x7f]{1,2048}$"

REASONING_MARKS = ("o1", "o3", "o4", "gpt-5")
"""A served name that holds one of these is taken for OpenAI's reasoning models: OpenCompass 0.5.4 then
drops the temperature and renames the token limit (`OAI_REASONING_MODEL_LIST`)."""
CONTEXT_RESERVE = 100
"""Tokens that `OpenAISDK` keeps free; it lowers `max_out_len` silently to keep them."""


class Endpoint(Frozen):
    """One served model.

    Attributes:
        role: `base` or `tuned`; OpenCompass's name of the model's folder.
        served_name: the model as the server knows it.
        fingerprint: hex digest of weights, tokenizer and template; names the work folder.
        base_url: up to `/v1`.
        tokenizer_dir: holds `tokenizer.json`; its token counts bound the prompts.
        context_tokens: length of the served model's context.
    """

    role: Slug
    served_name: ServedName
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    base_url: BaseUrl
    tokenizer_dir: Path
    context_tokens: Annotated[int, Field(ge=256, le=10_000_000)]

    @field_validator("served_name")
    @classmethod
    def _is_no_reasoning_name(cls, name: str) -> str:
        found = [mark for mark in REASONING_MARKS if mark in name]
        if found:
            raise ValueError(
                f"OpenCompass would treat {name!r} as a reasoning model of OpenAI because it holds "
                f"{found[0]!r}, and send no temperature; serve it under another name"
            )
        return name


class OpenCompassTask(Frozen):
    """One benchmark split.

    Attributes:
        task: items, limits and scorer, as for every harness. Only `generate`.
        documented: ask with OpenCompass's own dataset config and prompt; None asks our items verbatim:
            `EvalItem.messages`, or `EvalItem.prompt` as one user turn.
        records_file: with `documented`, JSON lines of the benchmark's own records; line i is item i.
    """

    task: EvalTask
    documented: ShortName | None = None
    records_file: Path | None = None

    @property
    def name(self) -> str:
        """Return `benchmark-split`, the first part of OpenCompass's `abbr`."""
        return f"{self.task.benchmark}-{self.task.split}"

    @model_validator(mode="after")
    def _can_be_asked(self) -> OpenCompassTask:
        task = self.task
        if task.method != "generate":
            raise ValueError(f"{self.name}: only `generate` can be asked over HTTP here")
        if not 1 <= task.repeats <= 1000 or (task.repeats > 1 and task.temperature <= 0):
            raise ValueError(f"{self.name}: repeats need a temperature above 0, at most 1000 of them")
        if not 1 <= task.max_new_tokens <= 1_000_000 or not 0 <= task.temperature <= 2:
            raise ValueError(f"{self.name}: max_new_tokens or temperature is out of range")
        if (self.documented is None) != (self.records_file is None):
            raise ValueError(f"{self.name}: `documented` and `records_file` go together")
        _SlugHolder(value=task.benchmark)
        return self


class OpenCompassRequest(Frozen):
    """One model, several benchmark splits, one OpenCompass run.

    Attributes:
        concurrency: requests in flight.
        queries_per_second: OpenCompass's own brake.
        request_timeout_s, retries: per question; one that fails for good ends its whole benchmark.
    """

    endpoint: Endpoint
    tasks: Annotated[tuple[OpenCompassTask, ...], Field(min_length=1)]
    concurrency: Annotated[int, Field(ge=1, le=512)] = 16
    queries_per_second: Annotated[int, Field(ge=1, le=1000)] = 64
    request_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    retries: Annotated[int, Field(ge=1, le=20)] = 3

    @model_validator(mode="after")
    def _can_share_one_run(self) -> OpenCompassRequest:
        names = [task.name for task in self.tasks]
        documented = [task.documented for task in self.tasks if task.documented]
        if len(set(names)) != len(names) or len(set(documented)) != len(documented):
            raise ValueError(
                "a benchmark split or a documented benchmark stands twice: its files would collide"
            )
        if len({task.task.temperature for task in self.tasks}) != 1:
            raise ValueError(
                "OpenCompass has one temperature a model: ask tasks of another one in another run"
            )
        longest = max(task.task.max_new_tokens for task in self.tasks)
        if longest + CONTEXT_RESERVE >= self.endpoint.context_tokens:
            raise ValueError(
                f"max_new_tokens {longest} leaves no room for a prompt in a context of "
                f"{self.endpoint.context_tokens}; OpenCompass would lower it silently"
            )
        return self


class _SlugHolder(Frozen):
    value: Slug
