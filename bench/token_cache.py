"""What stored tokens save at the start of a supervised training.

    python -m bench.token_cache [--out FILE] [--rows N] [--repetitions N]

One training of two steps on a tiny model is started three ways, by turns, each in a process of its own:
without the cache, leaving its tokens, and starting from them. All must train the same. Measured are
processor seconds (user and system, of the process and all it started) and wall seconds of the whole job.
The ratios are made of processor seconds, which hold on a busy machine, too. The controller's own work,
judging what was left and hashing an entry that is used, is measured beside them. Rows have about 250
tokens, as long as short chats; the tokenizer has 8,000 tokens. Results go to bench/results/token_cache.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdagent_ft.data.tokens import load_encoder
from rdagent_ft.engine.steps.stage_data import StageData
from rdagent_ft.engine.steps.token_cache import check_tokens
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import SftStage
from rdagent_ft.training.plan import read_train_result, stage_argv, tiny_argv
from rdagent_ft.training.token_files import CACHE_FOLDER, LEFT_NAME
from rdagent_ft.values import sha256_file, write_json

RESULTS = Path(__file__).resolve().parent / "results" / "token_cache.json"
WAYS = ("as before", "leaving", "stored")


def prepare(root: Path, n_rows: int) -> Path:
    """Write rows, a tiny chat model and a rendered config below `root`; return the config's path."""
    dice = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 9))) for _ in range(4000)]

    def text(low: int, high: int) -> str:
        return " ".join(dice.choices(words, k=dice.randint(low, high)))

    with (root / "train.jsonl").open("w") as stream:
        for _ in range(n_rows):
            turns = {
                "prompt": [{"role": "user", "content": text(60, 140)}],
                "completion": [{"role": "assistant", "content": text(20, 80)}],
            }
            stream.write(json.dumps(turns) + "\n")
    texts = "".join(json.dumps({"text": text(100, 100)}) + "\n" for _ in range(2000))
    (root / "texts.jsonl").write_text(texts)
    sizes = {"vocab_size": 8000, "hidden": 32, "heads": 2, "max_positions": 2048, "chat": True}
    spec = {"texts": "texts.jsonl", "out": "model", **sizes}
    (root / "spec.json").write_text(json.dumps(spec))
    run(root, tiny_argv(root / "spec.json"))
    rendered = render_stage(
        Recipe(stages=(SftStage(max_steps=2, max_length=1024, effective_batch=2, micro_batch=2),)),
        0,
        paths=StagePaths(model=root / "model", train_file=root / "train.jsonl", output_dir=Path("output")),
        facts=RenderFacts(device="cpu", n_train_rows=n_rows),
    )
    config = root / "config.yaml"
    config.write_text(rendered.text)
    return config


def run(folder: Path, argv: tuple[str, ...]) -> dict[str, float]:
    """Run a job's command in `folder`; return its processor and wall seconds."""
    folder.mkdir(exist_ok=True)
    code = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": code, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *argv[1:]], cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu_s, "wall_s": time.perf_counter() - started}


def cpu_of(work: Callable[[], object]) -> float:
    """Return the processor seconds of a call in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(n_rows: int, repetitions: int) -> dict[str, Any]:
    """Run all ways so many times; returns one JSON-ready document."""
    jobs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bench-tokens-") as name:
        root = Path(name)
        config = prepare(root, n_rows)
        entry = root / "entry" / CACHE_FOLDER / LEFT_NAME
        entry.parent.mkdir(parents=True)
        results: list[Any] = []
        for number in range(repetitions):
            for way in WAYS:
                out = root / f"{number}-{way.split()[0]}"
                given = {"as before": None, "leaving": root / "none", "stored": root / "entry"}[way]
                jobs[way].append(run(out, stage_argv("sft", config, tokens=given)))
                results.append(read_train_result(out))
                if way == "leaving":
                    shutil.move(out / LEFT_NAME, entry)
        encoder, data = load_encoder(root / "model"), StageData(root / "train.jsonl", n_rows)
        controller = {
            "judging what was left": cpu_of(lambda: check_tokens(entry, data, encoder, "chat")),
            "using an entry": cpu_of(lambda: [sha256_file(entry), sha256_file(data.file)]),
        }
        n_bytes, row_bytes = entry.stat().st_size, data.file.stat().st_size
    if len({(one.n_tokens, one.share_tokens_trained, one.train_loss) for one in results}) != 1:
        raise RuntimeError("the ways did not train the same")
    medians = {
        way: {key: statistics.median(one[key] for one in found) for key in ("cpu_s", "wall_s")}
        for way, found in jobs.items()
    }
    return {
        "schema_version": 1,
        "code": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "n_rows": n_rows,
        "repetitions": repetitions,
        "jobs": jobs,
        "median": medians,
        "saved_cpu_s": medians["as before"]["cpu_s"] - medians["stored"]["cpu_s"],
        "ratio_cpu": medians["as before"]["cpu_s"] / medians["stored"]["cpu_s"],
        "controller_cpu_s": controller,
        "file_bytes": {"rows": row_bytes, "tokens": n_bytes},
    }


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    document = measure(arguments.rows, arguments.repetitions)
    write_json(arguments.out, document)
    for way, found in document["median"].items():
        print(f"{way}: {found['cpu_s']:.1f} processor seconds, {found['wall_s']:.1f} s")
    print(f"{document['ratio_cpu']:.2f} times less work to start; controller: {document['controller_cpu_s']}")


if __name__ == "__main__":
    main()
