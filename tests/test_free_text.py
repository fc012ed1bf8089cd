"""Free text is read as a person reads it: 273 answers that were mapped by hand before the code read them."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset import DATASETS
from dataset.music_answers import UNITS
from dataset.music_avqa import ANSWERS
from tests.small_run import ROOT

WRITTEN = list(csv.DictReader((ROOT / "tests/data/free_text.tsv").open(), delimiter="\t", quoting=csv.QUOTE_NONE))


UNREAD = {  # what a person reads and the rules do not: it is listed as unread, and never taken for another answer
    "The instrument on the right starts first, then the one on the left joins.",
    "Congas, a pair of tall drums",
}


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: f"{row['question']} {row['text']}")
def test_an_answer_is_read_as_a_person_reads_it(row):
    read = DATASETS["music_avqa"].read_answer(row["text"], row)
    assert read == (None if row["text"] in UNREAD else row["expected"] or None)


def test_every_answer_is_read_as_itself_where_the_question_asks_for_such():
    asked = {
        "How many violin are in the entire video?": ("ten", "more than ten"),
        "Is there a voiceover?": ("yes", "no"),
        "Where is the performance?": ("indoor", "outdoor"),
        "Where is the loudest instrument?": ("left", "right", "middle", "simultaneously"),
    }
    kinds = {answer: question for question, answers in asked.items() for answer in answers}
    kinds |= dict.fromkeys(UNITS, next(iter(asked)))
    for answer in ANSWERS:
        question = kinds.get(answer, "What kind of musical instrument is it?")
        assert DATASETS["music_avqa"].read_answer(answer, {"question": question}) == answer


@pytest.mark.parametrize(("question", "text"), [("Is there a voiceover?", "yes/no"), ("How many violins?", "2/3")])
def test_a_slash_leaves_it_open(question, text):
    assert DATASETS["music_avqa"].read_answer(text, {"question": question}) is None


@given(st.text(max_size=40), st.text(max_size=20))
def test_whatever_is_said_one_of_the_answers_is_read_or_none(text, question):
    for asked in (question, *(row["question"] for row in WRITTEN[::40])):
        assert DATASETS["music_avqa"].read_answer(text, {"question": asked}) in (*ANSWERS, None)
    assert DATASETS["avqa"].read_answer(text, {"choices": CHOICES}) in (*CHOICES, None)


CHOICES = ["Dog barking", "Car", "A train", "rain"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog barking", "Dog barking"),
        ("The sound is that of a dog barking.", "Dog barking"),
        ("B", "Car"),
        ("(c)", "A train"),
        ("D. rain", "rain"),
        ("Option A", "Dog barking"),
        ("The answer is C", "A train"),
        ("Answer: b)", "Car"),
        ("2", "A train"),
        ("7", None),
        ("A train", "A train"),
        ("A dog barking", "Dog barking"),
        ("cars", "Car"),
        ("cart", None),
        ("dog barking or a car", None),
        ("a car, not the rain", "Car"),
        ("It might be thunder.", None),
        ("", None),
    ],
)
def test_a_choice_is_read(text, expected):
    assert DATASETS["avqa"].read_answer(text, {"choices": CHOICES}) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("A blue door.", "A blue door"), (" the end ", "the end"), ("42", "42"), (" .", None)]
)
def test_answers_of_any_vocabulary_lose_the_full_stop(text, expected):
    assert DATASETS["own"].read_answer(text, {}) == expected
