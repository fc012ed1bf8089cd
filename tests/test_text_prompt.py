"""TPC: every question finds its prompt, and every fault of a spreadsheet is named."""

import json
import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.text_prompt import ANY, PROMPT, TEMPLATE, PromptTable, question_text
from dataset.text_prompt import _key as key
from scripts import check_prompts
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


@pytest.fixture
def write(tmp_path):
    """A function that writes rows into sheet "S" of a new workbook and returns its path."""

    def write(*rows, header=HEADER):
        book = openpyxl.Workbook()
        book.active.title = "S"
        for row in (header, *rows):
            book.active.append(row)
        book.save(tmp_path / "prompts.xlsx")
        return tmp_path / "prompts.xlsx"

    return write


def table(**templates):
    return PromptTable(templates, "a table")


def fault(path, sheet="S"):
    with pytest.raises(UserError) as error:
        PromptTable.read(path, sheet)
    message = str(error.value)
    assert str(path) in message
    return message


# Our own sheets


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


# The real questions


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


# Matching and filling


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
    st.lists(st.tuples(st.sampled_from(sorted(VALUES)), WORD), min_size=1, max_size=6),
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


# Sheets made or edited elsewhere


def test_untidy_sheets_are_read(write):
    header = ("Notes", " question  template ", "NO.", "declarative sentence\u00a0text prompt", None, None)
    path = write(
        (None, "Who\u00a0plays?", 1.0, " Someone  plays. ", None, "checked"),
        (None,) * 6,
        ("merged cells above", "Is there a <Object> sound? ", None, "The <Object> sounds.", None, None),
        (None, None, 3.0, None, None, None),
        (" ", "\u00a0", None, "", None, None),
        header=header,
    )
    rows = PromptTable.read(path, "S")
    assert rows.templates == {"Who plays?": "Someone plays.", "Is there a <Object> sound?": "The <Object> sounds."}


def test_blank_rows_above_the_header_are_skipped(write):
    path = write(HEADER, (1, "", "", "Who plays?", "Someone plays."), header=(None,) * 5)
    assert PromptTable.read(path, "S").fill("who plays", []).prompt == "Someone plays."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("Who?", "A."), ("Why?", "B."), ("who ？", "C.")], r"row 4, column 'Question Template'.* in row 2"),
        ([("Who is <Object>?", "The <LR>.")], rf"row 2, column '{PROMPT}'.*<lr> number 1.*Who is <Object>"),
        ([("Who is <Object>?", "<Object> <Object>.")], rf"row 2, column '{PROMPT}'.*<object> number 2"),
        ([("Who is <Object>?", "The <Object2>.")], rf"row 2, column '{PROMPT}'.*<object> number 2"),
        ([("Who is <Object>?", "The <Object0>.")], rf"row 2, column '{PROMPT}'.*<object> number 0"),
        ([("Who is <Object>?", "The <Object.")], rf"row 2, column '{PROMPT}'.*belongs to no slot"),
        ([("Who is Object>?", "The.")], r"row 2, column 'Question Template'.*belongs to no slot"),
        ([("Who?", "A."), ("Why?", None)], rf"row 3, column '{PROMPT}': is empty"),
        ([("Who?", "A."), ("Why?", " . ")], rf"row 3, column '{PROMPT}': is empty"),
        ([(None, "A.")], r"row 2, column 'Question Template': is empty"),
        ([("*", "The <Object>.")], rf"row 2, column '{PROMPT}'.*<object> number 1"),
        ([], "holds no template"),
    ],
)
def test_faults_name_sheet_row_and_column(write, rows, message):
    found = fault(write(*((1, "", "", *row) for row in rows)))
    assert "sheet 'S'" in found
    assert re.search(message, found)


def test_all_faults_are_told_at_once_but_ten_are_enough(write):
    found = fault(write(*((1, "", "", f"Question {i}?", None) for i in range(13))))
    assert re.findall(r"row (\d+)", found) == [str(row) for row in range(2, 12)]
    assert "and 3 more" in found


@pytest.mark.parametrize("lacking", [TEMPLATE, PROMPT])
def test_a_missing_column_is_named(write, lacking):
    found = fault(write((1, "Who?"), header=("No.", TEMPLATE if lacking == PROMPT else PROMPT)))
    assert "row 1" in found
    assert f"no column {lacking!r}" in found


def test_an_unknown_sheet_lists_those_there_are():
    assert "'MUSIC-AVQA', 'AVQA'" in fault(SHEETS, "music")


def test_files_that_are_no_workbook(tmp_path):
    assert "no such file" in fault(tmp_path / "absent.xlsx")
    (tmp_path / "text.xlsx").write_text("No.,Type\n")
    assert "cannot be read as an .xlsx workbook" in fault(tmp_path / "text.xlsx")
    half = SHEETS.read_bytes()
    (tmp_path / "half.xlsx").write_bytes(half[: len(half) // 2])
    assert "cannot be read" in fault(tmp_path / "half.xlsx")
    assert "cannot be read" in fault(tmp_path)


# Annotation rows


def test_annotation_rows_of_both_datasets():
    music = {"question_content": "Is there a <Object> sound?", "templ_values": '["pipa"]', "anser": "yes"}
    assert question_text(music) == ("Is there a <Object> sound?", ["pipa"])
    assert question_text({"question_text": "Where is this?", "multi_choice": []}) == ("Where is this?", [])


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
    ],
)
def test_a_row_without_a_question_is_named(row, field):
    with pytest.raises(UserError, match=f"field '{field}'"):
        question_text(row)


# scripts.check_prompts


def test_the_script_counts_rows_and_fallen_questions(write, tmp_path, monkeypatch, capsys):
    path = write((1, "", "", "Who plays?", "Someone plays."), (2, "", "", "*", "Something."))
    (tmp_path / "a.json").write_text(json.dumps([{"question_text": q} for q in ("who plays", "Why?", "Why ?", "When")]))
    run_script(monkeypatch, "S", str(tmp_path / "a.json"), "--prompts", str(path), "--top", "1")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["1", "Who", "plays?"]
    assert lines[1][:2] == ["3", "*"]
    assert lines[-2][:4] == ["3", "questions,", "2", "distinct,"]
    assert lines[-1] == ["2", "Why?"]


def test_the_script_names_the_question_that_has_no_row(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.json").write_text('[{"question_text": "Who plays?"}]')
    with pytest.raises(SystemExit) as status:
        run_script(monkeypatch, "MUSIC-AVQA", str(tmp_path / "a.json"), "--prompts", str(SHEETS))
    assert status.value.code == 2
    assert re.search(r"a\.json, item 0: .*MUSIC-AVQA.*'Who plays\?'", capsys.readouterr().err)


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["check_prompts.py", *arguments])
    check_prompts.main()
