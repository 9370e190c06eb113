"""Rewards that compare short texts: `exact`, `numeric`, `think_format`. Standard library only.

Numbers are found and compared as the evaluation does it (`answers.number_answers`), white space is
normalised as in its `exact_match`; case does not count here.
"""

from __future__ import annotations

from fractions import Fraction

from rdagent_ft.answers.number_answers import gold_number, stated_number
from rdagent_ft.answers.plain_text import collapse
from rdagent_ft.training.rewards.reward import THINK_CLOSE, THINK_OPEN, Batch, Score


def exact(answer: str, gold: str) -> Score:
    """Return 1 when the texts are equal but for white space and case."""
    return float(collapse(answer).casefold() == collapse(gold).casefold())


def numeric(answer: str, gold: str, tolerance: Fraction) -> Score:
    """Return 1 when the stated number is within `tolerance` x |gold number| of the gold number.

    Stated is what follows the first `####`, stands in the last `\\boxed{}`, or else the last number.
    None when the gold answer is not one number.
    """
    expected = gold_number(gold)
    if expected is None:
        return None
    found = stated_number(answer)
    return float(found is not None and abs(found - expected) <= tolerance * abs(expected))


def think_format(batch: Batch) -> list[Score]:
    """Return 1 for one `<think>…</think>` block with text in it, first, and then an answer.

    A prompt that ends with `<think>` has opened the block for the completion.
    """
    return [
        float(_is_thought_then_answer(THINK_OPEN + text if _opens(prompt) else text))
        for prompt, text in zip(batch.prompts, batch.texts(), strict=True)
    ]


def _opens(prompt: object) -> bool:
    return isinstance(prompt, str) and prompt.rstrip().endswith(THINK_OPEN)


def _is_thought_then_answer(text: str) -> bool:
    if text.count(THINK_OPEN) != 1 or text.count(THINK_CLOSE) != 1:
        return False
    before, _, rest = text.partition(THINK_OPEN)
    thought, closed, answer = rest.partition(THINK_CLOSE)
    return bool(closed and not before.strip() and thought.strip() and answer.strip())
