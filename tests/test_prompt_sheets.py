"""The project's own prompt sheets: a prompt for every template, and for every real question."""

import json
import re
from collections import Counter
from pathlib import Path

import openpyxl
import pytest

from dataset.text_prompt import ANY, PROMPT, TEMPLATE, PromptTable, question_text
from dataset.text_prompt import key_of as key
from utils.errors import UserError

SHEETS = Path(__file__).parents[1] / "dataset" / "TextPrompt.xlsx"
HEADER = ("No.", "Modalities", "Type", TEMPLATE, PROMPT)

# The question templates of MUSIC-AVQA's annotations, by type.
TEMPLATES = {
    ("Audio", "Comparative"): [
        "Is the <Object> more rhythmic than the <Object>?",
        "Is the <Object> louder than the <Object>?",
        "Is the <Object> playing longer than the <Object>?",
    ],
    ("Audio", "Counting"): [
        "Is there a <Object> sound?",
        "Are there <Object> and <Object> sound?",
        "How many musical instruments were heard throughout the video?",
    ],
    ("Visual", "Counting"): [
        "Is there a <Object> in the entire video?",
        "Are there <Object> and <Object> instruments in the video?",
        "How many types of musical instruments appeared in the entire video?",
        "How many <Object> are in the entire video?",
    ],
    ("Visual", "Location"): [
        "Where is the performance?",
        "What is the instrument on the <LR> of <Object>?",
        "What kind of musical instrument is it?",
        "What kind of instrument is the <LRer> instrument?",
    ],
    ("Audio-Visual", "Existential"): [
        "Is this sound from the instrument in the video?",
        "Is the <Object> in the video always playing?",
        "Is there a voiceover?",
    ],
    ("Audio-Visual", "Counting"): [
        "How many instruments are sounding in the video?",
        "How many types of musical instruments sound in the video?",
        "How many instruments in the video did not sound from beginning to end?",
        "How many sounding <Object> in the video？",
    ],
    ("Audio-Visual", "Location"): [
        "Where is the <LL> instrument?",
        "Is the <FL> sound coming from the <LR> instrument?",
        "Which is the musical instrument that sounds at the same time as the <Object>?",
        "What is the <LR> instrument of the <FL> sounding instrument?",
    ],
    ("Audio-Visual", "Comparative"): [
        "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?",
        "Is the instrument on the <LR> louder than the instrument on the <LR>?",
        "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?",
        "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
    ],
    ("Audio-Visual", "Temporal"): [
        "Where is the <FL> sounding instrument?",
        "Which <Object> makes the sound <FL>?",
        "What is the <TH> instrument that comes in?",
        "Which instrument makes sounds <BA> the <Object>?",
    ],
}
VALUES = {
    "Object": ("acoustic_guitar", "piano"),
    "LR": ("left", "right"),
    "LRer": ("leftest",),
    "LL": ("loudest",),
    "FL": ("first",),
    "TH": ("second",),
    "BA": ("before",),
}


@pytest.fixture(scope="module")
def music():
    return PromptTable.read(SHEETS, "MUSIC-AVQA")


def test_the_sheet_holds_the_33_templates_with_their_types():
    rows = list(openpyxl.load_workbook(SHEETS)["MUSIC-AVQA"].iter_rows(values_only=True))
    assert rows[0] == HEADER
    assert [row[0] for row in rows[1:]] == list(range(1, 34))
    assert {(row[1], row[2], key(row[3])) for row in rows[1:]} == {
        (*kind, key(template)) for kind, templates in TEMPLATES.items() for template in templates
    }


@pytest.mark.parametrize("template", [t for templates in TEMPLATES.values() for t in templates])
def test_every_template_gets_a_statement_of_its_own_words(music, template):
    counts = Counter()
    values = []
    for slot in re.findall(r"<(\w+)>", template):
        values.append(VALUES[slot][counts[slot]])
        counts[slot] += 1
    question, prompt, row = music.fill(template, values)
    assert key(row) == key(template)
    assert question.endswith("?")
    assert prompt.endswith(".")
    assert prompt[0].isupper()
    assert "?" not in prompt
    assert not set("<>_") & set(question + prompt)
    assert all(value.replace("_", " ") in question for value in values)


def test_prompts_differ_where_questions_do(music):
    assert len(set(music.templates.values())) == 33


def test_the_paper_s_example(music):
    filled = music.fill("Where is the <FL> sounding instrument?", ["first"])
    assert filled.question == "Where is the first sounding instrument?"
    assert filled.prompt == "The instruments do not sound at the same time."


def test_music_avqa_is_strict(music):
    assert ANY not in music.templates
    assert music.serves("is there a voiceover")
    assert not music.serves("Who plays?")
    with pytest.raises(UserError, match=r"TextPrompt\.xlsx, sheet 'MUSIC-AVQA': no row for .*Who plays\?"):
        music.fill("Who plays?", [])


def test_avqa_serves_any_question_and_says_so():
    avqa = PromptTable.read(SHEETS, "AVQA")
    assert avqa.fill("Where did the video take place?", []).template == "Where did the video take place?"
    other = avqa.fill("What  colour is the kettle", [])
    assert avqa.serves("What  colour is the kettle")
    assert other == ("What colour is the kettle?", avqa.templates[ANY], ANY)
    assert set(avqa.templates[ANY]) & set("<>") == set()


def test_avqa_has_rows_for_each_question_type():
    kinds = {row[2] for row in openpyxl.load_workbook(SHEETS)["AVQA"].iter_rows(min_row=2, values_only=True)}
    assert kinds == {"Which", "Come From", "Happening", "Where", "Why", "Before Next", "When", "Used For", "Any"}


def test_every_real_question_of_music_avqa_gets_a_prompt(music, shared):
    rows = [r for s in ("train_partial", "val", "test") for r in read(shared / "music_avqa" / f"{s}.json")]
    assert len(rows) == 40286
    filled = [music.fill(*question_text(row)) for row in rows]
    assert not [f for f in filled if set('<>_[]？"') & set(f.question + f.prompt)]
    assert {f.template for f in filled} == set(music.templates)


def test_few_real_questions_of_avqa_fall_to_the_last_row(shared):
    avqa = PromptTable.read(SHEETS, "AVQA")
    rows = [r for s in ("where", "happening") for r in read(shared / "avqa" / f"{s}.json")]
    assert len(rows) == 8713
    fallen = sum(avqa.fill(*question_text(row)).template == ANY for row in rows)
    print(f"{fallen} of {len(rows)} AVQA questions fell to {ANY!r}")
    assert 0 < fallen <= 0.01 * len(rows)


def read(path):
    return json.loads(path.read_text())
