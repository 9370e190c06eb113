"""Scoring candidates through one warm server beside what a user would run instead: time and answers.

    python -m bench.evaluation --serve-python PYTHON [--quick] [--candidates N] [--items VAL TEST]
                               [--seed N] [--hf-jobs N] [--out FILE] [--json]

The question: for five candidates on two splits, is the stage at least 5 times faster than a server that is
started for every candidate and split, and never slower than plain `lm_eval --model hf`? On CPU, with a tiny
random Qwen3 and LoRA adapters (`bench.evaluation_world`), all answers greedy and 16 tokens long at most.
Timed is all from the request to parsed answers:

- `warm`: what a run does: one server, then for each candidate load, canary, one client for both splits,
  parse, unload. The server's start and end are in the total;
- `cold`: the same server and the same client, started anew for every candidate and split;
- `lm_eval`: `python -m lm_eval run --model hf` with `peft=`, one call a candidate for both splits (the
  kindest way), batches of 64, offline, its data set prepared once;
- `hf job`: the job that a run uses without a server. For information, for the first `--hf-jobs` candidates.

All servers share vLLM's cache of what it found out about the architecture, as runs of one FT_FILE_PATH do and
as a user's home folder has it. One server before the others fills it; its longer start is told apart.

The methods take turns, candidate by candidate and in another order each time, so that a machine that grows
slower meets all alike; the warm server idles meanwhile (1 % of a core). What they import is read once
before. The answers are compared too: where they are not the same, times say little. With random weights
two tokens are often almost equally likely, and answers may end in bytes that are no text, which vLLM leaves
out and transformers shows as U+FFFD; so equality is also counted without these at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.evaluation_world import (
    BENCHMARK,
    MAX_NEW_TOKENS,
    MAX_POSITIONS,
    REPOSITORY,
    SPLITS,
    World,
    make_world,
    run,
)
from rdagent_ft.engine.warm_server import MAX_LORA_RANK
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness
from rdagent_ft.evaluation.endpoint.request import EndpointRequest, EndpointTarget
from rdagent_ft.evaluation.endpoint.watch import run_client
from rdagent_ft.evaluation.items import Answer
from rdagent_ft.evaluation.lm_eval_harness import LmEvalHarness
from rdagent_ft.evaluation.port import EvalModel, EvalRequest, EvalTask
from rdagent_ft.evaluation.serving.server import ModelServer, start_server
from rdagent_ft.evaluation.serving.spec import ServerSpec
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.values import write_json

RESULTS = REPOSITORY / "bench" / "results" / "evaluation.json"
BATCH = 64
"""Sequences in a batch and requests in flight: `engine.scoring` on CPU."""
LIMIT_S = 600.0
"""In a job's folder."""
METHODS = ("warm", "lm_eval", "cold", "hf job")

Texts = dict[tuple[int, str, str], str]
"""(candidate, split, item id) -> the answer's text."""


class Measured:
    """What one method took, part by part, and what it answered. `whole_s`: one entry a candidate."""

    def __init__(self) -> None:
        self.parts_s: dict[str, list[float]] = {}
        self.whole_s: list[float] = []
        self.texts: Texts = {}

    @contextmanager
    def timed(self, part: str) -> Generator[None]:
        """Note how long the block takes."""
        started = time.perf_counter()
        yield
        self.note(part, time.perf_counter() - started)

    def note(self, part: str, seconds: float) -> None:
        """Note a time that was measured elsewhere."""
        self.parts_s.setdefault(part, []).append(seconds)

    def servers_s(self) -> float:
        """Return what servers took to start and to end."""
        return sum(sum(self.parts_s.get(part, ())) for part in ("server start", "server end"))

    def keep(self, number: int, answers: dict[tuple[str, str, str], list[Answer]]) -> None:
        """Keep a candidate's parsed answers."""
        for (_, _, split), found in answers.items():
            self.texts |= {(number, split, answer.item_id): answer.prediction for answer in found}


def say(text: str) -> None:
    """Print progress to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def start(world: World, folder: Path) -> ModelServer:
    """Start a server as a run does (`engine.warm_server`)."""
    spec = ServerSpec(
        model_dir=world.model,
        max_model_len=MAX_POSITIONS,
        max_lora_rank=MAX_LORA_RANK,
        device="cpu",
        seed=world.seed,
    )
    spool = folder / "spool"
    spool.mkdir(parents=True)
    return start_server(
        LocalExecutor(),
        spec,
        folder / "job",
        spool,
        attempt_id=f"bench-{world.root.name}-{folder.name}",
        deadline_unix=time.time() + 3600,
        python=world.serve_python,
        cache_dir=world.root / "vllm-cache",
    )


def ask(
    world: World, server: ModelServer, number: int, tasks: list[EvalTask], folder: Path, into: Measured
) -> None:
    """Score one candidate as `engine.served` does."""
    name = f"tuned-{number}"
    with into.timed("load and canary"):
        loaded = server.load(name, world.adapters[number], world.probes)
    target = EndpointTarget(
        role="tuned", base_url=server.base_url, model=name, tokenizer=world.model, concurrency=BATCH
    )
    request = EndpointRequest(
        targets=(target,),
        tasks=tuple(tasks),
        prompt_format="plain",
        fingerprint=loaded.sha256,
        seed=world.seed,
    )
    folder.mkdir(parents=True)
    with into.timed("client"):
        end = run_client(
            request, folder, timeout_s=LIMIT_S, notice=say, server=server, should_stop=lambda: False
        )
    if end.status != "ok":
        raise SystemExit(f"the client ended as {end.status}: {end.message}")
    with into.timed("parse"):
        into.keep(number, EndpointHarness().parse(request, folder))
    with into.timed("unload"):
        server.unload(name)
    aggregate = json.loads((folder / "aggregate.json").read_text())
    into.note("of client: its imports", aggregate["startup_s"])
    into.note("of client: its answers", sum(task["seconds"] for task in aggregate["tasks"]))


def cold(world: World, number: int, folder: Path, into: Measured) -> None:
    """A server for every split of the candidate."""
    for task in world.tasks:
        with into.timed("server start"):
            server = start(world, folder / f"serve-{number}-{task.split}")
        with server:
            ask(world, server, number, [task], folder / task.split, into)
            with into.timed("server end"):
                server.close()


def lm_eval(world: World, number: int, folder: Path, into: Measured) -> None:
    """Plain lm-eval with its own backend, both splits in one call."""
    names = [f"{BENCHMARK}_{split}" for split in SPLITS]
    argv = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--log_samples"]
    argv += ["--model_args", f"pretrained={world.model},peft={world.adapters[number]}"]
    argv += ["--batch_size", str(BATCH), "--include_path", str(world.root), "--tasks", ",".join(names)]
    argv += ["--output_path", str(folder / "out")]
    with into.timed("call"):
        run(argv, cwd=folder, HF_HOME=str(world.root / "hf"))
    with into.timed("parse"):
        for split, name in zip(SPLITS, names, strict=True):
            (samples,) = (folder / "out").rglob(f"samples_{name}_*.jsonl")
            for line in map(json.loads, samples.read_text().splitlines()):
                into.texts[number, split, line["doc"]["item_id"]] = line["resps"][0][0]


def hf_job(world: World, number: int, folder: Path, into: Measured) -> None:
    """The job that a run uses without a server."""
    request = EvalRequest(
        models=(EvalModel(role="tuned", path=world.model, adapter=world.adapters[number]),),
        tasks=tuple(world.tasks),
        prompt_format="plain",
        batch_size=BATCH,
        device="cpu",
    )
    with into.timed("job"):
        run([sys.executable, *LmEvalHarness().prepare(request, folder)[1:]], cwd=folder)
    with into.timed("parse"):
        into.keep(number, LmEvalHarness().parse(request, folder))


def prime(world: World) -> float:
    """Read once from disk what the methods import, so that no first one pays for it; fill vLLM's cache.

    Returns the seconds of the first start of a server.
    """
    run([str(world.serve_python), "-c", "import vllm.entrypoints.openai.api_server"], cwd=world.root)
    run([sys.executable, "-c", "import lm_eval.models.huggingface, lm_eval.evaluator, peft"], cwd=world.root)
    started = time.perf_counter()
    with start(world, world.root / "first"):
        return time.perf_counter() - started


def take_turns(world: World, n_hf_jobs: int) -> dict[str, Measured]:
    """Score all candidates by all methods."""
    found = {name: Measured() for name in METHODS}
    say("starting the warm server")
    with found["warm"].timed("server start"):
        server = start(world, world.root / "serve")
    methods: dict[str, Callable[[int, Path], None]] = {
        "warm": lambda number, folder: ask(world, server, number, world.tasks, folder / "ask", found["warm"]),
        "lm_eval": lambda number, folder: lm_eval(world, number, folder, found["lm_eval"]),
        "cold": lambda number, folder: cold(world, number, folder, found["cold"]),
        "hf job": lambda number, folder: hf_job(world, number, folder, found["hf job"]),
    }
    with server:
        for number in range(len(world.adapters)):
            turn = number % len(METHODS)
            for name in METHODS[turn:] + METHODS[:turn]:
                if name == "hf job" and number >= n_hf_jobs:
                    continue
                folder = world.root / name.replace(" ", "-") / str(number)
                folder.mkdir(parents=True)
                started = time.perf_counter()
                methods[name](number, folder)
                found[name].whole_s.append(time.perf_counter() - started)
                say(f"candidate {number}, {name}: {found[name].whole_s[-1]:.1f} s")
        with found["warm"].timed("server end"):
            server.close()
    return found


def results_of(found: dict[str, Measured], n_candidates: int) -> dict[str, Any]:
    """Return the times of all methods, their ratios, and how many answers are equal."""
    n_answers = len(found["warm"].texts)
    for name in ("lm_eval", "cold"):
        if found[name].texts.keys() != found["warm"].texts.keys():
            raise SystemExit(f"{name} and warm did not answer the same items")
    total_s = {name: sum(one.whole_s) for name, one in found.items()}
    total_s["warm"] += found["warm"].servers_s()
    a_candidate = {name: statistics.median(one.whole_s) for name, one in found.items() if one.whole_s}
    gain_s = a_candidate["lm_eval"] - a_candidate["warm"]
    return {
        "n_answers": n_answers,
        "methods": {
            name: {
                "n_candidates": len(one.whole_s),
                "total_s": round(total_s[name], 2),
                "median_of_a_candidate_s": round(a_candidate[name], 2),
                "answers_per_s": round(len(one.texts) / total_s[name], 1),
                "share_of_servers_start_and_end": round(one.servers_s() / total_s[name], 3),
                "parts_s": {
                    part: {"n": len(s), "median": round(statistics.median(s), 3), "sum": round(sum(s), 2)}
                    for part, s in one.parts_s.items()
                },
            }
            for name, one in found.items()
            if one.whole_s
        },
        "cold_over_warm": round(total_s["cold"] / total_s["warm"], 2),
        "lm_eval_over_warm": round(total_s["lm_eval"] / total_s["warm"], 2),
        "candidates_until_warm_beats_lm_eval": (
            round(found["warm"].servers_s() / gain_s, 1) if gain_s > 0 else None
        ),
        "equal_answers": {
            f"{one} and {other}": equal(found[one].texts, found[other].texts)
            for one, other in (
                ("warm", "cold"),
                ("warm", "lm_eval"),
                ("warm", "hf job"),
                ("lm_eval", "hf job"),
            )
        },
        "answers_that_candidates_0_and_1_share": sum(
            found["warm"].texts.get((1, split, item)) == text
            for (number, split, item), text in found["warm"].texts.items()
            if number == 0
        ),
        "n_asked_a_candidate": n_answers // n_candidates,
    }


def equal(one: Texts, other: Texts) -> str:
    """Return how many of the answers that both have are the same text."""
    both = one.keys() & other.keys()
    same = sum(one[key] == other[key] for key in both)
    same_text = sum(one[key].rstrip("\ufffd") == other[key].rstrip("\ufffd") for key in both)
    return f"{same} of {len(both)}, {same_text} without U+FFFD at the end"


def facts_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what is measured, with what and where."""
    git = ["git", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = [*git, "status", "--porcelain", "rdagent_ft", "bench"]
    dirty = subprocess.run(changed, capture_output=True, text=True, check=False)
    names = ("lm_eval", "transformers", "torch", "peft", "datasets", "aiohttp")
    return {
        "schema_version": 1,
        "code": head.stdout.strip(),
        "code_is_as_committed": not dirty.stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "n_candidates": arguments.candidates,
        "n_items": dict(zip(SPLITS, arguments.items, strict=True)),
        "max_new_tokens": MAX_NEW_TOKENS,
        "batch": BATCH,
        "seed": arguments.seed,
    }


def parsed_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--serve-python", type=Path, default=os.environ.get("FT_TEST_SERVE"))
    parser.add_argument("--quick", action="store_true", help="2 candidates, 40 items; writes no file")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--items", type=int, nargs=2, default=[200, 100])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hf-jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve_python is None:
        parser.error("name the Python of an environment with vLLM: --serve-python or FT_TEST_SERVE")
    arguments.serve_python = Path(arguments.serve_python)
    if arguments.quick:
        arguments.candidates, arguments.items = 2, [25, 15]
    return arguments


def end_by_signal(_number: int, _frame: object) -> None:
    """End by an exception, so that servers and folders are not left."""
    sys.exit("ended by a signal")


def main() -> None:
    """Parse the command line, measure, and write and print the document."""
    arguments = parsed_arguments()
    signal.signal(signal.SIGTERM, end_by_signal)
    document = facts_of(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-evaluation-") as folder:
        root = Path(folder)
        world = make_world(
            root, arguments.candidates, arguments.items, arguments.serve_python, arguments.seed
        )
        document["first_start_of_an_installation_s"] = round(prime(world), 2)
        found = take_turns(world, arguments.hf_jobs)
        noted = next((root / "serve").rglob("versions.json"))
        document["versions_of_server"] = json.loads(noted.read_text())
    document["load_average_at_end"] = [round(load, 2) for load in os.getloadavg()]
    document |= results_of(found, arguments.candidates)
    if not arguments.quick:
        write_json(arguments.out, document)
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    for name, one in document["methods"].items():
        print(f"{name}: {one['total_s']} s for {one['n_candidates']} candidates", end=", ")
        print(f"{one['median_of_a_candidate_s']} s a candidate, {one['answers_per_s']} answers/s")
    print(f"cold / warm {document['cold_over_warm']}, lm_eval / warm {document['lm_eval_over_warm']}")
    print(f"equal answers: {document['equal_answers']}")


if __name__ == "__main__":
    main()
