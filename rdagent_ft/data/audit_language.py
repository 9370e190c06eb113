"""Which language a text is written in, guessed from its script and its most common small words.

A heuristic: enough to notice that a dataset mixes languages, not to sort one. Short texts, code and
languages outside of the list are `unknown`; languages that share a script are told apart by small words
only where those are listed. Word lists are ours.
"""

from __future__ import annotations

import re
from functools import cache

UNKNOWN = "unknown"
_MAX_CHARS = 800
_MIN_SMALL_WORDS = 2
_MIN_SHARE = 0.06
_MIN_SCRIPT_SHARE = 0.3
_WORD = re.compile(r"[^\W\d_]+")
_SMALL_WORDS = """
en the of and to in is that it for was with as on are be this i you my have can what how not from
de der die das und ist nicht ein eine zu den mit von auf für sich dem wie auch wird ich
fr le la les et des est une dans que pour qui pas sur du au avec ce sont vous je
es el los las y en que una por con para es del se como más su al qué está la
it il di che è per un una non con del della sono le gli nel come questo anche alla
pt os as de que não uma em para com é da um na por mais como você
nl de het een en van niet dat op te zijn voor met die ook aan er maar ik
pl w na nie się z jest że jak dla po co przez są od czy który oraz
tr ve bir bu için ile ne çok olarak daha en gibi mi olan var
id yang dan di ini itu dengan untuk dari tidak dalam adalah pada akan ke saya apa
"""
_SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
# A Japanese text is mostly kanji: a little kana decides.
_MIN_KANA_SHARE = 0.05


def guess_language(text: str) -> str:
    """Return a two-letter code (script's most common language: `ru` for Cyrillic), or `unknown`."""
    text = text[:_MAX_CHARS]
    if not text.isascii() and (found := _by_script(text)) is not None:
        return found
    words = set(_WORD.findall(text.lower()))
    best, n_best = UNKNOWN, _MIN_SMALL_WORDS - 1
    for language, small in _small_words():
        n_small = len(small & words)
        if n_small > n_best:
            best, n_best = language, n_small
    return best if n_best >= _MIN_SHARE * len(words) else UNKNOWN


@cache
def _small_words() -> tuple[tuple[str, frozenset[str]], ...]:
    lines = (line.split() for line in _SMALL_WORDS.strip().splitlines())
    return tuple((language, frozenset(words)) for language, *words in lines)


def _by_script(text: str) -> str | None:
    n_letters = sum(map(str.isalpha, text))
    if not n_letters:
        return None
    for language, pattern in _SCRIPTS:
        share = _MIN_KANA_SHARE if language == "ja" else _MIN_SCRIPT_SHARE
        if len(pattern.findall(text)) >= share * n_letters:
            return language
    return None
