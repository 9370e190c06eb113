"""The `<think>` block in front of an answer: put it there, or take it away. Text only, no templates.

The empty block is what reasoning models of the Qwen3 family write when thinking is off. Training and
inference must agree: an answer without a block teaches such a model to skip thinking.
"""

from __future__ import annotations

import re

_BLOCK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def has_thinking(answer: str) -> bool:
    """Return whether the answer begins with a closed block."""
    return _BLOCK.match(answer) is not None


def without_thinking(answer: str) -> str:
    """Return the answer without its leading block; other text stays as it is."""
    found = _BLOCK.match(answer)
    return answer if found is None else answer[found.end() :]


def with_thinking(answer: str, thoughts: str = "") -> str:
    """Return the answer behind a block that holds `thoughts`; an answer that has one stays as it is."""
    if has_thinking(answer):
        return answer
    return f"<think>\n{thoughts.strip()}\n</think>\n\n{answer}"
