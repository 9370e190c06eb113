"""The endpoint evaluation job: `python -m rdagent_ft.evaluation.endpoint.job request.json`, in its folder.

A process of its own, because it must be killable while a server says nothing; trusted code, in the
controller's environment, without torch. It may be killed at any moment and started again in the same
folder. Leaves, beside what the `lm-eval` job leaves in the same form (samples, progress, aggregate):

- `answers.partial.jsonl`: every answer as it comes, see `partial`;
- `lm-eval/<role>/results_<time>.json` and `samples_<task>_<time>.jsonl` as lm-eval writes them.

A failure that concerns more than one item ends it with the exit code of its kind (`ends.EXIT_CODES`).
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.evaluation.endpoint.asking import describe_server
from rdagent_ft.evaluation.endpoint.ends import (
    END_PREFIX,
    EXIT_CODES,
    PARENT_VARIABLE,
    EndpointError,
    kind_of_os_error,
)
from rdagent_ft.evaluation.endpoint.partial import PartialFile
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.endpoint.results_files import ResultsFiles
from rdagent_ft.evaluation.items import read_items
from rdagent_ft.evaluation.lm_eval_job import Progress
from rdagent_ft.values import write_atomic, write_json

_PR_SET_PDEATHSIG = 1


def main(request_path: Path) -> None:
    """Answer every task with every target of the request."""
    started = time.monotonic()
    request = EndpointRequest.model_validate_json(request_path.read_bytes())
    keys = {target.role: _key(target) for target in request.targets}
    total = sum(task.n_items * task.repeats for _, task in request.pairs())
    progress = Progress(total, started)
    partial = PartialFile(request, Path.cwd())
    servers = {
        target.role: describe_server(target, request.retry, keys[target.role]) for target in request.targets
    }
    _isolate()

    # Late: the import takes seconds and must see the variables that _isolate sets.
    from rdagent_ft.evaluation.endpoint.asked import Asked
    from rdagent_ft.evaluation.endpoint.lm_eval_api import answer_task

    startup_s = time.monotonic() - started
    written = {target.role: _results_files(target) for target in request.targets}
    tasks: list[dict[str, Any]] = []
    for target, task in request.pairs():
        progress.start(target.role, task.benchmark)
        asked = Asked(
            request=request,
            target=target,
            task=task,
            items=read_items(task.items_file, task.n_items),
            partial=partial,
            key=keys[target.role],
            tokenizer=None if target.tokenizer is None else load_encoder(target.tokenizer).tokenizer,
            max_model_len=_max_model_len(servers[target.role]),
            on_answer=progress.add,
        )
        answers, facts, results = answer_task(asked)
        progress.add(0, last=True)
        lines = "".join(json.dumps(answer.model_dump(mode="json")) + "\n" for answer in answers)
        write_atomic(Path(f"samples-{target.role}-{task.benchmark}-{task.split}.jsonl"), lines)
        tasks.append({"role": target.role, **facts})
        if results is not None:
            written[target.role].add(results)
    partial.close()
    _finish(request, servers, tasks, written, started, startup_s)


def _results_files(target: EndpointTarget) -> ResultsFiles:
    return ResultsFiles(
        Path("lm-eval") / target.role,
        kind="local-chat-completions" if target.protocol == "chat" else "local-completions",
        model_args={"model": target.model, "base_url": target.base_url},
        model_name=target.model,
        batch_size=1,
        write=write_atomic,
    )


def _finish(
    request: EndpointRequest,
    servers: dict[str, dict[str, Any]],
    tasks: list[dict[str, Any]],
    written: dict[str, ResultsFiles],
    started: float,
    startup_s: float,
) -> None:
    seconds = round(time.monotonic() - started, 3)
    for files in written.values():
        files.close(seconds)
    models = [
        {
            "role": target.role,
            "model": target.model,
            "base_url": target.base_url,
            "protocol": target.protocol,
            "max_model_len": _max_model_len(servers[target.role]),
        }
        for target in request.targets
    ]
    aggregate = {
        "versions": {name: version(name) for name in ("lm_eval", "datasets", "tokenizers", "aiohttp")},
        "device": "endpoint",
        "models": models,
        "tasks": tasks,
        "startup_s": round(startup_s, 3),
        "seconds": seconds,
    }
    write_json(Path("aggregate.json"), aggregate)


def _key(target: EndpointTarget) -> str | None:
    if target.api_key_env is None:
        return None
    key = os.environ.get(target.api_key_env)
    if not key:
        raise EndpointError("auth", f"{target.role}: the variable {target.api_key_env} holds no key")
    return key


def _max_model_len(server: dict[str, Any]) -> int | None:
    found = server.get("max_model_len")
    return found if type(found) is int and found > 0 else None


def _isolate() -> None:
    """Keep lm-eval and datasets off the network and their caches in the job's folder."""
    cache = Path.cwd() / ".cache"
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_EVALUATE_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
        LM_HARNESS_CACHE_PATH=str(cache / "lm-eval"),
        HF_HOME=str(cache / "huggingface"),
        HF_DATASETS_CACHE=str(cache / "datasets"),
        USE_TORCH="0",
    )


def _die_with_parent() -> None:
    """End when the watcher ends, however it ends: nobody would stop this process then."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before the line above
        sys.exit("the process that started this job is gone")


def _end(kind: str, message: str, code: int) -> None:
    sys.stderr.write(f"{END_PREFIX}{kind}: {message}\n")
    raise SystemExit(code)


def run(argv: list[str]) -> None:
    """Run the job and turn a failure that has a kind into its exit code; others keep their traceback."""
    if len(argv) != 2:
        sys.exit("usage: python -m rdagent_ft.evaluation.endpoint.job request.json")
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    _die_with_parent()
    try:
        main(Path(argv[1]))
    except EndpointError as error:
        text = error.message if error.hint is None else f"{error.message}. {error.hint}"
        _end(error.kind, text, EXIT_CODES[error.kind])
    except OSError as error:
        kind = kind_of_os_error(error)
        if kind is None:
            raise
        _end(kind, f"{error.filename or 'the output folder'}: {error.strerror}", EXIT_CODES[kind])


if __name__ == "__main__":
    run(sys.argv)
