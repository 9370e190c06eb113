"""Make the tiny chat model of the smoke runs: `python examples/pipelines/tiny_model.py --out DIR`.

A Qwen3 of two layers that has read generated text of all pipelines, of another seed, with questions and
answers apart: it knows the words and scores next to nothing. Half a minute on two quiet cores; a folder
with a model is left as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from make_data import rows_of

TEXT_SEED = 1
N_ROWS = 1200
# vLLM on a CPU serves attention heads of 32 and more.
SPEC: dict[str, Any] = {
    "texts": "corpus.jsonl",
    "tokenizer": None,
    "vocab_size": 1024,
    "chat": True,
    "sizes": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "intermediate_size": 192,
        "max_position_embeddings": 1024,
    },
    "trainer": {
        "per_device_train_batch_size": 32,
        "learning_rate": 5e-3,
        "num_train_epochs": 2,
        "max_length": 128,
    },
}


def main() -> None:
    """Train the model where there is none, and move it into place as a whole."""
    parser = argparse.ArgumentParser(description="Make a tiny chat model.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if (args.out / "config.json").is_file():
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".tiny.") as folder:
        work = Path(folder)
        lines = (json.dumps({"text": text}) + "\n" for text in texts())
        (work / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
        (work / "spec.json").write_text(json.dumps(SPEC), encoding="utf-8")
        job = [sys.executable, "-m", "rdagent_ft.training.pretrain_job", "--spec", "spec.json"]
        with (work / "log.txt").open("w") as log:
            done = subprocess.run(job, cwd=work, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise SystemExit((work / "log.txt").read_text(encoding="utf-8")[-4000:])
        shutil.move(work / "model", args.out)
    sys.stdout.write(f"{args.out}: a tiny model\n")


def texts() -> list[str]:
    """Return what the model has read: questions with reasons, and answers apart from them."""
    router, sums = rows_of("router", N_ROWS, TEXT_SEED), rows_of("sums", N_ROWS // 2, TEXT_SEED)
    found = [f"{row['prompt']}\n{row['rationale']}" for row in router]
    found += [row["completion"] for row in router]
    found += [f"{row['question']}\n{row['answer'].split('####')[0]}" for row in sums]
    found += [row["answer"] for row in sums]
    for row in rows_of("code", N_ROWS // 2, TEXT_SEED):
        found += [f"{row['instruction']}\n{row['code']}", row["output"]]
    for row in rows_of("instructions", N_ROWS // 2, TEXT_SEED):
        found += [f"{row['prompt']} It is {row['completion']}.", row["completion"]]
    return found


if __name__ == "__main__":
    main()
