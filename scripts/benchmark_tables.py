"""The tables of docs/benchmarks.md: benchmarks from the registry, suites from their files.

The prose of that page is written by hand; only what stands between its markers is generated.
"""

from __future__ import annotations

import re
from pathlib import Path

from rdagent_ft.evaluation.benchmark_registry import ALIASES, BENCHMARKS, UNAVAILABLE
from rdagent_ft.evaluation.own_benchmark import OWN_SCORERS
from rdagent_ft.evaluation.suites import SUITE_NAMES, load_suite

RULES = {"all": "all", "hash_rank": "drawn by hash", "per_subject": "the same number of each subject"}


def benchmarks_page(path: Path) -> str:
    """Return the page with its generated parts as they would be now.

    Raises `LookupError` when a part's markers are not there once.
    """
    text = path.read_text(encoding="utf-8")
    for name, lines in _parts().items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = "\n".join(["", *lines, "", ""])
        text, n_found = pattern.subn(lambda match, body=body: match[1] + body + match[2], text)
        if n_found != 1:
            raise LookupError(f"{path} holds {n_found} parts {name}")
    return text


def _parts() -> dict[str, list[str]]:
    return {
        "registry": _registry(),
        "names": _names(),
        "noise": [f"- `{each.name}`: {each.noise}." for each in BENCHMARKS.values()],
        "unavailable": [f"- `{name}`: {reason}." for name, reason in UNAVAILABLE.items()],
        "own-scorers": [", ".join(f"`{name}`" for name in OWN_SCORERS) + "."],
        "suites": _suites(),
    }


def _registry() -> list[str]:
    lines = [
        "| name | what | items | scorer | metric | files, the first found counts | licence |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in BENCHMARKS.values():
        files = ", ".join(f"`{name}`" for name in each.files)
        folders = f" (also in {', '.join(f'`{name}/`' for name in each.folders)})" if each.folders else ""
        scorer = f"`{each.scorer}`" + (", likeliest letter" if each.method == "choose" else "")
        lines.append(
            f"| `{each.name}` | {each.title} | {each.n_items:,} | {scorer} | {each.metric} | "
            f"{files}{folders} | {each.licence} |"
        )
    return lines


def _names() -> list[str]:
    lines = ["| name | also known as |", "|---|---|"]
    for each in BENCHMARKS.values():
        others = [alias for alias, name in ALIASES.items() if name == each.name] + list(each.guide_names)
        if others:
            lines.append(f"| `{each.name}` | {', '.join(f'`{name}`' for name in others)} |")
    return lines


def _suites() -> list[str]:
    lines = []
    for name in SUITE_NAMES:
        suite = load_suite(name)
        lines += [
            f"**{name}** (version {suite.version}): {suite.purpose}. {suite.n_requests:,} requests a model; "
            f"a guard tolerates {100 * suite.guard_margin:g} pp.",
            "",
            "| benchmark | role | items | of | chosen | answers an item | temperature |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{benchmark}` | {used.role} | {used.n_items:,} | {used.n_available:,} | {RULES[used.rule]} | "
            f"{used.repeats} | {used.temperature:g} |"
            for benchmark, used in suite.benchmarks.items()
        ]
        lines.append("")
    return lines[:-1]
