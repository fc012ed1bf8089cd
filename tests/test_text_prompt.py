"""TPC: spellings of a template match, each slot finds its word, and a row's question is found."""

import string
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.text_prompt import PromptTable, question_text
from dataset.text_prompt import key_of as key
from utils.errors import UserError

SHEETS = Path(__file__).parents[1] / "dataset" / "TextPrompt.xlsx"
SLOTS = ("BA", "FL", "LL", "LR", "LRer", "Object", "TH")


@pytest.fixture(scope="module")
def music():
    return PromptTable.read(SHEETS, "MUSIC-AVQA")


def table(**templates):
    return PromptTable(templates, "a table")


@pytest.mark.parametrize(
    "spelling",
    [
        "is the <object> louder than the <OBJECT>",
        "  Is the <Object>  louder\nthan the <Object>? ",
        "Is the <Object> louder than the <Object>？",
        "Ｉs\u00a0the <Object> louder than the ＜Object＞?!",
    ],
)
def test_spellings_of_a_template_match(music, spelling):
    assert music.fill(spelling, ["piano", "erhu"]).prompt == "The piano and the erhu can be heard at the same time."


def test_apostrophes_match():
    assert (
        table(**{"What's in the video?": "It is."}).fill("What’s in the video?", []).question == "What's in the video?"
    )


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("<Object> <Object>, <LR> <LR>.", "piano erhu, left right."),
        ("<LR> <Object> <LR> <Object>.", "left piano right erhu."),
        ("<Object2> <Object1> <LR2>.", "erhu piano right."),
        ("<Object2> <Object> <Object>.", "erhu piano erhu."),
        ("<Object1> and <object1>.", "piano and piano."),
        ("Nothing.", "Nothing."),
    ],
)
def test_slots_of_a_prompt_take_the_words_of_the_question(prompt, filled):
    rows = table(**{"<Object> <LR> <Object> <LR>?": prompt})
    assert rows.fill("<Object> <LR> <Object> <LR>?", ["piano", "left", "erhu", "right"]).prompt == filled


def test_words_lose_underscores_and_surplus_space_and_may_repeat(music):
    filled = music.fill("Is the <Object> louder than the <Object>?", [" acoustic_guitar ", "acoustic\u00a0_guitar"])
    assert filled.question == "Is the acoustic guitar louder than the acoustic guitar?"
    assert filled.prompt == "The acoustic guitar and the acoustic guitar can be heard at the same time."


@pytest.mark.parametrize(
    "values", [[], ["piano"], ["piano", "erhu", "pipa"], ["piano", ""], ["_", "erhu"], ["a", "<LR>"]]
)
def test_values_that_do_not_fit_are_named(music, values):
    with pytest.raises(UserError, match=r"louder than the <Object>.* 2 slots") as error:
        music.fill("Is the <Object> louder than the <Object>?", values)
    assert repr(values) in str(error.value)


@given(st.text(max_size=30))
def test_normalisation_is_idempotent(text):
    assert key(key(text)) == key(text)


WORD = st.text(string.ascii_letters + "_ ä？\u00a0-", min_size=1).filter(lambda word: word.replace("_", " ").strip())


@given(
    st.lists(st.tuples(st.sampled_from(SLOTS), WORD), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_no_slot_stays_open_and_each_word_finds_its_slot(slots, random):
    """The prompt names the question's slots in any order, outright: its words are the question's, in that order."""
    template = "Q " + " ".join(f"<{name}>" for name, _ in slots)
    seen, numbered = Counter(), []
    for name, word in slots:
        seen[name] += 1
        clean = unicodedata.normalize("NFKC", word).replace("_", " ").split()
        numbered.append((f"<{name}{seen[name]}>", " ".join(clean)))
    shuffled = random.sample(numbered, len(numbered))
    rows = table(**{template: "P " + " ".join(slot for slot, _ in shuffled)})
    filled = rows.fill(template, [word for _, word in slots])
    assert filled.prompt == " ".join(["P", *(word for _, word in shuffled)])
    assert filled.question == " ".join(["Q", *(word for _, word in numbered)]) + "?"


def test_the_question_of_a_row_lies_in_one_of_three_fields():
    music = {"question_content": "Is there a <Object> sound?", "templ_values": '["pipa"]', "anser": "yes"}
    assert question_text(music) == ("Is there a <Object> sound?", ["pipa"])
    assert question_text({"question_text": "Where is this?", "multi_choice": []}) == ("Where is this?", [])
    assert question_text({"question": "What is <this>?", "answer": "a kettle"}) == ("What is <this>?", [])


@pytest.mark.parametrize("held", [None, "", "violin", "['violin']", '{"a": 1}', '"violin"', "[1]", '["violin"', [1]])
def test_malformed_values_are_named(held):
    with pytest.raises(UserError, match="'templ_values'") as error:
        question_text({"question_content": "Is there a <Object> sound?", "templ_values": held})
    assert repr(held) in str(error.value)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({}, "question_text"),
        ({"question_text": None}, "question_text"),
        ({"question_content": " ? "}, "question_content"),
        ({"question": ["Who?"]}, "question"),
    ],
)
def test_a_row_without_a_question_is_named(row, field):
    with pytest.raises(UserError, match=f"field '{field}'"):
        question_text(row)


def test_a_row_of_its_own_comes_before_the_row_for_all():
    rows = PromptTable({"Who plays?": "Somebody plays.", "*": "Something happens."}, "here")
    assert rows.fill("who plays", []).prompt == "Somebody plays."
    assert rows.fill("Who sings?", []) == ("Who sings?", "Something happens.", "*")
