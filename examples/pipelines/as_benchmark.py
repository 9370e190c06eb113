"""Make a benchmark of one's own from a prepared part: `as_benchmark.py DIR/test.jsonl --out FILE.jsonl`.

Reads what `rdagent-ft data prepare --format trl` wrote (prompt and completion as turns), writes items as
`docs/benchmarks.md` describes them. The rows stay out of training, so their score is one on unseen items.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def item_of(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return the item of a row; the answer is the last turn."""
    return {"id": f"{number:05d}", "messages": row["prompt"], "answer": row["completion"][-1]["content"]}


def main() -> None:
    """Write the items."""
    parser = argparse.ArgumentParser(description="Make benchmark items of a prepared part.")
    parser.add_argument("part", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.part.read_text(encoding="utf-8").splitlines()]
    items = [item_of(number, row) for number, row in enumerate(rows)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8"
    )
    sys.stdout.write(f"{args.out}: {len(items):,} items\n")


if __name__ == "__main__":
    main()
