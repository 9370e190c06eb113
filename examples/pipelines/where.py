"""Print where a run lies: `where.py RUN.json`, with `--stage N` where the weights of its N-th stage lie.

RUN.json is what `rdagent-ft run --json` printed. Stages are those of loop 0, counted from 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    """Print one path."""
    parser = argparse.ArgumentParser(description="Print the folder of a run, or of a stage's weights.")
    parser.add_argument("run", type=Path, help="document that `rdagent-ft run --json` printed")
    parser.add_argument("--stage", type=int, help="number of a stage of loop 0, from 1")
    args = parser.parse_args()
    folder = Path(json.loads(args.run.read_text(encoding="utf-8"))["run_dir"])
    if args.stage is not None:
        found = list(folder.glob(f"loops/000/stages/{args.stage}-*/manifest.json"))
        if not found:
            raise SystemExit(f"{folder} has no finished stage {args.stage} in loop 0")
        folder /= json.loads(found[0].read_text(encoding="utf-8"))["weights"]
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
