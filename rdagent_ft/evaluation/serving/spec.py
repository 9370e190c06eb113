"""What a server is asked to be, as a frozen value, and the command line that it becomes.

Pure functions, so that every flag can be read and tested in one place. Defaults are those of vLLM's
documentation for version 0.32; what each flag is for stands beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, field_validator

from rdagent_ft.values import Frozen

LoraRank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
"""The limits that vLLM's `--max-lora-rank` takes."""
LORA_TARGETS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj",
)  # fmt: skip
"""Linear layers that adapters may change: those of Llama, Mistral, Qwen, Gemma and Phi-3.

The output layer is not among them on purpose: once vLLM 0.32 prepares it for adapters, its CPU engine
dies as soon as a batch asks for the log-probabilities of two prompts (`echo`).
"""
CPU_HEAD_SIZES = frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512})
"""Attention head sizes of vLLM 0.32 on CPU. It starts with another one and dies at the first request."""
LEASE_NAME = "lease"
JOB_MODULE = "rdagent_ft.evaluation.serving.serve_job"
SERVER_MODULE = "vllm.entrypoints.openai.api_server"
_MIN_GPU_SHARE = 0.3
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ServerSpec(Frozen):
    """One server of one model folder.

    Attributes:
        model_dir: a base, merged or fully tuned model.
        served_name: what clients call it.
        max_model_len: prompt and answer together, tokens.
        max_lora_rank: the largest rank of an adapter; None serves no adapters.
        max_loras: adapters that one batch may mix; more can be loaded, and then wait for their turn.
        device: `cpu` computes in float32 without compilation, `cuda` in bfloat16.
        seed: of sampling, where a request names none.
        gpu_memory_utilization: share of the GPU's memory for weights and cache.
        max_num_seqs: sequences in one batch.
        enforce_eager: no compilation and no CUDA graphs: less memory, slower.
        cpu_kv_cache_gib: key-value cache on CPU, GiB.
    """

    model_dir: Path
    served_name: Annotated[str, Field(pattern=_NAME)] = "base"
    max_model_len: Annotated[int, Field(gt=1)]
    max_lora_rank: LoraRank | None = 64
    max_loras: Annotated[int, Field(ge=1, le=64)] = 2
    device: Literal["cpu", "cuda"]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.85
    max_num_seqs: Annotated[int, Field(ge=1)] = 128
    enforce_eager: bool = False
    cpu_kv_cache_gib: Annotated[int, Field(ge=1)] = 4

    @field_validator("model_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()  # the job has another working directory


def fitting_rank(rank: int) -> LoraRank | None:
    """Return the smallest limit that holds adapters of this rank; None when no limit does."""
    limits = cast("tuple[LoraRank, ...]", get_args(LoraRank))
    return next((limit for limit in limits if limit >= rank), None)


def job_command(spec: ServerSpec, socket_name: str, lease_s: float, python: str) -> tuple[str, ...]:
    """Return the whole command of the server's job: our watcher, and behind `--` what it starts."""
    return (
        python, "-m", JOB_MODULE, "--lease", LEASE_NAME, "--lease-s", f"{lease_s:g}",
        "--model", str(spec.model_dir), "--", "-m", SERVER_MODULE, *server_options(spec, socket_name),
    )  # fmt: skip


def server_options(spec: ServerSpec, socket_name: str) -> tuple[str, ...]:
    """Return vLLM's options. `socket_name` is relative to the job's folder: a path is short that way."""
    on_cpu = spec.device == "cpu"
    options: dict[str, str] = {
        "--model": str(spec.model_dir),
        "--served-model-name": spec.served_name,
        "--uds": socket_name,
        "--dtype": "float32" if on_cpu else "bfloat16",
        "--max-model-len": str(spec.max_model_len),
        "--max-num-seqs": str(spec.max_num_seqs),
        "--seed": str(spec.seed),
        # Else the checkpoint's own generation_config.json sets temperature and penalties of requests
        # that name none, and base and tuned model may differ there.
        "--generation-config": "vllm",
    }
    if not on_cpu:
        options["--gpu-memory-utilization"] = f"{spec.gpu_memory_utilization:.2f}"
    if spec.max_lora_rank is not None:
        options["--max-lora-rank"] = str(spec.max_lora_rank)
        options["--max-loras"] = str(spec.max_loras)
    flags = ["--disable-uvicorn-access-log"]
    if on_cpu or spec.enforce_eager:
        flags.append("--enforce-eager")
    if not on_cpu:
        flags.append("--enable-sleep-mode")
    if spec.max_lora_rank is not None:
        flags += ["--enable-lora", "--lora-target-modules", *LORA_TARGETS]
    return (*(part for pair in options.items() for part in pair), *flags)


def server_variables(spec: ServerSpec) -> dict[str, str]:
    """Return the variables of the server's job beside those that every job gets."""
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        # Its processes talk over sockets: relative to the job's folder they are short and stay inside.
        "VLLM_RPC_BASE_PATH": ".",
        "VLLM_HOST_IP": "127.0.0.1",
    }
    if spec.max_lora_rank is not None:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if spec.device == "cuda":
        # Its /sleep and /wake_up are there in this mode only; nobody but us reaches the socket.
        variables["VLLM_SERVER_DEV_MODE"] = "1"
    if spec.device == "cpu":
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(spec.cpu_kv_cache_gib)
        # Without compilation vLLM still compiles how it ranks log-probabilities, for which the image
        # has no C++ compiler; with one, the first answer takes 10 s longer.
        variables["TORCHDYNAMO_DISABLE"] = "1"
    return variables


def memory_ladder(spec: ServerSpec) -> tuple[ServerSpec, ...]:
    """Return what to try after running out of memory, in this order; each step keeps the ones before.

    On a GPU: half the batch, a tenth less of its memory, no CUDA graphs. On CPU: half the batch, half
    the cache. None of them changes what is asked of the model; a step that changes nothing is left out.
    """
    steps: list[dict[str, Any]] = [{"max_num_seqs": max(1, spec.max_num_seqs // 2)}]
    if spec.device == "cuda":
        less = max(min(_MIN_GPU_SHARE, spec.gpu_memory_utilization), spec.gpu_memory_utilization - 0.1)
        steps += [{"gpu_memory_utilization": round(less, 2)}, {"enforce_eager": True}]
    else:
        steps.append({"cpu_kv_cache_gib": max(1, spec.cpu_kv_cache_gib // 2)})
    ladder = [spec]
    for step in steps:
        smaller = ladder[-1].model_copy(update=step)
        if smaller != ladder[-1]:
            ladder.append(smaller)
    return tuple(ladder[1:])
