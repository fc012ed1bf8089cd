"""What a sentence says: words, phrases that name an answer, choices. For predictions that are free text."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

Words = list[str]
Lexicon = dict[tuple[str, ...], str]


def words(text: str) -> Words:
    """Lower-case words and numbers without punctuation, plurals' s, genitives; "isn't" is "is not", "10+" and ">10"
    are "more than 10", "yes/no" is "yes or no". Times such as 0:35 are left out."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("_", " ").replace("/", " or ")
    text = re.sub(r"n't\b", " not", re.sub(r"\bcan(?:'t|not)\b", "can not", text))
    text = re.sub(r"'\w*", "", text)
    text = re.sub(r"(\d+)\s*\+|>\s*(\d+)", r" more than \1\2 ", text)
    text = re.sub(r"\d+(:\d+)+", " ", text)
    return [_singular(word) for word in re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+", text)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


FILLERS = {*words("a an the on in at to by from it of is")}


def lexicon(answers: Mapping[str, str]) -> Lexicon:
    """answer -> the phrases that name it, separated by commas."""
    return {tuple(words(phrase)): answer for answer, phrases in answers.items() for phrase in phrases.split(",")}


def conclusion(text: str) -> str:
    """What follows the last "answer is" or "answer:", where that is said."""
    parts = re.split(r"(?i)\banswer(?:\s+is\b|\W*[:>])", text)
    return next((part for part in reversed(parts) if re.search(r"\w", part)), text)


def find(said: Words, names: Lexicon, typos: int = 99) -> list[tuple[int, int, str]]:
    """(start, end, answer) of every phrase of `names` in the order said, the longest where one holds another.

    A word of `typos` letters or more may differ by one slip of the keys from a name, the first letter excepted.
    """
    longest = max(map(len, names))
    found, start = [], 0
    while start < len(said):
        for end in range(min(len(said), start + longest), start, -1):
            if (phrase := tuple(said[start:end])) in names:
                found.append((start, end, names[phrase]))
                break
        else:
            end = start + 1
            if len(said[start]) >= typos:
                close = {names[name] for name in names if len(name) == 1 and _one_slip(said[start], name[0])}
                found += [(start, end, answer) for answer in close if len(close) == 1]
        start = end
    return found


def _one_slip(a: str, b: str) -> bool:
    """Whether a letter too many, too few, wrong or swapped with the next turns one word into the other."""
    same = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[same:], b[same:]
    return same > 0 and (a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:]))


def affirmed(said: Words, found: Sequence[tuple[int, int, str]]) -> list[str]:
    """The distinct answers that are found and not denied: "not on the left", "rather than the piano"."""
    return list(dict.fromkeys(answer for start, _, answer in found if not _denied(said, start)))


def _denied(said: Words, start: int) -> bool:
    before = start
    while before and said[before - 1] in FILLERS and start - before < 3:
        before -= 1
    last = said[max(0, before - 2) : before]
    return last[-1:] in (["not"], ["no"], ["nor"], ["instead"]) or last in (["rather", "than"], ["other", "than"])


def plain(text: str, question: Mapping[str, Any]) -> str | None:
    """The text itself, without a full stop; None where nothing is said."""
    return text.strip().removesuffix(".").strip() or None


def chosen(text: str, question: Mapping[str, Any]) -> str | None:
    """The one of the question's `choices` that is meant: by itself, by A to D or 0 to 3, or named alone in a sentence.

    A letter counts where it stands alone or as "B.", "(b)", "option B". Numbers are indices as in AVQA's own files,
    unless a choice is that number.
    """
    choices = question["choices"]
    text = conclusion(text)
    said = words(text)
    by_words: dict[tuple[str, ...], str] = {tuple(words(choice)): choice for choice in choices if words(choice)}
    if tuple(said) in by_words:
        return by_words[tuple(said)]
    if len(said) == 1 and said[0].isdecimal():
        return choices[int(said[0])] if int(said[0]) < len(choices) else None
    letter = re.match(r"(?i)\W*(?:(?:option|choice)\s+)?(?:([a-d])\W*$|\(([a-d])\)|([a-d])[.:)])", text) or re.match(
        r"(?i)\W*(?:option|choice)\s+([a-d])\b", text
    )
    if letter:
        return choices["abcd".index(next(filter(None, letter.groups())).lower())]
    named = affirmed(said, find(said, by_words)) if by_words else []
    return named[0] if len(named) == 1 else None
