"""Annotation files: what a row becomes, and that a dirty one is listed while the others are read."""

import json
import re

import pytest

from dataset.annotations import describe, read_annotations
from dataset.text_prompt import ANY, PromptTable
from tests.small_run import ROOT, avqa_rows, music_rows
from utils.errors import UserError
from utils.files import write_json

SHEETS = {"music_avqa": "MUSIC-AVQA", "avqa": "AVQA"}
ROWS = {"music_avqa": music_rows, "avqa": avqa_rows}


@pytest.fixture(scope="module")
def tables():
    return {dataset: PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", sheet) for dataset, sheet in SHEETS.items()}


@pytest.fixture
def read(tables, tmp_path):
    """Reads rows as a file of a dataset."""

    def read(dataset, rows):
        write_json(tmp_path / "rows.json", rows)
        return read_annotations(tmp_path / "rows.json", dataset, tables[dataset])

    return read


def test_a_row_of_music_avqa(read):
    rows = [row for row in music_rows(["00000093"]) if "Comparative" in row["type"]]
    rows[0] |= {"anser": " yes", "question_id": 12}
    questions = read("music_avqa", rows).questions
    assert questions.iloc[0].to_dict() == {
        "question_id": "12",
        "video_id": "00000093",
        "modality": "Audio",
        "type": "Comparative",
        "answer": "yes",
        "question": "Is the cello louder than the piano?",
        "prompt": questions["prompt"][0],
        "template": "Is the <Object> louder than the <Object>?",
    }
    assert {"cello", "piano"} <= set(re.findall(r"\w+", questions["prompt"][0]))
    assert questions["question"][1] == "Is the instrument on the left louder than the instrument on the right?"


def test_a_row_of_avqa(read):
    row = avqa_rows(["-Ab_12_trimmed"])[0] | {"answer": 2, "multi_choice": ["a", " b", "Swimming Pool ", "d"]}
    found = read("avqa", [row]).questions.iloc[0].to_dict()
    assert found["video_id"] == "-Ab_12_trimmed"
    assert found["choices"] == ["a", "b", "Swimming Pool", "d"]
    assert found["answer"] == "Swimming Pool"
    assert (found["modality"], found["type"]) == (row["question_relation"], row["question_type"])
    assert found["question"] == row["question_text"]


def test_avqas_answer_is_an_index_or_a_string(read):
    row = avqa_rows(["v"])[0] | {"multi_choice": ["Field", "sea", "road", "Sky"]}
    given = [0, 3, "Field", "sky", " ROAD "]
    questions, faults = read("avqa", [row | {"id": i, "answer": answer} for i, answer in enumerate(given)])
    assert list(questions["answer"]) == ["Field", "Sky", "Field", "sky", "ROAD"]
    assert not faults


@pytest.mark.parametrize(
    ("dataset", "field", "value", "said"),
    [
        ("music_avqa", "type", '["Audio", "Temporal"]', "field 'type' must be one of the nine types"),
        ("music_avqa", "type", "Audio", "is 'Audio'"),
        ("music_avqa", "type", None, "field 'type'"),
        ("music_avqa", "type", '"Audio"', "field 'type'"),
        ("music_avqa", "type", "3", "field 'type'"),
        ("music_avqa", "templ_values", "flute", "field 'templ_values' must hold a list of words"),
        ("music_avqa", "templ_values", '["flute"', "field 'templ_values'"),
        ("music_avqa", "templ_values", "[1]", "field 'templ_values'"),
        ("music_avqa", "templ_values", None, "field 'templ_values'"),
        ("music_avqa", "templ_values", "[]", "needs a word for each of its 1 slots"),
        ("music_avqa", "templ_values", '["flute", "cello"]', "needs a word for each of its 1 slots"),
        ("music_avqa", "templ_values", '[" "]', "needs a word for each of its 1 slots"),
        ("music_avqa", "video_id", 93, "field 'video_id' must be a string that is not empty, is 93"),
        ("music_avqa", "video_id", " ", "field 'video_id'"),
        ("music_avqa", "anser", None, "field 'anser'"),
        ("music_avqa", "question_content", "?", "field 'question_content' must hold a question"),
        ("music_avqa", "question_id", 1.5, "the question's id must be a number or a string, is 1.5"),
        ("music_avqa", "question_id", float("nan"), "the question's id"),
        ("music_avqa", "question_id", True, "the question's id"),
        ("music_avqa", "question_id", " ", "the question's id"),
        ("music_avqa", "question_id", [3], "the question's id"),
        ("avqa", "question_text", None, "field 'question_text' must hold a question"),
        ("avqa", "multi_choice", ["a", "b", "c"], "field 'multi_choice' must be a list of 4 strings"),
        ("avqa", "multi_choice", [1, 2, 3, 4], "field 'multi_choice'"),
        ("avqa", "multi_choice", "abcd", "field 'multi_choice'"),
        ("avqa", "answer", 4, "field 'answer' is 4, which is not among the choices"),
        ("avqa", "answer", -1, "field 'answer' is -1"),
        ("avqa", "answer", True, "field 'answer' is True"),
        ("avqa", "answer", None, "field 'answer' is None"),
        ("avqa", "answer", "moon", "field 'answer' is 'moon', which is not among the choices"),
        ("avqa", "video_name", "", "field 'video_name'"),
        ("avqa", "question_type", None, "field 'question_type'"),
        ("avqa", "question_relation", 3, "field 'question_relation'"),
    ],
)
def test_a_dirty_row_is_listed_and_the_others_are_read(read, dataset, field, value, said):
    rows = ROWS[dataset](["v"])
    rows[0][field] = value
    questions, faults = read(dataset, rows)
    assert len(questions) == len(rows) - 1
    assert len(faults) == 1
    assert "rows.json, row 1: " in faults[0]
    assert said in faults[0]
    assert "\n" not in faults[0]


def test_a_row_that_is_no_object_is_listed(read):
    questions, faults = read("avqa", [*avqa_rows(["v"]), "oops", None])
    assert len(questions) == 4
    assert ["row 5" in faults[0], "row 6" in faults[1]] == [True, True]


@pytest.mark.parametrize(("dataset", "field"), [("music_avqa", "question_id"), ("avqa", "id")])
def test_ids_are_strings_however_they_are_written(read, dataset, field):
    rows = ROWS[dataset](["v"])[:4]
    for row, held in zip(rows, (12, 13.0, " 14 ", "q-15"), strict=True):
        row[field] = held
    assert list(read(dataset, rows).questions["question_id"]) == ["12", "13", "14", "q-15"]


@pytest.mark.parametrize("absent", ["removed", "null"])
def test_a_row_without_an_id_is_called_by_its_place(read, absent):
    rows = music_rows(["v"])[:3]
    if absent == "removed":
        del rows[1]["question_id"]
    else:
        rows[1]["question_id"] = None
    assert list(read("music_avqa", rows).questions["question_id"]) == ["1", "row-2", "3"]


def test_of_two_rows_with_one_id_the_second_is_listed(read):
    rows = music_rows(["v"])[:4]
    rows[0]["type"] = "?"  # a row that is left out takes no id
    for row, held in zip(rows, (7, 7, 7.0, "7"), strict=True):
        row["question_id"] = held
    questions, faults = read("music_avqa", rows)
    assert list(questions["type"]) == ["Comparative"]
    assert [fault.split(": ", 1)[1] for fault in faults[1:]] == ["question_id 7 already stands in row 2"] * 2


def test_a_template_without_a_row_is_refused_with_its_count_and_avqa_falls_back(read):
    rows = music_rows(["v"])
    rows[0]["question_content"] = rows[1]["question_content"] = "Is it nice?"
    rows[2]["question_content"] = "Is it loud?"
    with pytest.raises(UserError, match=r"no row for 2 templates of .*'Is it nice\?' \(2 questions\), 'Is it loud"):
        read("music_avqa", rows)
    annotations = read("avqa", avqa_rows(["v", "w"]))
    assert annotations.fallbacks == 2
    assert list(annotations.questions["template"] == ANY) == [False, False, False, True] * 2
    fallen = annotations.questions.iloc[3]
    assert fallen["question"] == "For what reason might the little orchestra bow?"
    assert fallen["prompt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", r"holds no usable question \(0 rows\)"),
        ("[3]", r"holds no usable question \(1 rows; .*row 1: must be an object, is 3\)"),
        ('{"rows": []}', "must hold a JSON list of questions, holds a dict"),
        ("[{]", "cannot be read as JSON"),
        (None, "no such file"),
    ],
)
def test_a_file_without_questions_is_refused(tables, tmp_path, text, said):
    path = tmp_path / "rows.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"rows\.json: .*{said}" if text != "[{]" else said):
        read_annotations(path, "music_avqa", tables["music_avqa"])


def test_faults_are_told_by_count_and_first_examples():
    told = describe([f"row {i}" for i in range(20)])
    assert told.split("\n") == ["20 rows left out:", "  row 0", "  row 1", "  row 2"]


def test_every_real_row_of_music_avqa_is_read(tables, shared):
    counts = {"train_partial": 26_589, "val": 4568, "test": 9129}
    templates = set()
    for name, count in counts.items():
        path = shared / f"music_avqa/{name}.json"
        questions, faults = read_annotations(path, "music_avqa", tables["music_avqa"])
        assert not faults
        assert len(questions) == count
        assert not (questions["question"] + questions["prompt"]).str.contains("[<>_\\[\\]]").any()
        rows = json.loads(path.read_text())
        assert list(questions["question_id"]) == [str(row["question_id"]) for row in rows]
        assert list(questions["answer"]) == [row["anser"] for row in rows]
        templates |= set(questions["template"])
    assert len(templates) == 33


def test_the_three_dirty_rows_of_the_real_avqa_are_listed(tables, shared):
    listed, used, fallen = [], 0, 0
    for name in ("happening", "where"):
        annotations = read_annotations(shared / f"avqa/{name}.json", "avqa", tables["avqa"])
        listed += annotations.faults
        used += len(annotations.questions)
        fallen += annotations.fallbacks
    dirty = [
        ("happening.json, row 4346", "'diving'"),
        ("where.json, row 737", "'Racetrack'"),
        ("where.json, row 2689", "'courtyard'"),
    ]
    assert len(listed) == 3
    for fault, (where, answer) in zip(listed, dirty, strict=True):
        assert where in fault
        assert f"field 'answer' is {answer}, which is not among the choices" in fault
    assert used == 8713 - 3
    print(f"{fallen} of {used} questions of the real AVQA took the prompt of row *")
    assert 0 < fallen < 0.02 * used
