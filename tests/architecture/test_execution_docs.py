"""docs/execution.md promises nothing without a test: each sentence names one, and each one exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "execution.md"
NO_PROMISES = {"What is not promised"}
MARKER = re.compile(r"<!-- test: (.*?) -->")
SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")
REFERENCE = re.compile(
    r"(?P<path>tests/[\w/]+\.py)::(?:(?P<group>\w+)::)?(?P<name>\w+)(?:\[(?P<case>[^\]]+)\])?"
)


def promise_blocks(text: str) -> list[str]:
    """Return the paragraphs, list items and table rows of all sections that promise something."""
    blocks: list[str] = []
    section = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#"):
            section = line.removeprefix("## ").strip() if line.startswith("## ") else ""
            continue
        is_head = number + 1 < len(lines) and re.fullmatch(r"[|\-]+", lines[number + 1]) is not None
        if (
            line
            and section
            and section not in NO_PROMISES
            and not is_head
            and not re.fullmatch(r"[|\-]+", line)
        ):
            blocks.append(line)
    return blocks


def unproven(block: str) -> list[str]:
    """Return the sentences of a block that no marker follows."""
    plain = re.sub(r"`[^`]*`", "code", block)
    if plain.startswith("|"):
        return [] if MARKER.search(plain) else [block]
    if plain.endswith(":"):  # it only introduces the list below it
        return []
    chunks = MARKER.split(plain)[::2]
    alone = [chunk for chunk in chunks[:-1] if len(SENTENCE_END.findall(chunk.strip())) != 1]
    return alone + ([chunks[-1]] if chunks[-1].strip() else [])


BLOCKS = promise_blocks(PAGE.read_text(encoding="utf-8"))
OTHER_PAGES = [REPOSITORY / "docs" / "evaluation.md"]
"""Pages that name tests for some of their sentences: those tests must exist too."""
REFERENCES = sorted(
    {
        ref.strip()
        for text in (*BLOCKS, *(page.read_text(encoding="utf-8") for page in OTHER_PAGES))
        for found in MARKER.findall(text)
        for ref in found.split(",")
    }
)


def test_the_page_promises_something() -> None:
    assert len(BLOCKS) > 100
    assert len(REFERENCES) > 100


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[:50])
def test_each_sentence_names_its_test(block: str) -> None:
    assert unproven(block) == []


@pytest.mark.parametrize("reference", REFERENCES)
def test_each_named_test_exists(reference: str) -> None:
    found = REFERENCE.fullmatch(reference)
    assert found is not None, "not of the form tests/…/test_x.py::test_y[case]"
    path = REPOSITORY / found["path"]
    assert path.is_file()
    assert found["name"].startswith("test_")
    assert (found["group"], found["name"]) in names_in(path)
    if found["case"]:
        assert found["case"] in texts_in(path), f"no case is called {found['case']}"


@cache
def names_in(path: Path) -> set[tuple[str | None, str]]:
    """Return class (or None) and name of each test function of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[tuple[str | None, str]] = set()
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        group = node.name if isinstance(node, ast.ClassDef) else None
        found |= {(group, one.name) for one in inner if isinstance(one, ast.FunctionDef)}
    return found


@cache
def texts_in(path: Path) -> set[str]:
    """Return all string literals of a test file and of the helpers beside it that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.ImportFrom) and node.module:
            helper = path.with_name(f"{node.module}.py")
            found |= texts_in(helper) if helper.is_file() else set()
    return found


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("- It holds. <!-- test: a -->", []),
        ("- It holds `a. b; c`, e.g. <!-- test: a -->", []),
        ("- It holds. It lasts. <!-- test: a -->", ["- It holds. It lasts. "]),
        ("- It holds. <!-- test: a --> It lasts.", [" It lasts."]),
        ("- It holds. <!-- test: a --> It lasts. <!-- test: b -->", []),
        ("It holds.", ["It holds."]),
        ("What it keeps:", []),
        ("| a | b |", ["| a | b |"]),
        ("| a. | b. <!-- test: a --> |", []),
    ],
)
def test_this_check_finds_what_is_not_proven(block: str, expected: list[str]) -> None:
    assert unproven(block) == expected


def test_tables_heads_and_other_sections_need_no_test() -> None:
    page = "# Page\nIntro.\n\n## Holds\n| a |\n|---|\n| b |\n- c\n\n## What is not promised\n- d\n## Again\ne"
    assert promise_blocks(page) == ["| b |", "- c", "e"]
