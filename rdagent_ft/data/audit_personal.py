"""Patterns of personal data and of secrets in text: how often, and in which rows. Never the value itself.

Patterns find forms, not persons: a phone number of an example is counted, a name is not. Card numbers are
checked by Luhn's sum, IBANs by their remainder of 97 (ISO 13616), so that random digits rarely pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, get_args

PersonalKind = Literal["email", "phone", "ipv4", "card", "iban", "ssn", "api_key"]
PERSONAL_KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)

_EMAIL = re.compile(r"(?<![\w.%+-])[A-Za-z0-9][\w.%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6}")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})(?![\w-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_CARD = re.compile(r"(?<![\d.-])[3-6](?:[ -]?\d){12,18}(?![\d]|[.-]\d)")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_KEY = re.compile(
    r"(?<![\w-])(?:sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
_KEY_SIGNS = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "AKIA", "ASIA", "AIza", "hf_", "xox", "eyJ",
    "PRIVATE KEY",
)  # fmt: skip
# Every number below holds such a run; most texts hold none, and one search is cheaper than six.
_LONG_NUMBER = re.compile(r"\d[\d ().-]{5,}\d")
_NOT_PERSONAL_ADDRESSES = ("0.", "127.", "255.")


def personal_counts(text: str) -> dict[PersonalKind, int]:
    """Return kind -> number of hits in a text; kinds without a hit are left out."""
    found: dict[PersonalKind, int] = {}
    for kind, pattern, is_real in _checks(text):
        n_hits = sum(is_real(match.group()) for match in pattern.finditer(text))
        if n_hits:
            found[kind] = n_hits
    return found


def _checks(text: str) -> Iterator[tuple[PersonalKind, re.Pattern[str], Callable[[str], bool]]]:
    """Yield the patterns that can occur at all in this text: most texts have neither `@` nor numbers."""
    if "@" in text:
        yield "email", _EMAIL, _always
    if any(sign in text for sign in _KEY_SIGNS):
        yield "api_key", _KEY, _always
    if _LONG_NUMBER.search(text) is None:
        return
    yield "phone", _PHONE, _is_phone
    yield "card", _CARD, _is_card
    yield "iban", _IBAN, _is_iban
    if "." in text:
        yield "ipv4", _IPV4, _is_ipv4
    if "-" in text:
        yield "ssn", _SSN, _always


def _always(_text: str) -> bool:
    return True


def _is_phone(text: str) -> bool:
    return 8 <= sum(char.isdigit() for char in text) <= 15


def _is_ipv4(text: str) -> bool:
    return all(int(part) <= 255 for part in text.split(".")) and not text.startswith(_NOT_PERSONAL_ADDRESSES)


def _is_card(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(char, 36)) for char in turned)) % 97 == 1
