"""A table of questions becomes annotations that can be trained on; faults are named by row and column."""

from collections import defaultdict

import pytest

from dataset.annotations import read_annotations
from dataset.text_prompt import PromptTable
from scripts import make_annotations
from tests.scoring_run import called
from tests.small_run import ROOT
from utils.files import read_json

HEADER = "id,video,question,answer"
SPLITS = ("train", "val", "test")


def lines(videos=10, questions=3) -> list[str]:
    return [f"{v}-{q},clip {v}.mp4,What is number {q}?,answer {q}" for v in range(videos) for q in range(questions)]


def make(tmp_path, rows, *options, header=HEADER, **how) -> str:
    (tmp_path / "questions.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
    out = ("--out", tmp_path / "annotations")
    return called(make_annotations.main, tmp_path / "questions.csv", *out, *options, **how)


def test_every_row_is_in_one_split_and_a_video_in_one(tmp_path):
    printed = make(tmp_path, lines())
    assert "train.json: 21 questions about 7 videos" in printed
    videos = defaultdict(set)
    rows = []
    for split in SPLITS:
        for row in read_json(tmp_path / f"annotations/{split}.json"):
            videos[split].add(row["video"])
            rows.append(f"{row['id']},{row['video']}.mp4,{row['question']},{row['answer']}")
    assert sorted(rows) == sorted(lines())
    assert [len(videos[split]) for split in SPLITS] == [7, 1, 2]
    assert len(set.union(*videos.values())) == 10


def test_the_seed_decides_the_split(tmp_path):
    made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, lines(20), "--seed", seed)
        made.append([read_json(tmp_path / f"{name}/annotations/{split}.json") for split in SPLITS])
    assert made[0] == made[1] != made[2]


def test_they_are_read_as_the_data_set_own_with_types_where_given(tmp_path):
    make(tmp_path, [f"{line},count" for line in lines()], header=" ID,Video,question,answer,Type")
    prompts = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "AVQA")
    questions, faults = read_annotations(tmp_path / "annotations/test.json", "own", prompts)
    assert not faults
    assert set(questions["type"]) == {"count"}
    assert set(questions["answer"]) == {"answer 0", "answer 1", "answer 2"}


def test_answers_that_training_lacks_are_counted(tmp_path):
    rows = [f"{n},v{n},Who?,person {n}" for n in range(10)]
    assert "2 test questions have an answer that training has not, such as 'person" in make(tmp_path, rows)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,v,Who?", "row 12: has not as many fields as the header, 4"),
        ("x,v,Who?,a,b", "row 12: has not as many fields as the header, 4"),
        (",v,Who?,a", "row 12, column id: is empty"),
        ("x,,Who?,a", "row 12, column video: is empty"),
        ("x,v, ,a", "row 12, column question: is empty"),
        ("x,v,Who?,", "row 12, column answer: is empty"),
        ("3-0,v,Who?,a", "row 12, column id: '3-0' already stands in row 5"),
        ("x,sub/v,Who?,a", "row 12, column video: 'sub/v' must be a file's name, without its folder"),
        ('x,v,"Who?,a', "row 12: unexpected end of data"),
    ],
)
def test_a_faulty_row_is_named_and_nothing_is_written(tmp_path, row, said):
    error = make(tmp_path, [*lines(10, 1), row], fails=True)
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "annotations").exists()


def test_all_faults_are_named_up_to_ten(tmp_path):
    error = make(tmp_path, [*lines(10, 1), *[",v,Who?,a"] * 12], fails=True)
    assert error.count("column id: is empty") == 10
    assert "and 2 more" in error


def test_videos_that_are_not_there_few_videos_and_a_wrong_header_are_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(9):
        (tmp_path / f"videos/clip {number}.mp4").touch()
    error = make(tmp_path, lines(10, 1), "--videos", tmp_path / "videos", fails=True)
    assert "row 11, column video: there is no video 'clip 9'" in error
    assert "9 videos cannot be split 7 : 1 : 2" in make(tmp_path, lines(9), fails=True)
    assert "it lacks video, question" in make(tmp_path, [], header="id,answer,clip", fails=True)
    assert "it lacks id, video, question, answer" in make(tmp_path, [], header="id;video", fails=True)


def test_annotations_that_are_there_are_not_replaced(tmp_path):
    make(tmp_path, lines())
    assert "train.json: is there already, and is not replaced" in make(tmp_path, lines(), fails=True)
