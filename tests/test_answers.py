"""Answers as classes: MUSIC-AVQA's 42, the choices that are offered, the most frequent in training."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.answers import AnswerVocabulary, all_choices, most_frequent_answers
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from utils.errors import UserError
from utils.text import normalised


def test_public_answers():
    assert len(MUSIC_AVQA_ANSWERS) == len(set(MUSIC_AVQA_ANSWERS)) == 42
    known = {0: "two", 7: "yes", 20: "more than ten", 30: "acoustic_guitar", 33: "ten", 41: "suona"}
    assert {i: MUSIC_AVQA_ANSWERS[i] for i in known} == known


def test_public_answers_cover_the_real_annotation(shared):
    rows = [row for name in ("val", "test") for row in json.loads((shared / f"music_avqa/{name}.json").read_text())]
    vocabulary = AnswerVocabulary(MUSIC_AVQA_ANSWERS)
    assert vocabulary.answers == MUSIC_AVQA_ANSWERS
    assert {vocabulary.index(row["anser"]) for row in rows} | {33} == set(range(42))  # "ten" is in train alone


def test_vocabulary_folds_spellings_and_keeps_the_first():
    vocabulary = AnswerVocabulary(["Swimming  Pool", "field", "swimming pool ", "ＦＩＥＬＤ"])
    assert vocabulary.answers == ("Swimming  Pool", "field")
    assert [vocabulary.index(a) for a in ("SWIMMING POOL", " field", "sea")] == [0, 1, -1]
    assert len(vocabulary) == 2
    assert vocabulary.words([1, -1, 0]) == ["field", "", "Swimming  Pool"]


@given(st.lists(st.lists(st.text(max_size=5), min_size=4, max_size=4), max_size=8), st.randoms(use_true_random=True))
def test_choices_as_classes_do_not_depend_on_the_order_of_rows(choices, random):
    vocabulary = AnswerVocabulary(all_choices({"train": pd.DataFrame({"choices": choices})}))
    for choice in (c for offered in choices for c in offered):
        (word,) = vocabulary.words([vocabulary.index(choice)])
        assert normalised(word) == normalised(choice)
    random.shuffle(choices)
    halves = {"val": choices[::2], "train": choices[1::2]}
    parts = {split: pd.DataFrame({"choices": half}) for split, half in halves.items()}
    assert AnswerVocabulary(all_choices(parts)).answers == vocabulary.answers


def answered(*answers):
    return pd.DataFrame({"answer": answers})


def test_the_most_frequent_answers_of_training_are_classes():
    train = answered("sea", "field", "Road", "road ", "field", "Sea", "sea", "moon")
    tables = {"train": train, "test": answered(*["star"] * 9)}
    assert list(most_frequent_answers(3)(tables)) == ["sea", "field", "Road"]  # its first spelling
    assert list(most_frequent_answers(9)(tables)) == ["sea", "field", "Road", "moon"]


def test_of_equally_frequent_answers_the_alphabetically_first_are_taken_whatever_the_order():
    answers = ["pear", "fig", "Apple", "fig", "pear", "apple", "lime"]
    for order in (answers, answers[::-1]):
        chosen = most_frequent_answers(2)({"train": answered(*order)})
        assert [normalised(answer) for answer in chosen] == ["apple", "fig"]


def test_frequent_answers_need_the_training_questions():
    with pytest.raises(UserError, match=r"frequent in training: open its data\.train too"):
        most_frequent_answers(2)({"test": answered("sea")})
