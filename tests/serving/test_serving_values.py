"""What serving decides without a server: command line, memory ladder, forms, problems, causes, canary."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from serving_files import write_adapter, write_model, write_tokenizer

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.serving.adapter_form import adapter_rank, serving_form
from rdagent_ft.evaluation.serving.canary import compare, next_tokens
from rdagent_ft.evaluation.serving.failures import ServerError, classify_end
from rdagent_ft.evaluation.serving.preflight import serving_problems
from rdagent_ft.evaluation.serving.progress import ProgressClock, generated_tokens
from rdagent_ft.evaluation.serving.serve_job import LEASE_EXIT, reader_problem
from rdagent_ft.evaluation.serving.spec import (
    ServerSpec,
    fitting_rank,
    job_command,
    memory_ladder,
    server_variables,
)
from rdagent_ft.evaluation.serving.spool import spool_adapter
from rdagent_ft.evaluation.serving.unix_http import Reply
from rdagent_ft.execution.job_environment import check_extra
from rdagent_ft.execution.port import JobResult


def spec_for(folder: Path, **changes: Any) -> ServerSpec:
    values: dict[str, Any] = {"model_dir": folder, "max_model_len": 128, "device": "cpu"}
    return ServerSpec.model_validate(values | changes)


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_a_cpu_server_computes_in_float32_and_ignores_the_checkpoints_sampling(tmp_path: Path) -> None:
    command = job_command(spec_for(tmp_path, seed=7), "s.sock", 120.0, "python")
    assert command[:3] == ("python", "-m", "rdagent_ft.evaluation.serving.serve_job")
    server = command[command.index("--") + 1 :]
    assert server[:2] == ("-m", "vllm.entrypoints.openai.api_server")
    assert option(server, "--dtype") == "float32"
    assert option(server, "--generation-config") == "vllm"
    assert option(server, "--uds") == "s.sock"
    assert option(server, "--seed") == "7"
    assert option(server, "--max-lora-rank") == "64"
    assert {"--enforce-eager", "--enable-lora"} <= set(server)
    assert "--gpu-memory-utilization" not in server


def test_a_gpu_server_uses_bfloat16_and_its_share_of_memory(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, device="cuda", max_lora_rank=None)
    server = job_command(spec, "s.sock", 120.0, "python")
    assert option(server, "--dtype") == "bfloat16"
    assert option(server, "--gpu-memory-utilization") == "0.85"
    assert not {"--enforce-eager", "--enable-lora", "--max-lora-rank", "--max-loras"} & set(server)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in server_variables(spec)


def test_the_servers_variables_may_go_to_a_job(tmp_path: Path) -> None:
    variables = server_variables(spec_for(tmp_path))
    check_extra(variables)
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    "changes",
    [{"max_lora_rank": 5}, {"device": "tpu"}, {"served_name": "a b"}, {"gpu_memory_utilization": 1.0}],
)
def test_a_spec_that_the_server_would_refuse_cannot_be_made(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec_for(tmp_path, **changes)


@pytest.mark.parametrize(("rank", "limit"), [(1, 1), (4, 8), (8, 8), (33, 64), (512, 512), (513, None)])
def test_the_smallest_limit_that_holds_a_rank(rank: int, limit: int | None) -> None:
    assert fitting_rank(rank) == limit


def test_the_ladder_of_a_gpu_takes_less_memory_at_each_step(tmp_path: Path) -> None:
    steps = memory_ladder(spec_for(tmp_path, device="cuda", max_num_seqs=128))
    seen = [(step.max_num_seqs, step.gpu_memory_utilization, step.enforce_eager) for step in steps]
    assert seen == [(64, 0.85, False), (64, 0.75, False), (64, 0.75, True)]


def test_the_ladder_ends_where_nothing_is_left_to_give(tmp_path: Path) -> None:
    assert memory_ladder(spec_for(tmp_path, max_num_seqs=1, cpu_kv_cache_gib=1)) == ()


def test_a_plain_lora_is_served_as_it_is(tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "a", rank=8)
    write_tokenizer(adapter)
    assert serving_form(adapter, base, 8).form == "adapter"
    assert adapter_rank(adapter) == 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "biases"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "token embeddings"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"rank": 16}, "rank 16"),
        ({"module": "mlp.gate"}, "mlp.gate"),
        ({"module": "mlp.experts.3.down_proj"}, "experts"),
        ({"extra": ("base_model.model.model.embed_tokens.base_layer.weight",)}, "embed_tokens"),
        ({"extra": ("base_model.model.lm_head.lora_A.weight",)}, "lm_head"),
        ({"extra": ("base_model.model.model.layers.0.self_attn.q_proj.bias",)}, "q_proj.bias"),
    ],
)
def test_what_the_server_cannot_apply_must_be_merged(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    base = write_model(tmp_path / "base")
    found = serving_form(write_adapter(tmp_path / "a", **changes), base, 8)
    assert found.form == "merged"
    assert reason in "; ".join(found.reasons)


def test_the_rank_is_that_of_the_weights_not_of_the_config(tmp_path: Path) -> None:
    """`rank_pattern` raises single layers above `r`."""
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "a", rank=32, r=4)
    assert serving_form(adapter, base, 16).form == "merged"


def test_an_added_token_means_merging(tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "a")
    write_tokenizer(adapter, "<tool>")
    assert "tokenizer" in serving_form(adapter, base, 8).reasons[0]


def test_an_adapter_without_weights_is_an_error_and_no_form(tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path / "base"), write_adapter(tmp_path / "a")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(JobError, match="adapter_model"):
        serving_form(adapter, base, 8)


def test_other_weights_never_take_an_old_copys_place(tmp_path: Path) -> None:
    """The server's prefix cache is keyed by the path."""
    spool = tmp_path / "spool"
    spool.mkdir()
    first = spool_adapter(spool, "cand", write_adapter(tmp_path / "a"))
    same = spool_adapter(spool, "cand", tmp_path / "a")
    other = spool_adapter(spool, "cand", write_adapter(tmp_path / "b", rank=8))
    assert first == same
    assert other.folder != first.folder
    assert sorted(path.name for path in spool.iterdir()) == sorted([first.folder.name, other.folder.name])
    assert (tmp_path / "a" / "adapter_model.safetensors").stat().st_nlink == 1


def test_an_adapter_that_is_a_link_is_not_copied(tmp_path: Path) -> None:
    spool, adapter = tmp_path / "spool", write_adapter(tmp_path / "a")
    spool.mkdir()
    (adapter / "adapter_model.safetensors").rename(tmp_path / "secret")
    (adapter / "adapter_model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(JobError):
        spool_adapter(spool, "cand", adapter)
    assert list(spool.iterdir()) == []


def test_all_problems_are_named_together(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", head_dim=40, rope_parameters={"rope_theta": 1e6})
    (base / "tokenizer.json").unlink()
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    out = tmp_path / "out"
    problems = serving_problems(spec_for(base, max_model_len=4096), out, out / "adapters")
    assert {problem.problem_class for problem in problems} == {
        "serve.weights", "serve.tokenizer", "serve.reader",
        "serve.context", "serve.head_size", "serve.folders",
    }  # fmt: skip


def test_a_good_folder_has_no_problem_in_either_form_of_its_config(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for name, config in {
        "v4": {},
        "v5": {"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
    }.items():
        base = write_model(tmp_path / name, **config)
        assert serving_problems(spec_for(base), tmp_path / "out", spool) == ()


def test_a_head_size_matters_on_cpu_only(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    base = write_model(tmp_path / "base", head_dim=40)
    assert serving_problems(spec_for(base, device="cuda"), tmp_path / "out", spool) == ()


@pytest.mark.parametrize(
    ("config", "version", "misread"),
    [
        ({"rope_parameters": {"rope_theta": 1e6}}, "4.57.6", True),
        ({"rope_parameters": {"rope_theta": 1e6}}, "5.19.0", False),
        ({"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e6}, "4.57.6", False),
        ({"rope_theta": 1e6}, "4.57.6", False),
        ({"text_config": {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}}, "4.57.6", True),
        ({"rope_parameters": {"rope_theta": 1e6}}, None, False),
    ],
)
def test_an_old_reader_is_refused_a_checkpoint_that_it_would_misread(
    tmp_path: Path, config: dict[str, Any], version: str | None, misread: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (reader_problem(tmp_path, version) is not None) == misread


WORKER = "(VllmWorker-0 pid=43) ERROR 11-21 15:38:28 [multiproc_executor.py:953] "
ENGINE = "(EngineCore pid=30) ERROR 11-21 15:38:32 [core.py:1510] "
GENERIC = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"


@pytest.mark.parametrize(
    ("log", "result", "kind", "words"),
    [
        (
            f"{WORKER}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n{GENERIC}",
            {}, "oom", "CUDA",
        ),
        (f"{ENGINE}ValueError: No available memory for the cache blocks.\n{GENERIC}", {}, "oom", "cache"),
        ("Killed\n", {"reason": "killed, memory suspected", "exit_code": -9}, "oom", "killed"),
        (f"{WORKER}RuntimeError: Unsupported CPU attention configuration: head_dim=16\n", {}, "model", "16"),
        ("/usr/bin/python: x\nModuleNotFoundError: No module named 'vllm'\n", {}, "package", "vllm"),
        (
            "WARNING [cpu.py:644] Failed to import from vllm._C: ImportError('libnuma.so.1: cannot open')\n"
            f"{WORKER}AttributeError: '_OpNamespace' '_C' object has no attribute 'x'\n{GENERIC}",
            {}, "package", "libnuma.so.1",
        ),
        ("OSError: [Errno 98] Address already in use\n", {}, "socket", "98"),
        (
            f"{ENGINE}ValueError: 4.0 GiB KV cache is needed, which is larger than the available\n",
            {}, "context", "4.0",
        ),
        ("no exception at all\n", {"exit_code": 3}, "crash", "exit code 3"),
        ("", {"reason": "deadline"}, "deadline", "deadline"),
        ("", {"reason": "cancelled"}, "stopped", "cancelled"),
        ("", {"exit_code": LEASE_EXIT}, "lease", "controller"),
        (f"{ENGINE}ValueError: something of ours\n{GENERIC}", {}, "crash", "something of ours"),
        (
            "MemoryError: of a request\nApplication startup complete.\nx.EngineDeadError: it died\n",
            {}, "crash", "it died",
        ),
    ],
)  # fmt: skip
def test_the_first_cause_in_the_log_names_the_class(
    log: str, result: dict[str, Any], kind: str, words: str
) -> None:
    values: dict[str, Any] = {
        "failure_class": "candidate", "reason": "exit", "exit_code": 1,
        "started_unix": 0.0, "ended_unix": 1.0,
    }  # fmt: skip
    found = classify_end(JobResult.model_validate(values | result), log)
    assert found[0] == kind
    assert words in found[1]


BASE = [{"a": -1.0, "b": -2.0}, {"a": -0.5, "c": -3.0}]


def test_an_adapter_without_effect_is_not_applied() -> None:
    assert not compare(BASE, BASE, BASE).is_applied


def test_one_probe_that_differs_is_enough() -> None:
    found = compare(BASE, [BASE[0], {"a": -0.4, "c": -3.0}], BASE)
    assert found.is_applied
    assert (found.n_differing, round(found.max_difference, 6)) == (1, 0.1)


def test_a_difference_within_the_bases_own_noise_proves_nothing() -> None:
    again = [{"a": -1.05, "b": -2.0}, BASE[1]]
    assert not compare(BASE, [{"a": -1.1, "b": -2.0}, BASE[1]], again).is_applied


def test_other_tokens_among_the_likeliest_are_a_difference() -> None:
    found = compare(BASE, [{"x": -0.1, "y": -4.0}, BASE[1]], BASE)
    assert found.is_applied
    assert found.max_difference == pytest.approx(3.0)  # "a" is below -4 there


@pytest.mark.parametrize("answer", [{"a": math.nan}, {}, {"a": math.inf}, {"a": 0.5}])
def test_an_answer_without_numbers_is_broken(answer: dict[str, float]) -> None:
    found = compare(BASE, [answer, {"a": -0.4, "c": -3.0}], BASE)
    assert found.n_broken == 1
    assert not found.is_applied


@pytest.mark.parametrize(
    "answer", [{}, {"choices": [{"index": 0}]}, {"choices": []}, [], {"choices": [{"index": "x"}]}]
)
def test_a_malformed_answer_to_a_probe_is_no_verdict(answer: Any) -> None:
    with pytest.raises(ServerError) as caught:
        next_tokens(lambda _body: answer, "m", ["one"])
    assert caught.value.kind == "away"


def test_tokens_are_summed_over_engines() -> None:
    text = (
        "# HELP vllm:generation_tokens_total x\n"
        'vllm:generation_tokens_total{engine="0",model_name="base"} 8.0\n'
        'vllm:generation_tokens_total{engine="1",model_name="base"} 1.5e+03\n'
        'vllm:request_generation_tokens_total{engine="0"} 99.0\n'
    )
    assert generated_tokens(Reply(200, text.encode())) == 1508
    assert generated_tokens(Reply(500, text.encode())) is None
    assert generated_tokens(Reply(200, b"")) is None


def test_a_count_that_stands_still_is_a_hang_and_a_slow_one_is_not() -> None:
    now = 0.0
    clock = ProgressClock(300.0, now=lambda: now)
    for n_tokens in (0, 1, 2):
        now += 299.0
        assert not clock.hangs(n_tokens)
    now += 299.0
    assert not clock.hangs(None)
    now += 1.0
    assert clock.hangs(2)
    assert not clock.hangs(0)  # a restarted server counts anew
