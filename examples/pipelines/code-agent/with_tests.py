"""Give code data a `tests` column: `python with_tests.py FILE --out TRAIN.jsonl --check CHECK.jsonl`.

FILE has `instruction`, `output`, `code`, `entry_point` and `testcase` (a list of assertions); a folder or a
hub id works too. Rows without tests are left out and counted. `--check` gets the form in which
`rdagent_ft.training.rewards.check_job` runs every answer against its own tests.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rdagent_ft.data.read import read_rows
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.data.rows import Row
from rdagent_ft.settings_sources import load_settings


def tests_of(row: Row) -> list[str]:
    """Return the row's tests; [] where it has none that could be run."""
    found = row.meta.get("testcase")
    tests = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return [test for test in tests if isinstance(test, str) and test.strip()]


def main() -> None:
    """Read, and write both files."""
    parser = argparse.ArgumentParser(description="Add a `tests` column to code data.")
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path, required=True)
    args = parser.parse_args()
    rows, _ = read_rows(resolve_dataset(args.dataset, load_settings().settings.file_path))
    tested = [(row, tests) for row in rows if (tests := tests_of(row))]
    write(args.out, [{"prompt": row.prompt_text, "completion": row.completion, "tests": tests,
                      "entry_point": row.meta.get("entry_point")} for row, tests in tested])  # fmt: skip
    write(
        args.check, [{"prompt": r.prompt_text, "gold": r.completion, "tests": tests} for r, tests in tested]
    )
    sys.stdout.write(f"{args.out}: {len(tested):,} rows with tests, {len(rows) - len(tested):,} without\n")


def write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


if __name__ == "__main__":
    main()
