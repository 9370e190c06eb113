"""Finding the option letter that an answer states.

A letter counts only where it is stated as an answer, never because it occurs: "A dog" is not A. The
last statement wins, because models reason first. Covers letters A to J; an answer that repeats an
option's text without its letter states none.
"""

from __future__ import annotations

import re

LETTERS = "ABCDEFGHIJ"

_SPACE = r"\s{0,8}"
_DRESS = r"[\s*_`\"'$({\[]{0,12}"
_MACRO = r"(?:\\(?:text|mathrm|mathbf|textbf|boxed)\s?\{)?"
_NO_WORD = r"(?![A-Za-z0-9])(?!['’](?:s|m|d|ll|re|ve)\b)"
_NO_HEDGE = rf"(?![*)\]]{{0,3}}{_SPACE}(?:or|and|/|,|&){_SPACE}[*(\[]{{0,3}}(?-i:[A-J])(?![A-Za-z0-9]))"
_LETTER = rf"{_DRESS}{_MACRO}{_DRESS}(?P<letter>[A-J]){_NO_WORD}{_NO_HEDGE}"
_STATED = re.compile(
    rf"\b(?:answer|option|choice)[*_`]{{0,3}}"
    rf"(?:\s{{1,8}}(?:is|was|(?:would|should|must)\s{{1,4}}be)|{_SPACE}(?:[:=]>?|-{{1,2}}>|→))"
    rf"(?:[\s*_]{{0,8}}(?:clearly|therefore|thus|option|choice|letter|:)){{0,2}}{_LETTER}",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    rf"\bI(?:['’]d|['’]ll|\s{{1,4}}would|\s{{1,4}}will)?\s{{1,4}}(?:choose|pick|select|go\s{{1,4}}with)"
    rf"(?:\s{{1,4}}(?:option|choice|answer|letter))?\s{_LETTER}",
    re.IGNORECASE,
)
_BOXED = re.compile(rf"\\boxed\s?\{{{_LETTER}")
_LINE = re.compile(
    rf"^{_DRESS}(?:(?:option|choice)\s{{1,4}}[*(]{{0,3}})?(?P<letter>[A-Ja-j])[\s*_`\"'$)}}\].:]{{0,12}}$",
    re.MULTILINE | re.IGNORECASE,
)
_LED = re.compile(r"\A[\s*_`\"'(\[]{0,12}(?P<letter>[A-J])\s?(?:[)\]:*]|\.(?!\w))")
_OPTION_IS = re.compile(
    rf"\b(?:option|choice|answer)\s{{1,4}}[(*]{{0,3}}(?P<letter>[A-J]){_NO_WORD}[)*]{{0,3}}\s{{1,4}}is\s{{1,4}}"
    r"(?:the\s{1,4})?(?:correct|right|best|true)\b",
    re.IGNORECASE,
)
_OPENERS = frozenset("([*{_\"'`")
_A_WORD_FOLLOWS = re.compile(r"[ \t]+(?!(?:because|since|as|for|with|is|and|but)\b)[a-z]")


def stated_letter(text: str) -> str | None:
    """Return the letter A-J that the answer states, in upper case; None when it states none.

    Statements: `answer is B`, `Answer: (B)`, `\\boxed{B}`, `option B is correct`, a line that is only
    the letter. The last one wins. Without any, an answer that begins with `B)`, `B.`, `B:` or `(B)`.
    """
    found: list[tuple[int, str]] = []
    for pattern in (_STATED, _CHOSEN, _BOXED, _LINE, _OPTION_IS):
        for match in pattern.finditer(text):
            if _is_letter(match, text):
                found.append((match.start("letter"), match["letter"].upper()))
    if found:
        return max(found)[1]
    led = _LED.match(text)
    return led["letter"] if led else None


def gold_letter(text: str) -> str | None:
    """Return the reference letter in upper case: `B`, `b`, `(B)`, `B.`; None for anything else."""
    match = re.fullmatch(r"\(?([A-Ja-j])[).]?", text.strip())
    return match[1].upper() if match else None


def _is_letter(match: re.Match[str], text: str) -> bool:
    """Return whether the match states a letter, and not the word `a` or `I`.

    "The answer is a dog" goes on with a word. So does "the answer is B because", which is why only
    the two letters that are English words are doubted; "Answer: A bank" is lost by it.
    """
    start, end = match.span("letter")
    if match["letter"] not in "aAiI" or text[start - 1 : start] in _OPENERS:
        return True
    return _A_WORD_FOLLOWS.match(text, end) is None
