"""The audit of a dataset beside what a user would write instead: time, memory, and what is found.

    python -m bench.audit [--rows N] [--words N] [--seed N] [--json]

Synthetic rows with the word frequencies of language (Zipf), written once as JSON lines of prompt and
completion: 1 % exact copies, 1 % copies with two words changed, 0.2 % with an e-mail address, one row in a
hundred thousand without an answer. Each method runs in a process of its own on the same file, reading
included:

- `ours`: `audit_dataset` with lengths in words: every number of the report;
- `pandas`: `read_json(lines=True)`: exact copies, length percentiles, e-mail addresses, empty cells;
- `datasets`: `load_dataset("json")` with one `map`: the same numbers.

The last two find no near-duplicates, languages or other kinds of personal data. The target of ours: 100,000
rows in under 60 s and 1 GB on two cores.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench.methods import Document, command_line, new_document, run_methods, run_part, show, timed

METHODS = ("ours", "pandas", "datasets")
FILE = "rows.jsonl"
EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+"
TARGET_SECONDS, TARGET_MIB = 60, 1024


def make_file(folder: Path, n_rows: int, n_words: int, seed: int) -> None:
    """Write the rows: a fifth of the words asks, the rest answers."""
    rng = random.Random(seed)
    vocabulary = [f"w{n}" if n >= 20 else word for n, word in enumerate([*_COMMON, *[""] * 49_980])]
    weights = [1 / (n + 3) for n in range(len(vocabulary))]
    total = list(accumulate(weights))
    kept: list[list[str]] = []
    with (folder / FILE).open("w") as stream:
        for number in range(n_rows):
            kind = number % 100
            if kind == 7 and kept:
                words = list(rng.choice(kept))
            elif kind == 8 and kept:
                words = list(rng.choice(kept))
                for _ in range(2):
                    words[rng.randrange(len(words))] = f"x{rng.randrange(10**6)}"
            else:
                n = max(12, round(n_words * rng.lognormvariate(0, 0.4)))
                words = rng.choices(vocabulary, cum_weights=total, k=n)
                # Rows that are changed below are no sources: their copies would be neither exact nor near.
                if len(kept) < 5_000 and number % 500 != 3 and number % 100_000 != 99:
                    kept.append(words)
            if number % 500 == 3:
                words = [*words, f"write to person{number}@example.org"]
            cut = max(4, len(words) // 5)
            answer = "" if number % 100_000 == 99 else " ".join(words[cut:])
            stream.write(json.dumps({"prompt": " ".join(words[:cut]), "completion": answer}) + "\n")


_COMMON = "the of and to in is that it for was with as on are be this you what how not".split()  # noqa: SIM905


def ours(path: Path) -> dict[str, Any]:
    """The audit of this package."""
    from rdagent_ft.data.audit_stream import audit_dataset
    from rdagent_ft.data.resolve import resolve_dataset

    found = audit_dataset(resolve_dataset(str(path), path.parent), max_length=1024)
    return {
        "rows": found.n_rows,
        "empty": found.n_read - found.n_rows,
        "exact": found.n_exact_duplicates,
        "near": found.n_near_duplicates,
        "p50": found.lengths.p50,
        "p99": found.lengths.p99,
        "email_rows": found.personal["email"].n_rows,
    }


def pandas(path: Path) -> dict[str, Any]:
    """The usual notebook."""
    import pandas as frames

    table = frames.read_json(path, lines=True)
    whole = table["prompt"] + " " + table["completion"]
    words = whole.str.split().str.len()
    return {
        "rows": len(table),
        "empty": int((table["completion"] == "").sum()),
        "exact": int(table.duplicated().sum()),
        "p50": int(words.quantile(0.5)),
        "p99": int(words.quantile(0.99)),
        "email_rows": int(whole.str.contains(EMAIL, regex=True).sum()),
    }


def datasets(path: Path) -> dict[str, Any]:
    """The usual script around a data library."""
    import re

    import numpy as np
    from datasets import load_dataset

    email = re.compile(EMAIL)

    def judge(row: dict[str, str]) -> dict[str, Any]:
        whole = f"{row['prompt']} {row['completion']}"
        return {
            "words": len(whole.split()),
            "empty": not row["completion"],
            "email": email.search(whole) is not None,
            "key": hash(whole),
        }

    table = load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache")
    ).map(judge)
    words = np.array(table["words"])
    return {
        "rows": len(table),
        "empty": sum(table["empty"]),
        "exact": len(table) - len(set(table["key"])),
        "p50": int(np.quantile(words, 0.5)),
        "p99": int(np.quantile(words, 0.99)),
        "email_rows": sum(table["email"]),
    }


def run_method(method: str, folder: Path) -> Document:
    """Run one method in this process; return seconds with imports, memory and its numbers."""
    audit = {"ours": ours, "pandas": pandas, "datasets": datasets}[method]
    done = timed(lambda: audit(folder / FILE))
    return {**done.costs(), **done.found}


def measure(n_rows: int, n_words: int, seed: int) -> Document:
    """Write the file, then run all methods, one after another, each in its own process."""
    document = new_document(
        load_average=[round(load, 1) for load in os.getloadavg()],
        n_rows=n_rows,
        n_words=n_words,
        seed=seed,
        target={"seconds": TARGET_SECONDS, "peak_memory_mib": TARGET_MIB},
    )
    with tempfile.TemporaryDirectory() as name:
        run_part("bench.audit", "--write", name, "--rows", n_rows, "--words", n_words, "--seed", seed)
        document["mib"] = round((Path(name) / FILE).stat().st_size / 2**20)
        run_methods(document, "bench.audit", METHODS, "--folder", name)
    mine = document["methods"]["ours"]
    document["met"] = mine["seconds"] < TARGET_SECONDS and mine["peak_memory_mib"] < TARGET_MIB
    return document


def main() -> None:
    """Parse the command line and print the document."""
    parser = command_line(__doc__, METHODS, rows=100_000, words=150, seed=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", type=Path, help="only write the file into this folder")
    arguments = parser.parse_args()
    if arguments.write:
        make_file(arguments.write, arguments.rows, arguments.words, arguments.seed)
    elif arguments.method:
        print(json.dumps(run_method(arguments.method, arguments.folder)))
    else:
        show(measure(arguments.rows, arguments.words, arguments.seed), as_json=arguments.json)


if __name__ == "__main__":
    main()
