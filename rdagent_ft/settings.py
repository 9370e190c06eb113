"""FT_ settings: one frozen object, read once at the start.

Where values come from is in `settings_sources.py`. Nothing here is global: the object is passed down.
Secrets are `SecretStr` and never stored with a run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "FT_"
PlannerName = Literal["auto", "llm", "tpe", "random"]
ExecutorName = Literal["docker", "local"]
DEFAULT_BENCHMARKS = ("aime25",)
SECRETS = {"llm_api_key", "judge_api_key", "teacher_api_key", "endpoint_api_key"}
"""Settings that are never stored."""


class Settings(BaseSettings):
    """All FT_ settings. The field `file_path` is the variable `FT_FILE_PATH`, and so on.

    `json_schema_extra["group"]` orders `.env.example` and `docs/settings.md`, which are generated.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX)

    file_path: Path = Field(
        Path("finetune_files"),
        description="Root of datasets/, models/, benchmarks/, output/ and caches. Created when missing.",
        json_schema_extra={"group": "Paths"},
    )

    target_benchmark: str = Field(
        "heldout",
        description="The benchmark that selects. `heldout` is the held-out part of the dataset itself.",
        json_schema_extra={"group": "Benchmarks"},
    )
    benchmark_datasets: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description='JSON list of benchmarks reported beside the target, e.g. ["aime25","gsm8k"]. '
        'Unset means ["aime25"] where its data can be had; a named one that cannot is an error.',
        json_schema_extra={"group": "Benchmarks"},
    )
    benchmark_limit: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Items per reported benchmark, drawn by a seeded shuffle; unset means all.",
        json_schema_extra={"group": "Benchmarks"},
    )
    benchmark_timeout: Annotated[float, Field(gt=0)] = Field(
        3600.0,
        description="Seconds one evaluation job may take.",
        json_schema_extra={"group": "Benchmarks"},
    )

    guard_margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.03,
        description="Loss on a reported benchmark that counts as harmless, as a share (0.03 = 3 points). A "
        "claim says of each whether a larger loss is excluded.",
        json_schema_extra={"group": "Benchmarks"},
    )
    claim_seeds: Annotated[int, Field(ge=1, le=10)] = Field(
        1,
        description="Trainings that the claim rests on: with 3, the best recipe is trained with two more "
        "seeds before the test split is opened, and the interval covers the luck of training.",
        json_schema_extra={"group": "Benchmarks"},
    )
    tune_decoding: bool = Field(
        False,
        description="Before the claim, choose decoding on val for the base and the best model separately.",
        json_schema_extra={"group": "Benchmarks"},
    )

    llama_cpp: Path | None = Field(
        None,
        description="Folder of a llama.cpp checkout, for GGUF export; without it the converter is looked for "
        "on PATH.",
        json_schema_extra={"group": "Paths"},
    )

    trainer: Literal["trl", "llamafactory"] = Field(
        "trl",
        description="What trains a recipe's stages. LLaMA-Factory lacks grpo, distill and QLoRA; recipes "
        "that it cannot train the same way are refused.",
        json_schema_extra={"group": "Training"},
    )
    parallel: Literal["none", "ddp", "zero2", "zero3", "fsdp2"] = Field(
        "none",
        description="How a training shares several GPUs of one machine: `ddp` repeats the model, `zero2`, "
        "`zero3` (DeepSpeed) and `fsdp2` split it. `none` trains on one.",
        json_schema_extra={"group": "Training"},
    )
    llamafactory_python: Path | None = Field(
        None,
        description="Python of the environment with LLaMA-Factory, for the local executor.",
        json_schema_extra={"group": "Training"},
    )

    serving: Literal["auto", "vllm", "off"] = Field(
        "auto",
        description="`vllm` keeps one warm server and swaps adapters; `off` scores each model in a job of "
        "its own. `auto` is vllm where a GPU and the serve environment are there, and says which it took.",
        json_schema_extra={"group": "Serving"},
    )
    serve_python: Path | None = Field(
        None,
        description="Python of the environment with vLLM, for the local executor.",
        json_schema_extra={"group": "Serving"},
    )
    endpoint_api_key: SecretStr | None = Field(
        None,
        description="Key for `benchmark --endpoint`; read from the shell's environment alone.",
        json_schema_extra={"group": "Serving"},
    )
    opencompass_python: Path | None = Field(
        None,
        description="Python of the environment with OpenCompass; it only sends requests.",
        json_schema_extra={"group": "Serving"},
    )

    judge_model: str = Field(
        "gpt-4",
        description="LLM that looks at answers which a rule rejected. Judging is on when this, "
        "FT_JUDGE_API_KEY or FT_JUDGE_API_BASE is set to something else than its default.",
        json_schema_extra={"group": "Judge"},
    )
    judge_api_key: SecretStr | None = Field(
        None,
        description="Key for the judge; unset means FT_LLM_API_KEY, then OPENAI_API_KEY, where the judge is "
        "on the same server.",
        json_schema_extra={"group": "Judge"},
    )
    judge_api_base: str | None = Field(
        None,
        description="Base URL of the judge; unset means FT_LLM_API_BASE.",
        json_schema_extra={"group": "Judge"},
    )

    judge_rpm: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Requests a minute that the judge is sent at most.",
        json_schema_extra={"group": "Judge"},
    )

    teacher_model: str | None = Field(
        None,
        description="LLM that writes answers to training prompts (`data.teacher`) and labels rows.",
        json_schema_extra={"group": "Teacher"},
    )
    teacher_api_key: SecretStr | None = Field(
        None,
        description="Key for the teacher; unset means FT_LLM_API_KEY, then OPENAI_API_KEY, where the teacher "
        "is on the same server.",
        json_schema_extra={"group": "Teacher"},
    )
    teacher_api_base: str | None = Field(
        None,
        description="Base URL of the teacher; unset means FT_LLM_API_BASE.",
        json_schema_extra={"group": "Teacher"},
    )

    planner: PlannerName = Field(
        "auto",
        description="Who proposes: llm, tpe or random. `auto` is llm when FT_PLANNER_MODEL is set, else tpe.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    planner_model: str | None = Field(
        None,
        description="Model that proposes and writes lessons, e.g. gpt-5-mini or anthropic/claude-sonnet-5.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_api_key: SecretStr | None = Field(
        None,
        description="Key for the planner's LLM; unset means OPENAI_API_KEY.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_api_base: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible endpoint (vLLM, Ollama, a gateway).",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_backend: Literal["auto", "openai", "litellm"] = Field(
        "auto",
        description="Client library. `auto` is litellm for `provider/model` names without FT_LLM_API_BASE, "
        "else openai.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_timeout: Annotated[float, Field(gt=0)] = Field(
        300.0,
        description="Seconds one LLM request may take as a whole, streaming and keep-alives included.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_max_wait: Annotated[float, Field(ge=0)] = Field(
        1800.0,
        description="Seconds one LLM call may spend on retries before the step fails.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_max_output_tokens: Annotated[int, Field(ge=64)] = Field(
        4096,
        description="Upper bound of one reply; part of the reservation before each call.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_price_input: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Dollars per million input tokens; overrides the price table.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_price_output: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Dollars per million output tokens; overrides the price table.",
        json_schema_extra={"group": "Planner and LLM"},
    )
    llm_price_unknown: Literal["refuse", "ok"] = Field(
        "refuse",
        description="What to do with a model of unknown price. A loopback endpoint costs nothing.",
        json_schema_extra={"group": "Planner and LLM"},
    )

    max_cost: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Dollars the run may spend on LLM calls; a call that could pass it is not sent.",
        json_schema_extra={"group": "Bounds"},
    )
    debug_timeout: Annotated[float, Field(gt=0)] = Field(
        36_000.0,
        description="Seconds a training in debug mode (checks and probes) may take.",
        json_schema_extra={"group": "Bounds"},
    )
    full_timeout: Annotated[float, Field(gt=0)] = Field(
        360_000.0,
        description="Seconds a full training may take.",
        json_schema_extra={"group": "Bounds"},
    )
    probe: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Three training steps on the longest rows before a training: `auto` where memory or time "
        "cannot be told without them.",
        json_schema_extra={"group": "Bounds"},
    )
    max_failures: Annotated[int, Field(ge=1)] = Field(
        5,
        description="Stop after this many failed loops in a row (exit 6).",
        json_schema_extra={"group": "Bounds"},
    )

    executor: ExecutorName = Field(
        "docker",
        description="Where jobs run: `docker` contains them; `local` is a subprocess with your rights.",
        json_schema_extra={"group": "Training and data"},
    )
    python: Path | None = Field(
        None,
        description="Python of the environment with the `train` extra; unset means this one.",
        json_schema_extra={"group": "Training and data"},
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        42,
        description="Seed of splits, planner and shuffles.",
        json_schema_extra={"group": "Training and data"},
    )
    val_items: Annotated[int, Field(ge=20)] = Field(
        500,
        description="Upper bound of the val split (selection).",
        json_schema_extra={"group": "Training and data"},
    )
    test_items: Annotated[int, Field(ge=20)] = Field(
        1000,
        description="Upper bound of the sealed test split (claim).",
        json_schema_extra={"group": "Training and data"},
    )
    dev_items: Annotated[int, Field(ge=20)] = Field(
        200,
        description="Upper bound of the dev split (items that a planner may see).",
        json_schema_extra={"group": "Training and data"},
    )
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02,
        description="Half-width of `equivalent`: an interval inside +-margin means no real change.",
        json_schema_extra={"group": "Training and data"},
    )
    allow_cpu: bool = Field(
        False,
        description="Train on CPU where no GPU is found. Without it a missing GPU is an error.",
        json_schema_extra={"group": "Training and data"},
    )
    stall_timeout: Annotated[float, Field(gt=0)] = Field(
        1800.0,
        description="Seconds without a new metric line or log byte before a job counts as hung.",
        json_schema_extra={"group": "Training and data"},
    )
    max_output_gib: Annotated[float, Field(gt=0)] = Field(
        200.0,
        description="Disk that one job may fill before it is stopped.",
        json_schema_extra={"group": "Training and data"},
    )
    keep_models: Annotated[int, Field(ge=1)] = Field(
        3,
        description="Loops whose weights a run keeps, the best by val. The leading, the claimed and the "
        "best-scored loop always stay; scores, logs and recipes of all loops do.",
        json_schema_extra={"group": "Training and data"},
    )
    disk_budget_gib: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Disk that a run's folder may fill; unset means what the disk has. A training that would "
        "pass it is not started.",
        json_schema_extra={"group": "Training and data"},
    )

    docker_base_image: str | None = Field(
        None,
        description="Image that ours are built on; needs python3 with venv. Unset means that of images.toml.",
        json_schema_extra={"group": "Docker"},
    )
    docker_wheels: Path | None = Field(
        None,
        description="Folder of wheels that image builds install from, without any index (air-gapped nodes).",
        json_schema_extra={"group": "Docker"},
    )
    docker_memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Memory limit of one job; unset means 90 % of the engine's memory.",
        json_schema_extra={"group": "Docker"},
    )
    docker_cpus: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="CPU limit of one job; unset means all of the engine's.",
        json_schema_extra={"group": "Docker"},
    )
    docker_shm_gib: Annotated[float, Field(gt=0)] = Field(
        16.0,
        description="Shared memory of one job (data loaders, NCCL); at most half of its memory limit.",
        json_schema_extra={"group": "Docker"},
    )
    docker_runtime: str | None = Field(
        None,
        description="Container runtime, e.g. `runsc` or `sysbox-runc`; unset means the engine's default.",
        json_schema_extra={"group": "Docker"},
    )
    docker_engine_wait: Annotated[float, Field(ge=0)] = Field(
        120.0,
        description="Seconds to wait for an engine that stopped answering before its jobs count as lost.",
        json_schema_extra={"group": "Docker"},
    )
    docker_enable_cache: bool = Field(
        False,
        description="Keep build layers and results of finished jobs: an equal job returns its stored result. "
        "False cleans up after each loop.",
        json_schema_extra={"group": "Docker"},
    )
    update_llama_factory: bool = Field(
        True,
        description="Move the llamafactory image to the newest release; False keeps the pinned one.",
        json_schema_extra={"group": "Docker"},
    )

    @field_validator("benchmark_datasets", mode="before")
    @classmethod
    def _json_list(cls, value: Any) -> Any:
        """Accept a JSON list (the guide's form) or `a,b`; an empty value means unset."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        if not text or text.lower() == "none":
            return None
        if text.startswith("["):
            try:
                return tuple(json.loads(text))
            except json.JSONDecodeError as error:
                raise ValueError(f'not a valid JSON list ({error.msg}); write ["aime25","gsm8k"]') from None
        return tuple(part.strip() for part in text.split(",") if part.strip())

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any, info: ValidationInfo) -> Any:
        """`FT_X=` and `FT_X=None` in a .env mean unset, for settings that can be unset."""
        can_be_unset = info.field_name is not None and cls.model_fields[info.field_name].default is None
        if can_be_unset and isinstance(value, str) and value.strip().lower() in {"", "none"}:
            return None
        return value

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, **_: Any) -> tuple[Any, ...]:  # pyright: ignore
        """Take values from the constructor only: `load_settings` decides precedence and origin."""
        return (_["init_settings"],)


def storable(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values without any secret, for the run's own record."""
    return settings.model_dump(mode="json", exclude=SECRETS)
