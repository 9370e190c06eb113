# pyright: basic
"""The evaluation job: `python -m rdagent_ft.evaluation.lm_eval_job request.json`, run in its folder.

Needs only an environment that has torch, transformers and lm-eval, with peft, or with vLLM for
`--backend-vllm`; of this package it imports the other `lm_eval_*` files of jobs and
`endpoint.results_files` alone. Leaves, in the working directory:

- `samples-<role>-<benchmark>-<split>.jsonl`: one answer a line, written when its task is done;
- `progress.jsonl`: `{"done", "total", "role", "benchmark", "elapsed_s"}`, answers of the whole job;
- `aggregate.json`: lm-eval's own means, versions, times and adapter canaries, written after each task;
- with `--lm-eval-files`, `lm-eval/<role>/results_<time>.json` and `samples_<task>_<time>.jsonl` as
  lm-eval writes them, before the task counts as done.

Any failure is an exception: the traceback in the log is what the caller classifies.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

PROGRESS_EVERY_S = 2.0
FILES_FLAG = "--lm-eval-files"
VLLM_FLAG = "--backend-vllm"


def main(request_path: Path, with_files: bool = False, with_vllm: bool = False) -> None:
    """Answer every task with every model of the request."""
    started = time.monotonic()
    request = json.loads(request_path.read_text(encoding="utf-8"))
    _isolate(Path.cwd())
    items = {_task_key(task): _read_lines(Path(task["items_file"])) for task in request["tasks"]}
    asked = [[task for task in request["tasks"] if _is_asked(model, task)] for model in request["models"]]
    n_answers = sum(task["repeats"] * len(items[_task_key(task)]) for tasks in asked for task in tasks)
    progress = Progress(n_answers, started)

    # Late: the import takes seconds and must see the variables that _isolate sets.
    from rdagent_ft.evaluation import lm_eval_answer
    from rdagent_ft.evaluation.endpoint.results_files import ResultsFiles

    backend = importlib.import_module(f"rdagent_ft.evaluation.lm_eval_{'vllm' if with_vllm else 'model'}")
    startup_s = time.monotonic() - started
    device = backend.pick_device(request["device"])
    models, tasks = [], []
    for model, own_tasks in zip(request["models"], asked, strict=True):
        canary = [item["prompt"] for found in items.values() for item in found][:8]
        batch_size = model["batch_size"] or request["batch_size"]
        lm = backend.open_model(model, request, device, batch_size)
        models.append({"role": model["role"], **lm.facts, **lm.canary(canary)})
        files = ResultsFiles(
            Path("lm-eval") / model["role"],
            kind=backend.BACKEND,
            model_args=backend.arguments_of(model, device),
            model_name=model["adapter"] or model["path"],
            batch_size=batch_size,
            write=_write_text,
        )
        for task in own_tasks:
            progress.start(model["role"], task["benchmark"])
            decoded = task | ({"repetition_penalty": own} if (own := model["repetition_penalty"]) else {})
            answered = lm_eval_answer.answer(lm, decoded, items[_task_key(task)], progress.add)
            name = f"samples-{model['role']}-{task['benchmark']}-{task['split']}.jsonl"
            _write_lines(Path(name), map(_sample, answered.answers))
            if with_files:
                files.add(answered.results)
                files.close(round(time.monotonic() - started, 3))
            tasks.append({"role": model["role"], **answered.facts})
            aggregate = {
                "versions": backend.versions(),
                "device": device,
                "models": models,
                "tasks": tasks,
                "startup_s": round(startup_s, 3),
                "seconds": round(time.monotonic() - started, 3),
            }
            # After every task: what a job that is cut off has finished can then be confirmed.
            _write_text(Path("aggregate.json"), json.dumps(aggregate, indent=2, allow_nan=False) + "\n")
        del lm  # its memory is needed by the next one


class Progress:
    """Appends a line to `progress.jsonl` at most every two seconds, and at the end of each task."""

    def __init__(self, total: int, started: float) -> None:
        self._total = total
        self._started = started
        self._done = 0
        self._last = 0.0
        self._task: dict[str, str] = {}

    def start(self, role: str, benchmark: str) -> None:
        """Name the model and benchmark that the next answers belong to."""
        self._task = {"role": role, "benchmark": benchmark}
        self._write()

    def add(self, n_answers: int, *, last: bool = False) -> None:
        """Count answers; the last ones of a task are always shown."""
        self._done += n_answers
        if last or time.monotonic() - self._last >= PROGRESS_EVERY_S:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        line = {
            "done": self._done,
            "total": self._total,
            **self._task,
            "elapsed_s": round(self._last - self._started, 2),
        }
        with open("progress.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _isolate(folder: Path) -> None:
    """Keep caches in the job's folder and everything off the network, whatever the caller set."""
    cache = folder / ".cache"
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_EVALUATE_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
        LM_HARNESS_CACHE_PATH=str(cache / "lm-eval"),
    )
    os.environ.setdefault("HF_HOME", str(cache / "huggingface"))
    os.environ.setdefault("HF_DATASETS_CACHE", str(cache / "datasets"))
    sys.dont_write_bytecode = True


def _is_asked(model: dict, task: dict) -> bool:
    return model["only"] is None or [task["benchmark"], task["split"]] in model["only"]


def _task_key(task: dict) -> tuple[str, str]:
    return task["benchmark"], task["split"]


def _sample(answer: dict) -> dict:
    digest = hashlib.sha256(answer.pop("prompt").encode("utf-8", "surrogatepass")).hexdigest()
    return {"item_id": answer.pop("item_id"), "prompt_hash": digest[:16], **answer}


def _read_lines(path: Path) -> list[dict]:
    with path.open("rb") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def _write_lines(path: Path, lines) -> None:
    _write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


if __name__ == "__main__":
    flags = set(sys.argv[2:])
    if len(sys.argv) < 2 or not flags <= {FILES_FLAG, VLLM_FLAG}:
        sys.exit(
            f"usage: python -m rdagent_ft.evaluation.lm_eval_job request.json [{FILES_FLAG}] [{VLLM_FLAG}]"
        )
    main(Path(sys.argv[1]), with_files=FILES_FLAG in flags, with_vllm=VLLM_FLAG in flags)
