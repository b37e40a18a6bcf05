"""The words of a text as a reader sees them, in any script."""

from __future__ import annotations

import unicodedata

# Each of these is read as a word of its own, as no spaces part them.
_ALONE = ("CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA")
_ZERO_WIDTH_JOINER = "\u200d"
# What joins two letters, and what joins two digits.
_BETWEEN_LETTERS = frozenset("'\u2019-\u2010\u2011\u00b7")
_BETWEEN_DIGITS = frozenset(".,:")


def find_words(text: str) -> list[tuple[int, int]]:
    """Return where each word begins and ends; punctuation is a word of its own.

    Marks and joiners belong to the character before them, so that an accented letter
    or an emoji of several characters stays whole. Chinese characters and hiragana are
    words each.

    Examples
    --------
    >>> [text[a:b] for text in ["Don't panic, it's 3.5!"] for a, b in find_words(text)]
    ["Don't", 'panic', ',', "it's", '3.5', '!']
    """
    spans: list[tuple[int, int]] = []
    kinds = [_kind(character) for character in text]
    for i, kind in enumerate(kinds):
        if kind == "space":
            continue
        if spans and spans[-1][1] == i and _continues(text, kinds, spans[-1], i):
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
    return spans


def without_word(text: str, start: int, end: int) -> str:
    """Return a text without the word at a place, and with one space less around it."""
    before, after = text[:start], text[end:]
    if after[:1].isspace() and (not before or before[-1].isspace()):
        after = after[1:]
    elif not after and before[-1:].isspace():
        before = before[:-1]
    return before + after


def _kind(character: str) -> str:
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf" or 0x1F3FB <= ord(character) <= 0x1F3FF:
        return "mark"
    if 0x1F1E6 <= ord(character) <= 0x1F1FF:
        return "flag"  # two of them are one
    if character.isalpha():
        name = unicodedata.name(character, "")
        return "alone" if name.startswith(_ALONE) else "letter"
    if character.isalnum() or character == "_":
        return "digit"
    return "symbol" if category[0] == "S" else "punctuation"


def _continues(text: str, kinds: list[str], span: tuple[int, int], i: int) -> bool:
    """Tell whether a character belongs to the word that ends before it."""
    kind, before = kinds[i], text[i - 1]
    if kind == "mark" or (before == _ZERO_WIDTH_JOINER and kind == "symbol"):
        return True
    if kind == "flag":
        return kinds[span[0]] == "flag" and i - span[0] == 1
    first = kinds[span[0]]
    if kind in ("letter", "digit"):
        return first in ("letter", "digit")
    if kind != "punctuation":
        return False
    if first == "punctuation":
        return text[span[0]] == text[i]  # "...", "!!"
    following = kinds[i + 1] if i + 1 < len(kinds) else ""
    if text[i] in _BETWEEN_LETTERS:
        joined: tuple[str, ...] = ("letter", "digit")
    elif text[i] in _BETWEEN_DIGITS:
        joined = ("digit",)
        if not text[i - 1].isdigit():
            return False
    else:
        return False
    return first in ("letter", "digit") and following in joined
