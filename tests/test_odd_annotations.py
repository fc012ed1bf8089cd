"""Annotations as others publish them: MUSIC-AVQA v2 and rephrased questions are read; what is malformed is named."""

import pytest

from dataset.annotations import read_annotations
from dataset.text_prompt import ANY, PromptTable
from tests.small_run import ROOT
from utils.errors import UserError
from utils.files import write_json

AV_COUNT, TEMPORAL = '["Audio-Visual", "Counting"]', '["Audio-Visual", "Temporal"]'
SOUND_OF_IT = "Is this sound from the instrument in the video?"

GOOD = [  # (row, question id, video id, question) after reading
    (
        {
            "video_id": "00005754",
            "question_id": 1923,
            "type": '["Audio-Visual", "Existential"]',
            "question_content": "Is there a voiceover?",
            "templ_values": "[]",
            "question_deleted": 0,
            "anser": "yes",
        },
        ("1923", "00005754", "Is there a voiceover?"),
    ),
    (  # without id and question_deleted; the full-width question mark of the original
        {
            "video_id": "tOcOiTFQYp4",
            "type": AV_COUNT,
            "question_content": "How many sounding <Object> in the video？",
            "templ_values": '["erhu"]',
            "anser": "two",
        },
        ("row-2", "tOcOiTFQYp4", "How many sounding erhu in the video?"),
    ),
    (  # a mirrored video whose name begins like an option
        {
            "video_id": "-hNci03mKAE_flip",
            "question_content": "Which <Object> makes the sound <FL>?",
            "templ_values": '["drum", "last"]',
            "anser": "left",
            "type": TEMPORAL,
        },
        ("row-3", "-hNci03mKAE_flip", "Which drum makes the sound last?"),
    ),
    (  # the sound of another video; the values a list, not JSON in a string
        {
            "video_id": "va00003727",
            "unmatch_audio": "00005535",
            "audio_instrument": "drum",
            "video_instrument": "xylophone",
            "question_content": SOUND_OF_IT,
            "anser": "no",
            "templ_values": [],
            "type": '["Audio-Visual", "Existential"]',
        },
        ("row-4", "va00003727+00005535", SOUND_OF_IT),
    ),
    (  # ids that went through a table of floats; a type that is a list
        {
            "video_id": "00000437",
            "question_id": 28745.0,
            "type": ["Visual", "Location"],
            "question_content": "What kind of instrument is the <LRer> instrument? ",
            "templ_values": ["leftest"],
            "anser": "acoustic_guitar",
        },
        ("28745", "00000437", "What kind of instrument is the leftest instrument?"),
    ),
]

BAD = [  # (what is changed in a good row, what the fault must say)
    ({"question_id": 2.5}, "id must be a number or a string, is 2.5"),
    ({"question_id": float("nan")}, "id must be a number or a string, is nan"),
    ({"video_id": 754}, "field 'video_id' must be a string that is not empty, is 754"),
    ({"video_id": None}, "field 'video_id'"),
    ({"unmatch_audio": ""}, "field 'unmatch_audio' must be a string that is not empty, is ''"),
    ({"unmatch_audio": 5535}, "field 'unmatch_audio'"),
    ({"anser": 2}, "field 'anser' must be a string that is not empty, is 2"),
    ({"type": ["Audio-Visual", "Colour"]}, "field 'type' must be one of the nine types"),
    ({"type": [["Audio"]]}, "field 'type'"),
    ({"templ_values": [None]}, "field 'templ_values' must hold a list of words"),
    ({"templ_values": ["drum"]}, "needs a word for each of its 0 slots, not ['drum']"),
    ({"question_content": "How many sounding <Object> in the video"}, "needs a word for each of its 1 slots, not []"),
    ({"question_content": ""}, "field 'question_content' must hold a question"),
]


def prompts(sheet):
    return PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", sheet)


def read(tmp_path, rows, sheet="MUSIC-AVQA"):
    write_json(tmp_path / "v2.json", rows)
    return read_annotations(tmp_path / "v2.json", "music_avqa", prompts(sheet))


def test_every_peculiarity_of_version_2_is_read(tmp_path):
    questions, faults = read(tmp_path, [row for row, _ in GOOD])
    assert not faults
    found = questions[["question_id", "video_id", "question"]].itertuples(index=False, name=None)
    assert list(found) == [wanted for _, wanted in GOOD]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_malformed_row_among_them_is_named_and_the_others_are_read(tmp_path, change, said):
    rows = [row for row, _ in GOOD]
    rows.insert(1, rows[0] | {"question_id": 7} | change)
    questions, faults = read(tmp_path, rows)
    assert len(questions) == len(GOOD)
    assert len(faults) == 1
    assert "v2.json, row 2: " in faults[0]
    assert said in faults[0]


def test_rows_without_ids_keep_their_places_when_others_are_left_out(tmp_path):
    rows = [row for row, _ in GOOD]
    rows[0] = rows[0] | {"anser": None}
    assert list(read(tmp_path, rows).questions["question_id"]) == ["row-2", "row-3", "row-4", "28745"]


REPHRASED = [
    {
        "video_id": "00000093",
        "question_id": 1,
        "type": '["Audio-Visual", "Existential"]',
        "question_content": "Does the cello in the video play all the time",  # words filled in, templ_values gone
        "anser": "no",
    },
    {
        "video_id": "00000093",
        "question_id": 2,
        "type": '["Audio-Visual", "Existential"]',
        "question_content": "Does the <Object> never rest?",
        "templ_values": '["electric_bass"]',
        "anser": "no",
    },
    {
        "video_id": "00000093",
        "question_id": 3,
        "type": '["Audio-Visual", "Existential"]',
        "question_content": "Is there a voiceover?",
        "anser": "no",
    },
]


def test_rephrased_questions_take_the_star_row_of_the_sheet_that_has_one(tmp_path):
    annotations = read(tmp_path, REPHRASED, "MUSIC-AVQA-R")
    questions = annotations.questions
    assert not annotations.faults
    assert annotations.fallbacks == 2
    assert list(questions["template"]) == [ANY, ANY, "Is there a voiceover?"]
    assert questions["question"][0] == "Does the cello in the video play all the time?"
    assert questions["question"][1] == "Does the electric bass never rest?"
    assert questions["prompt"][0] == questions["prompt"][1] != questions["prompt"][2]


def test_rephrased_questions_are_refused_by_the_strict_sheet(tmp_path):
    with pytest.raises(UserError, match="no row for 2 templates"):
        read(tmp_path, REPHRASED)


def test_the_sheet_for_rephrased_questions_differs_by_its_star_row_alone():
    strict, free = prompts("MUSIC-AVQA").templates, prompts("MUSIC-AVQA-R").templates
    assert free.keys() - strict.keys() == {ANY}
    assert {template: free[template] for template in strict} == strict
