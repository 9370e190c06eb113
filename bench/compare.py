"""Comparing two models' answers beside what a user would write instead: time, memory, and the result.

    python -m bench.compare [--rows N] [--chars N] [--seed N] [--json]

Synthetic answers of two models to the same items, as our result folders and as folders of lm-eval with
two filters a document (so twice the lines), written once; of the items tuned gains 6 % and loses 3 %.
Each method runs in a process of its own on the same files, reading included:

- `ours`: `read_result` of two result folders and `compare_results`;
- `ours lm-eval`: the same on the folders of lm-eval;
- `pandas`: `read_json(lines=True)` of the lm-eval files, one filter kept, merged by document hash;
- `plain`: `json.loads` of every lm-eval line into a list, one filter kept, paired in a dictionary.

The last two give a mean difference and its standard error, and check nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

from bench.methods import Document, command_line, new_document, run_methods, run_part, show, timed

METHODS = ("ours", "ours lm-eval", "pandas", "plain")
STAMP = "2026-11-20T21-00-00.000001"
TASK = "gsm8k"


def make_files(folder: Path, n_rows: int, n_chars: int, seed: int) -> None:
    """Write both forms of both models' answers."""
    rng = random.Random(seed)
    words = [f"w{n}" for n in range(5_000)]
    base = [float(rng.random() < 0.6) for _ in range(n_rows)]
    tuned = [
        (0.0 if rng.random() < 0.03 / 0.6 else 1.0) if old else float(rng.random() < 0.06 / 0.4)
        for old in base
    ]
    text = " ".join(rng.choices(words, k=n_chars // 4))
    for name, scores in (("a", base), ("b", tuned)):
        _write_result(folder / "ours" / name, scores, text, n_chars, rng)
        _write_harness(folder / "lm-eval" / name, scores, text, n_chars, rng)


def _write_result(folder: Path, scores: list[float], text: str, n_chars: int, rng: random.Random) -> None:
    from rdagent_ft.evaluation.results.document import GenerationUse, ModelIdentity, ResultDocument
    from rdagent_ft.evaluation.results.folder import entry_of, write_result
    from rdagent_ft.evaluation.rows import SampleRow

    rows: list[SampleRow] = []
    for at, score in enumerate(scores):
        start = rng.randrange(max(1, len(text) - n_chars))
        rows.append(
            SampleRow(
                benchmark=TASK, split="test", item_id=_hash(at)[:16], prompt_hash=_hash(-at)[:16],
                prediction=text[start : start + n_chars], extracted="1", gold="1", score=score,
                finish_reason="stop", n_tokens=100,
            )
        )  # fmt: skip
    document = ResultDocument(
        run_id="bench",
        created="2026-11-20T21:00:00Z",
        status="ok",
        model=ModelIdentity(role="base", id=folder.name, kind="full"),
        generation=GenerationUse(protocol="chat"),
        benchmarks={TASK: entry_of(rows, scorer="numeric_match", n_expected=len(rows))},
    )
    write_result(folder, document, {TASK: rows})


def _write_harness(folder: Path, scores: list[float], text: str, n_chars: int, rng: random.Random) -> None:
    folder.mkdir(parents=True)
    filters = ("strict-match", "flexible-extract")
    with (folder / f"samples_{TASK}_{STAMP}.jsonl").open("w") as stream:
        for name in filters:
            for at, score in enumerate(scores):
                start = rng.randrange(max(1, len(text) - n_chars))
                row = {
                    "doc_id": at, "doc": {"question": text[:200], "answer": "1"}, "target": "1",
                    "arguments": {"gen_args_0": {"arg_0": text[:200], "arg_1": {"until": ["Q:"]}}},
                    "resps": [[text[start : start + n_chars]]], "filtered_resps": ["1"], "filter": name,
                    "metrics": ["exact_match"], "doc_hash": _hash(at), "prompt_hash": _hash(-at),
                    "target_hash": _hash(0), "exact_match": score,
                }  # fmt: skip
                stream.write(json.dumps(row) + "\n")
    mean = math.fsum(scores) / len(scores)
    document = {
        "results": {TASK: {f"exact_match,{name}": mean for name in filters}},
        "group_subtasks": {},
        "configs": {TASK: {}},
        "n-samples": {TASK: {"original": len(scores), "effective": len(scores)}},
        "higher_is_better": {TASK: {"exact_match": True}},
        "model_name": folder.name,
    }
    (folder / f"results_{STAMP}.json").write_text(json.dumps(document))


def _hash(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def ours(folder: Path, form: str) -> dict[str, Any]:
    """Read, check and compare with this package."""
    from rdagent_ft.evaluation.results.compare import compare_results
    from rdagent_ft.evaluation.results.read import read_result

    document = compare_results(read_result(folder / form / "a"), read_result(folder / form / "b"))
    pair = document.pairs[TASK]
    return {"n": pair.n_pairs, "delta": pair.delta, "se": pair.se, "verdict": pair.verdict}


def pandas(folder: Path) -> dict[str, Any]:
    """The usual notebook."""
    import pandas as frames

    sides: list[Any] = []
    for name in ("a", "b"):
        rows = frames.read_json(folder / "lm-eval" / name / f"samples_{TASK}_{STAMP}.jsonl", lines=True)
        sides.append(rows[rows["filter"] == "flexible-extract"])
    both = sides[0].merge(sides[1], on="doc_hash")
    difference = both["exact_match_y"] - both["exact_match_x"]
    return {"n": len(both), "delta": float(difference.mean()), "se": float(difference.sem())}


def plain(folder: Path) -> dict[str, Any]:
    """The usual script."""
    sides: list[dict[str, float]] = []
    for name in ("a", "b"):
        with (folder / "lm-eval" / name / f"samples_{TASK}_{STAMP}.jsonl").open() as stream:
            rows = [json.loads(line) for line in stream]
        sides.append(
            {row["doc_hash"]: row["exact_match"] for row in rows if row["filter"] == "flexible-extract"}
        )
    found = [sides[1][key] - score for key, score in sides[0].items()]
    mean = sum(found) / len(found)
    variance = sum((value - mean) ** 2 for value in found) / (len(found) - 1)
    return {"n": len(found), "delta": mean, "se": math.sqrt(variance / len(found))}


def run_method(method: str, folder: Path) -> Document:
    """Run one method in this process; return seconds with imports, memory and its result."""
    done = timed(
        {
            "ours": lambda: ours(folder, "ours"),
            "ours lm-eval": lambda: ours(folder, "lm-eval"),
            "pandas": lambda: pandas(folder),
            "plain": lambda: plain(folder),
        }[method]
    )
    found = {key: round(value, 6) if isinstance(value, float) else value for key, value in done.found.items()}
    return {**done.costs(), **found}


def measure(n_rows: int, n_chars: int, seed: int) -> Document:
    """Write the files, then run all methods, one after another, each in its own process."""
    document = new_document(n_rows=n_rows, n_chars=n_chars, seed=seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_part("bench.compare", "--write", name, "--rows", n_rows, "--chars", n_chars, "--seed", seed)
        document["mib_a_side"] = {
            form: round(sum(p.stat().st_size for p in (folder / form / "a").rglob("*.jsonl")) / 2**20)
            for form in ("ours", "lm-eval")
        }
        run_methods(document, "bench.compare", METHODS, "--folder", name)
    return document


def main() -> None:
    """Parse the command line and print the document."""
    parser = command_line(__doc__, METHODS, rows=100_000, chars=1_000, seed=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", type=Path, help="only write the files into this folder")
    arguments = parser.parse_args()
    if arguments.write:
        make_files(arguments.write, arguments.rows, arguments.chars, arguments.seed)
    elif arguments.method:
        print(json.dumps(run_method(arguments.method, arguments.folder)))
    else:
        show(measure(arguments.rows, arguments.chars, arguments.seed), as_json=arguments.json)


if __name__ == "__main__":
    main()
