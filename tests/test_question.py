"""A question as it is typed finds its template and the words of its slots, or is refused with what was near."""

import pandas as pd
import pytest

from dataset.question import Wording, slot_values
from dataset.text_prompt import PromptTable
from tests.small_run import ROOT
from utils.errors import UserError

OBJECTS = ["acoustic guitar", "cello", "piano", "violin"]
SLOTS = {"object": OBJECTS, "lr": ["left", "middle", "right"], "fl": ["first", "last"], "ll": ["loudest", "lowest"]}


@pytest.fixture(scope="module")
def music():
    return Wording(PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA"), SLOTS)


@pytest.mark.parametrize(
    ("question", "template", "prompt"),
    [
        ("Is there a violin sound?", "Is there a <Object> sound?", "The sound of the violin can be heard."),
        (
            "  is there a ACOUSTIC_GUITAR  sound ",
            "Is there a <Object> sound?",
            "The sound of the acoustic guitar can be heard.",
        ),
        ("Where is the performance？", "Where is the performance?", "The surroundings of the performance can be seen."),
        (
            "Is the cello on the left louder than the piano on the right?",  # "cello on the left" is no object
            "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
            "The cello on the left and the piano on the right are sounding together.",
        ),
        (
            "Is the cello louder than the piano?",
            "Is the <Object> louder than the <Object>?",
            "The cello and the piano can be heard at the same time.",
        ),
        (
            "What is the left instrument of the first sounding instrument?",
            "What is the <LR> instrument of the <FL> sounding instrument?",
            "The first sounding instrument is playing alone, with another instrument on its left.",
        ),
    ],
)  # fmt: skip
def test_a_question_finds_its_template(music, question, template, prompt):
    filled = music.fill(question)
    assert filled.template == template
    assert filled.prompt == prompt


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", ["is empty"]),
        (" ? ", ["is empty"]),
        ("Is there a theremin sound?", ["<Object>", "'theremin'", "Is there a <Object> sound?", "nearest"]),
        ("Is there a left sound?", ["<Object>", "'left'"]),
        ("Is there a violine sound?", ["the nearest are violin"]),
        ("Where is the softest instrument?", ["<LL>", "'softest'", "lowest"]),
        ("Is the cello on the roof louder than the piano on the right?", ["<LR>", "'roof'", "left"]),
        ("Who plays the violin?", ["fits no template; the nearest are '", "'; '"]),
        ("视频里有几把小提琴？", ["fits no template", "'视频里有几把小提琴？'"]),
        ("why " * 300, ["fits no template", "why ..."]),
        ("Is there a <Object> sound?", ["never '<object>'"]),
    ],
)
def test_what_the_model_never_met_is_refused_with_what_is_near(music, question, says):
    with pytest.raises(UserError) as refused:
        music.fill(question)
    message = str(refused.value)
    assert all(words in message for words in says), message
    assert len(message) < 600


def test_where_nothing_is_near_nothing_is_promised(music):
    untaught = Wording(music.table, {})  # of a run whose training questions filled no slot
    with pytest.raises(UserError, match=r"never 'flute' in training$"):
        untaught.fill("Is there a flute sound?")


def test_three_templates_are_named(music):
    with pytest.raises(UserError, match="nearest are") as refused:
        music.fill("Where is the first instrument that sounds?")
    assert str(refused.value).count("<") == sum(t.count("<") for t in music.templates if f"'{t}'" in str(refused.value))
    assert sum(f"'{template}'" in str(refused.value) for template in music.templates) == 3


def test_the_row_for_all_serves_what_no_template_does():
    wording = Wording(PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA-R"), SLOTS)
    assert wording.fill("视频里有几把小提琴？").template == "*"
    assert wording.fill("Where is the performance?").template == "Where is the performance?"
    assert "*" not in wording.templates
    with pytest.raises(UserError, match="theremin"):  # of a template that is there
        wording.fill("Is there a theremin sound?")


def test_questions_are_spelt_as_in_training():
    published = Wording(PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA", "published"), SLOTS)
    assert published.fill("Is there a acoustic guitar sound?").question == "Is there a acoustic_guitar sound"


def test_slots_take_the_words_of_training_questions():
    rows = [
        ("Is there a <Object> sound?", "Is there a Violin sound?"),
        ("Is there a <Object> sound?", "Is there a acoustic guitar sound?"),
        ("Which <Object> makes the sound <FL>?", "Which violin makes the sound last?"),
        ("*", "Is there a whistle sound?"),
    ]
    asked = pd.DataFrame(rows, columns=["template", "question"])
    assert slot_values(asked) == {"fl": ["last"], "object": ["acoustic guitar", "violin"]}
