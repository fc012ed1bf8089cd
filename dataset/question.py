"""A question as somebody types it: the template that it fits, and the words in its slots."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from dataset.text_prompt import ANY, SLOT, FilledPrompt, PromptTable, key_of
from utils.errors import UserError

SHOWN = 80  # characters of a question that are repeated in an error
ANY_WORDS = "(.+?)"


class Wording:
    """Finds the prompts of questions that nobody annotated.

    table: the prompts that the model was trained with.
    slots: the values that each slot took in training, by its name in lower case.
    templates: maps each template of the table to the names of its slots, in their order.
    """

    def __init__(self, table: PromptTable, slots: Mapping[str, Sequence[str]]):
        self.table, self.slots = table, slots
        self.templates = {template: slot_names(template) for template in table.templates if template != ANY}

    def fill(self, question: str) -> FilledPrompt:
        """The question as the text encoder reads it, its prompt, and the template that served.

        Where no template fits, the sheet's row `*` serves. Raises `UserError` for an empty question, for a word that
        its slot never took in training and, without a row `*`, for a question that fits no template.
        """
        asked = _key(question)
        if not asked:
            raise UserError("the question is empty")
        if fitting := list(self._fitting(asked, known=True)):
            template, words = min(fitting, key=lambda found: sum(map(len, found[1])))  # it says the most by itself
            return self.table.fill(template, [word.replace(" ", "_") for word in words])  # as annotations spell them
        self._refuse_unknown_word(question, asked)
        if not self.table.serves(ANY):
            by_key = {_key(template): template for template in self.templates}
            near = [repr(by_key[key]) for key in difflib.get_close_matches(asked, by_key, n=3, cutoff=0.0)]
            raise UserError(f"{_shown(question)}: fits no template{_nearest('; ', near)}")
        return self.table.fill(question, [])

    def _fitting(self, asked: str, known: bool) -> Iterator[tuple[str, list[str]]]:
        """Yield (template, words in its slots) for the templates that fit, with `known` words or any."""
        for template, names in self.templates.items():
            values = ["(" + "|".join(map(re.escape, self.values(name))) + ")" if known else ANY_WORDS for name in names]
            if match := re.fullmatch(_pattern(template, values), asked):
                yield template, list(match.groups())

    def _refuse_unknown_word(self, question: str, asked: str) -> None:
        """Raise `UserError` where a template would fit if its slots knew another word."""
        unknown = []
        for template, words in self._fitting(asked, known=False):
            pairs = zip(self.templates[template], words, strict=True)
            wrong = [(name, word) for name, word in pairs if word not in self.values(name)]
            unknown.append((len(wrong), sum(len(word) for _, word in wrong), template, wrong))
        if unknown:
            *_, template, ((name, word), *_) = min(unknown)
            near = difflib.get_close_matches(word, self.values(name), n=3, cutoff=0.0)
            raise UserError(
                f"{_shown(question)}: fits {template!r}, but <{name}> was never {_shown(word)} in training"
                f"{_nearest(', ', near)}"
            )

    def values(self, name: str) -> Sequence[str]:
        """The words that a slot, such as "Object", may be filled with: those of training."""
        return self.slots.get(name.lower(), ())


def slot_values(questions: pd.DataFrame) -> dict[str, list[str]]:
    """The values that slots take in questions (columns template, question), by the slot's name in lower case."""
    values: dict[str, set[str]] = {}
    for template, question in set(zip(questions["template"], questions["question"], strict=True)):
        names = slot_names(template)
        if match := re.fullmatch(_pattern(template, [ANY_WORDS] * len(names)), _key(question)):  # not of the row `*`
            for name, word in zip(names, match.groups(), strict=True):
                values.setdefault(name.lower(), set()).add(word)
    return {name: sorted(values[name]) for name in sorted(values)}


def slot_names(template: str) -> list[str]:
    """The names of a template's slots, in their order: of "Which <Object> makes the sound <FL>?" Object and FL."""
    return [match[1] for match in SLOT.finditer(template)]


def _pattern(template: str, groups: Sequence[str]) -> str:
    """A regular expression of a template, with one of the groups for each slot."""
    group = iter(groups)
    return SLOT.sub(lambda _: next(group), re.escape(_key(template)))


def _key(text: str) -> str:
    return key_of(text.replace("_", " "))  # as the words of slots are filled in


def _nearest(between: str, near: Sequence[str]) -> str:
    """The end of a line: what is near, if anything is."""
    return f"; the nearest are {between.join(near)}" if near else ""


def _shown(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= SHOWN else f"{short[:SHOWN]}...")
