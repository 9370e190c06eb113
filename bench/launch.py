"""What containing a job costs, and how fast a dead controller's job is picked up again.

    python -m bench.launch [--out FILE] [--repetitions N]

Both executors run the same rendered recipe on the same tiny model, by turns in one process. Measured is
the time from `submit` to the first line of `metrics.jsonl` (the first optimizer step);
most of it is the import of torch and TRL, in every way of starting. The alternative that a user has is
`docker run` by hand with the same image and the engine's own defaults; it is measured as well. Adoption:
from the first line of a new controller process to its first `poll` of the running job. Results go to
bench/results/launch.json with the hash of the code that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rdagent_ft.execution.docker_engine import Engine, connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import CODE_FOLDER, job_limits
from rdagent_ft.execution.images import newest_image
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import Executor, JobSpec
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import FullAdapter, SftStage
from rdagent_ft.training.plan import stage_argv, tiny_argv
from rdagent_ft.values import write_json

REPETITIONS = 5
RESULTS = Path(__file__).resolve().parent / "results" / "launch.json"
ADOPT = """
import sys, time
started = time.perf_counter()
from rdagent_ft.execution.docker_engine import connect
from rdagent_ft.execution.docker_executor import DockerExecutor
from rdagent_ft.execution.docker_profile import job_limits
from rdagent_ft.execution.port import JobSpec
spec = JobSpec.model_validate_json(sys.argv[1])
engine = connect()
executor = DockerExecutor(engine, lambda kind: sys.argv[2], limits=job_limits(engine.info))
handle = executor.submit(spec)
assert executor.poll(handle).state == "running"
print(time.perf_counter() - started, flush=True)
"""


def prepare(root: Path) -> Path:
    """Make a tiny model, rows and a rendered config below `root`; return the config's path."""
    dice = random.Random(0)
    words = [f"word{number}" for number in range(60)]
    rows = [{"prompt": " ".join(dice.sample(words, 8)), "completion": dice.choice(words)} for _ in range(256)]
    train, texts, model = root / "train.jsonl", root / "texts.jsonl", root / "model"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts.write_text("".join(json.dumps({"text": row["prompt"]}) + "\n" for row in rows))
    sizes = {"vocab_size": 300, "hidden": 32, "layers": 2, "heads": 2, "seed": 0}
    (root / "spec.json").write_text(json.dumps({"texts": str(texts), "out": str(model), **sizes}))
    subprocess.run([sys.executable, *tiny_argv(root / "spec.json")[1:]], check=True, capture_output=True)
    stage = SftStage(adapter=FullAdapter(), learning_rate=1e-3, max_steps=20, max_length=64)
    rendered = render_stage(
        Recipe(stages=(stage,)),
        0,
        paths=StagePaths(model=model, train_file=train, output_dir=Path("output")),
        facts=RenderFacts(device="cpu", n_train_rows=len(rows)),
    )
    config = root / "1-sft.yaml"
    config.write_text(rendered.text)
    return config


def first_step_s(executor: Executor, root: Path, config: Path, name: str) -> float:
    """Return the seconds from `submit` to the first metric line of one training."""
    spec = JobSpec(
        attempt_id=f"bench-{name}",
        kind="train",
        argv=stage_argv("sft", config),
        out_dir=root / name,
        inputs={"model": root / "model", "train": root / "train.jsonl", "config": config},
        deadline_unix=time.time() + 300,
    )
    metrics = spec.out_dir / "metrics.jsonl"
    started = time.perf_counter()
    handle = executor.submit(spec)
    while not (metrics.exists() and metrics.stat().st_size):
        if executor.poll(handle).state == "ended" and not metrics.exists():
            raise RuntimeError(executor.collect(handle).log_tail)
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    while executor.poll(handle).state == "running":
        time.sleep(0.05)
    executor.collect(handle)
    return seconds


def first_step_by_hand_s(image: str, root: Path, config: Path, name: str) -> float:
    """Return the same for a plain `docker run` as a user would type it."""
    out = root / name
    out.mkdir()
    code = Path(__file__).resolve().parents[1] / "rdagent_ft"
    binds = [f"{root}:{root}", f"{code}:{CODE_FOLDER}/rdagent_ft:ro"]
    argv = ["docker", "run", "--rm", "--network", "none", "-w", str(out), "-e", f"PYTHONPATH={CODE_FOLDER}"]
    argv += [part for bind in binds for part in ("-v", bind)]
    argv += ["-e", "OMP_WAIT_POLICY=PASSIVE", image, *stage_argv("sft", config)]
    metrics = out / "metrics.jsonl"
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
            time.sleep(0.01)
        seconds = time.perf_counter() - started
    return seconds


def adoption_s(engine: Engine, image: str, root: Path, repetitions: int) -> list[float]:
    """Return, for each of several new controllers, the seconds until it watches the running job."""
    spec = JobSpec(
        attempt_id=f"bench-adopt-{root.name}",
        kind="train",
        argv=("python", "-c", "import time; time.sleep(300)"),
        out_dir=root / "adopt",
        deadline_unix=time.time() + 400,
    )
    executor = DockerExecutor(engine, lambda _kind: image, limits=job_limits(engine.info))
    handle = executor.submit(spec)
    seconds: list[float] = []
    for _ in range(repetitions):
        argv = [sys.executable, "-c", ADOPT, spec.model_dump_json(), image]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    executor.cancel(handle)
    executor.collect(handle)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Return min, median and max."""
    return {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}


def measure(repetitions: int) -> dict[str, Any]:
    """Run all measurements so many times; returns one JSON-ready document."""
    engine = connect()
    image = newest_image(engine.client, "train")
    if image is None:
        raise SystemExit("no train image: run scripts/docker-ci.sh or rdagent-ft images build")
    local = LocalExecutor()
    docker = DockerExecutor(engine, lambda _kind: image.image_id, limits=job_limits(engine.info))
    times: dict[str, list[float]] = {"local": [], "docker": [], "docker run by hand": []}
    with tempfile.TemporaryDirectory(prefix="bench-launch-") as folder:
        root = Path(folder)
        config = prepare(root)
        for number in range(repetitions + 1):
            found = {
                "local": first_step_s(local, root, config, f"{root.name}-local-{number}"),
                "docker": first_step_s(docker, root, config, f"{root.name}-docker-{number}"),
                "docker run by hand": first_step_by_hand_s(
                    image.image_id, root, config, f"{root.name}-hand-{number}"
                ),
            }
            if number:  # the first round warms the page cache
                for name, value in found.items():
                    times[name].append(value)
        adopted = adoption_s(engine, image.image_id, root, repetitions)
    pairs = zip(times["docker"], times["local"], strict=True)
    return {
        "schema_version": 1,
        "code": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "engine": engine.info.version,
        "repetitions": repetitions,
        "first_step_s": {name: summary(values) for name, values in times.items()},
        "docker_minus_local_s": summary([one - other for one, other in pairs]),
        "adoption_s": summary(adopted),
    }


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    arguments = parser.parse_args()
    out, document = arguments.out, measure(arguments.repetitions)
    write_json(out, document)
    for name, value in document["first_step_s"].items():
        print(f"first optimizer step, {name}: {value['median']:.2f} s (median of {document['repetitions']})")
    print(f"containing costs {document['docker_minus_local_s']['median']:+.2f} s")
    print(f"a new controller watches the job after {document['adoption_s']['median']:.2f} s")


if __name__ == "__main__":
    main()
