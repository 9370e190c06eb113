"""Finding the Python code in an answer: a chat answer with fences, a bare program, or a continuation.

Nothing here is compiled: the compiler can run out of stack on hostile text. What comes back is a list of
sources, the likeliest first; the program itself takes the first one that compiles and defines what
the tests call (`programs`). All of it is linear in the length of the answer.
"""

from __future__ import annotations

import re

MAX_ANSWER_CHARS = 32_768
"""More of an answer is not looked at: ten times what the longest benchmark solution needs."""
MAX_BLOCKS = 6
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*$", re.MULTILINE)
_CODE_LINE = re.compile(r"^(?:async def |def |class |from |import |@)", re.MULTILINE)
_START = re.compile(r"\[(?:BEGIN|PYTHON)\]|<code>")
_STOPS = re.compile(r"\[(?:DONE|END|/PYTHON)\]|<\|[\w|]+\|>|</s>|</code>|^```", re.MULTILINE)
_THOUGHT_END = "</think>"
_PYTHON_WORDS = frozenset({"", "py", "py3", "python", "python3"})


def readable_part(answer: str, prompt: str) -> str:
    """Return the part of an answer in which code is looked for.

    Reasoning up to the last `</think>` is left out. Where the prompt ends inside an open code fence,
    the answer begins inside it, and the fence is put back.
    """
    text = answer[-MAX_ANSWER_CHARS:] if _THOUGHT_END in answer else answer
    text = text.rpartition(_THOUGHT_END)[2][:MAX_ANSWER_CHARS].replace("\r\n", "\n").replace("\x00", "")
    if len(_FENCE.findall(prompt)) % 2:
        text = "```python\n" + text
    return text


def fenced_blocks(text: str) -> list[str]:
    """Return the fenced Python blocks, the last one first; at most `MAX_BLOCKS`.

    A block without its closing fence (the answer was cut off) reaches to the end. Blocks that name
    another language are left out.
    """
    blocks: list[str] = []
    opened: tuple[str, bool, int] | None = None
    for match in _FENCE.finditer(text):
        mark, word = match[1], match[2].lower()
        if opened is None:
            opened = (mark, word in _PYTHON_WORDS, match.end() + 1)
        elif mark[0] == opened[0][0] and len(mark) >= len(opened[0]):
            if opened[1]:
                blocks.append(text[opened[2] : match.start()])
            opened = None
    if opened is not None and opened[1]:
        blocks.append(text[opened[2] :])
    return [block for block in reversed(blocks) if block.strip()][:MAX_BLOCKS]


def plain_text(text: str) -> str:
    """Return an answer from its start mark (`[BEGIN]`), if it has one, to its first stop mark."""
    match = _START.search(text)
    return _before_stop(text if match is None else text[match.end() :])


def bare_program(text: str) -> str:
    """Return `plain_text` from its first line of code on, so without prose before it; "" without code."""
    text = plain_text(text)
    match = _CODE_LINE.search(text)
    return "" if match is None else text[match.start() :]


def body_of(text: str) -> str:
    """Return the indented lines at the start of a continuation: the rest of the function, and no more.

    This is what the usual stop sequences of completion benchmarks (`\\ndef`, `\\nclass`, `\\nif`,
    `\\nprint`, `\\n#`) leave. A first line that lost its indentation gets it back.
    """
    text = _before_stop(text)
    lines = text.lstrip("\n").split("\n")
    if lines[0].strip() and not lines[0][0].isspace():
        lines[0] = "    " + lines[0]
    kept: list[str] = []
    for line in lines:
        if line.strip() and not line[0].isspace():
            break
        kept.append(line)
    return "\n".join(kept).rstrip() + "\n"


def begins_as_code(text: str) -> bool:
    """Return whether an answer's first line with text starts a program of its own."""
    return _CODE_LINE.match(text.lstrip("\n")) is not None


def begins_indented(text: str) -> bool:
    """Return whether an answer's first line with text continues an indented block."""
    first = text.lstrip("\n")
    return first[:1] in {" ", "\t"}


def _before_stop(text: str) -> str:
    match = _STOPS.search(text)
    return text if match is None else text[: match.start()]
