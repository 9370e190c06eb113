"""Make the tiny random chat model of the smoke runs: `python examples/pipelines/tiny_model.py --out DIR`.

A Qwen3 of two layers with a tokenizer trained on generated text of all pipelines. A model of another
`--seed` has the same vocabulary, so it can be a teacher. A folder with a model is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from make_data import rows_of

from rdagent_ft.training.tiny import make_tiny_model

TEXT_SEED = 1
KINDS = ("router", "math", "code", "instructions")
# vLLM on a CPU serves attention heads of 32 and more.
SIZES = {"vocab_size": 800, "hidden": 64, "layers": 2, "heads": 2, "max_positions": 1024}


def main() -> None:
    """Make the model where there is none."""
    parser = argparse.ArgumentParser(description="Make a tiny random chat model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args()
    if (args.out / "config.json").is_file():
        return
    rows = [row for kind in KINDS for row in rows_of(kind, 300, TEXT_SEED)]
    texts = (str(value) for row in rows for value in row.values())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    make_tiny_model(args.out, texts, seed=args.seed, chat=True, **SIZES)
    sys.stdout.write(f"{args.out}: a tiny random model\n")


if __name__ == "__main__":
    main()
