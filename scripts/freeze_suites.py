"""Write `suites/*.yaml`: which items each suite asks, as hashes. No text of any item gets in.

    python scripts/freeze_suites.py --data FT_FILE_PATH [--check]

`FT_FILE_PATH/benchmarks/<name>/` holds the data files as `rdagent_ft.evaluation.benchmarks` finds
them. `--check` writes nothing and exits 1 when a file would change.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items
from rdagent_ft.evaluation.guards import GUARD_MARGINS
from rdagent_ft.evaluation.suites import SUITE_NAMES, SelectionRule, Suite, ids_sha256, selected_rows
from rdagent_ft.values import write_atomic

SEED = 1234
VERSION = "1"
HEADER = "# Written by scripts/freeze_suites.py. Hashes only: no text of any item.\n"


class Wanted(NamedTuple):
    """What a suite asks of a benchmark; `n` None means all items."""

    role: str
    n: int | None = None
    rule: SelectionRule = "hash_rank"
    repeats: int = 1
    temperature: float = 0.0


TITLES = {
    "test": ("Test mode", "shows that everything works; never decides"),
    "quick": ("Quick", "every iteration; can promote a candidate to core"),
    "core": ("Core", "decides on a candidate"),
    "full": ("Full", "the final report"),
}
SUITES: dict[str, dict[str, Wanted]] = {
    "test": {"ifeval": Wanted("target", 5), "gsm8k": Wanted("guard", 5)},
    "quick": {
        "ifeval": Wanted("target", 100),
        "gsm8k": Wanted("guard", 100),
        "mmlu": Wanted("guard", 114, "per_subject"),
    },
    "core": {
        "ifeval": Wanted("target"),
        "gsm8k": Wanted("guard", 500),
        "mmlu": Wanted("guard", 570, "per_subject"),
        "humaneval": Wanted("guard"),
    },
    "full": {
        "ifeval": Wanted("target"),
        "gsm8k": Wanted("guard"),
        "math": Wanted("guard", repeats=4, temperature=0.6),
        "mmlu": Wanted("guard"),
        "humaneval": Wanted("guard", repeats=10, temperature=0.8),
        "mbpp": Wanted("guard"),
        "commonsenseqa": Wanted("guard"),
        "aime25": Wanted("guard", repeats=16, temperature=0.6),
    },
}


def frozen_suite(name: str, file_path: Path) -> dict[str, Any]:
    """Return a suite's document from the data files."""
    benchmarks: dict[str, Any] = {}
    for benchmark, wanted in SUITES[name].items():
        found = find_benchmark(benchmark, file_path)
        if found is None:
            raise SystemExit(f"{benchmark}: its items are not under {file_path}/benchmarks")
        rows = load_items(found)
        rule: SelectionRule = "all" if wanted.n is None else wanted.rule
        chosen = selected_rows(rows, rule, wanted.n or len(rows), SEED)
        benchmarks[benchmark] = {
            "role": wanted.role,
            "rule": rule,
            "n_items": len(chosen),
            "n_available": len(rows),
            "repeats": wanted.repeats,
            "temperature": wanted.temperature,
            "seed": SEED,
            "data_sha256": found.sha256,
            "ids_sha256": ids_sha256([row.item_id for row in chosen]),
        }
    title, purpose = TITLES[name]
    document = {
        "schema_version": 1,
        "name": name,
        "version": VERSION,
        "title": title,
        "purpose": purpose,
        "guard_margin": GUARD_MARGINS[name],
        "benchmarks": benchmarks,
    }
    Suite.model_validate(document)
    return document


def main() -> None:
    """Parse the command line; write or check all suites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    folder = Path(__file__).resolve().parent.parent / "suites"
    changed: list[str] = []
    for name in SUITE_NAMES:
        text = HEADER + yaml.safe_dump(frozen_suite(name, arguments.data), sort_keys=False)
        path = folder / f"{name}.yaml"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        changed.append(name)
        if not arguments.check:
            write_atomic(path, text)
    sys.stdout.write(
        f"{'would change' if arguments.check else 'written'}: {', '.join(changed) or 'nothing'}\n"
    )
    sys.exit(1 if arguments.check and changed else 0)


if __name__ == "__main__":
    main()
