"""Write one generated data file: `python examples/pipelines/make_data.py math --rows 10000 --out FILE`.

Same kind, rows and seed: same bytes. Nothing is downloaded. `router` is the task of `rdagent-ft demo` with
the reason of each plan in a column of its own; the other kinds are in the files beside this one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from code_task import code_rows
from instruction_task import instruction_items, instruction_pairs, instruction_rows
from math_task import math_rows

from rdagent_ft.demo.router_task import router_items

KINDS = ("router", "math", "sums", "code", "instructions", "pairs", "items")


def rows_of(kind: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows of a kind. `sums` are the problems of `math` with small numbers.

    Raises `ValueError` where the templates cannot make so many different ones.
    """
    match kind:
        case "router":
            return [
                {"prompt": item.request, "completion": item.plan, "rationale": _why(item.plan)}
                for item in router_items(n, seed)
            ]
        case "math":
            return math_rows(n, seed)
        case "sums":
            return math_rows(n, seed, largest=9)
        case "code":
            return code_rows(n, seed)
        case "instructions":
            return instruction_rows(n, seed)
        case "pairs":
            return instruction_pairs(n, seed)
        case "items":
            return instruction_items(n, seed)
        case _:
            raise ValueError(f"no kind of data is called {kind!r}")


def _why(plan: str) -> str:
    """Return a plan's reason in words, as a trace of a router holds it beside the plan."""
    values = json.loads(plan)
    tools = " and ".join(values["tools"]) or "no tool"
    person = "a person must take over" if values["handoff"] else "no person is needed"
    return f"This belongs to {values['route']}; it needs {tools}, and {person}."


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write a generated data file (JSON lines).")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = rows_of(args.kind, args.rows, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    sys.stdout.write(f"{args.out}: {len(rows):,} generated rows ({args.kind})\n")


if __name__ == "__main__":
    main()
