"""Annotations made of others: a split in which no video is twice, and four answers offered to each question."""

import json
from collections import Counter

import pytest

from dataset.annotations import read_annotations
from dataset.music_avqa import recording
from dataset.text_prompt import PromptTable
from scripts.reproduce.choices import offer_choices
from scripts.reproduce.derived import FILES, choice_of_four, split_by_videos
from scripts.reproduce.queue import resolve
from scripts.reproduce.split import split_by_video
from tests.small_run import ROOT, make_data, music_rows
from utils.errors import UserError
from utils.files import read_json, write_json

PROMPTS = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA")
SPLITS = ("train", "val", "test")


def write_rows(root, videos, parts=3):
    """Rows about the videos, dealt over some files whatever the video."""
    rows = music_rows(videos)
    for part in range(parts):
        write_json(root / f"{part}.json", rows[part::parts])
    return rows, [root / f"{part}.json" for part in range(parts)]


def videos_of(folder):
    return {split: {recording(row["video_id"]) for row in read_json(folder / f"{split}.json")} for split in SPLITS}


def test_no_video_is_in_two_splits_and_no_question_is_lost(tmp_path):
    rows, paths = write_rows(tmp_path, [f"{n:08d}" for n in range(100)])
    split_by_video(paths, tmp_path / "out")
    videos = videos_of(tmp_path / "out")
    assert {split: len(some) for split, some in videos.items()} == {"train": 70, "val": 10, "test": 20}
    assert len(set().union(*videos.values())) == 100 == sum(map(len, videos.values()))
    written = [row for split in SPLITS for row in read_json(tmp_path / f"out/{split}.json")]
    assert Counter(map(json.dumps, written)) == Counter(map(json.dumps, rows))


def test_the_split_follows_from_the_files_alone(tmp_path):
    _, paths = write_rows(tmp_path, [f"{n:08d}" for n in range(40)])
    for name, order in (("a", paths), ("b", paths[::-1])):
        split_by_video(order, tmp_path / name)
    a, b = ([(tmp_path / name / f"{split}.json").read_text() for split in SPLITS] for name in "ab")
    assert a == b


def test_copies_of_a_video_stay_with_it(tmp_path):
    names = [f"v{n}" for n in range(30)]
    rows, _ = write_rows(tmp_path, [*names, *(f"{name}_flip" for name in names)])
    for row in rows[::5]:
        row["unmatch_audio"] = "w1"
    write_json(tmp_path / "rows.json", rows)
    split_by_video([tmp_path / "rows.json"], tmp_path / "out")
    videos = videos_of(tmp_path / "out")
    assert len(set().union(*videos.values())) == 30 == sum(map(len, videos.values()))
    assert recording("-hN_flip+w1") == recording("-hN+w1") == "-hN"


def test_what_cannot_be_split_is_named(tmp_path):
    rows, paths = write_rows(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match="2 videos cannot be split 7 : 1 : 2"):
        split_by_video(paths, tmp_path / "out")
    write_json(paths[1], [rows[0], rows[1] | {"type": "?"}])
    with pytest.raises(UserError, match=r"1\.json, row 2: field 'type'"):
        split_by_video(paths, tmp_path / "out")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """Small annotations with choices, and those that they were made of."""
    root = make_data(tmp_path_factory.mktemp("data"), videos=20).parent
    offer_choices(root, root / "choice")
    assert [len(read_json(root / f"choice/{split}.json")) for split in SPLITS] == [153, 9, 18]
    return root


def test_four_answers_are_offered_the_right_one_anywhere(chosen):
    questions, faults = read_annotations(chosen / "choice/train.json", "avqa", PROMPTS)
    original, _ = read_annotations(chosen / "train.json", "music_avqa", PROMPTS)
    assert not faults
    for column in ("question_id", "video_id", "question", "prompt", "template", "answer", "type"):
        assert list(questions[column]) == list(original[column])
    assert set(questions["modality"]) == {"Sound", "View", "Both"}
    places = Counter(row.choices.index(row.answer) for row in questions.itertuples())
    assert min(places.values()) > 153 / 4 / 2
    assert all(len(set(choices)) == 4 for choices in questions["choices"])


def test_wrong_answers_are_those_of_the_template_first(tmp_path):
    root = make_data(tmp_path, videos=20).parent
    rows = read_json(root / "train.json")
    for number, row in enumerate(rows):  # one template has only two answers, the others many
        row["anser"] = ("yes", "no")[number % 2] if "voiceover" in row["question_content"] else row["anser"]
    write_json(root / "train.json", rows)
    offer_choices(root, root / "choice")
    of_template = {row["question_content"]: set() for row in rows}
    for row in rows:
        of_template[row["question_content"]].add(row["anser"])
    for row in read_json(root / "choice/train.json"):
        known = of_template[row["question_content"]]
        assert len(known & set(row["multi_choice"])) == min(4, len(known))


def test_the_choices_follow_from_the_questions(chosen, tmp_path):
    offer_choices(chosen, tmp_path)
    assert (tmp_path / "test.json").read_text() == (chosen / "choice/test.json").read_text()


def config(root, *options):
    files = [part for split in SPLITS for part in (f"--data.{split}", str(root / f"{split}.json"))]
    return resolve([*files, *options])


def test_tables_take_the_questions_that_they_are_about(chosen, tmp_path):
    avqa = ("--data.dataset", "avqa")
    assert choice_of_four(config(chosen, *avqa)) is None
    with pytest.raises(UserError, match=r"table7 is of AVQA.*configs/avqa\.yaml"):
        choice_of_four(config(chosen))
    derived = choice_of_four(config(chosen, "--data.truth", "truth"))
    assert derived.folder.name == f"{chosen.name}_choice"
    assert derived.arguments[-2:] == ["--data.dataset", "avqa"]


@pytest.fixture
def split(tmp_path):
    """The split of annotations in which every video is in all three parts; not made yet."""
    _, paths = write_rows(tmp_path, [f"{n:08d}" for n in range(20)])
    (tmp_path / "annotations").mkdir()
    for path, name in zip(paths, SPLITS, strict=True):
        path.rename(tmp_path / f"annotations/{name}.json")
    return split_by_videos(config(tmp_path / "annotations"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_split_by_video_is_made_once_where_there_is_none(split):
    assert split.folder.name == "annotations_video_split"
    split.make()
    assert split_by_videos(resolve(split.arguments)) is None
    stamp = (split.folder / "train.json").stat().st_mtime_ns
    (split.folder / "notes.txt").write_text("mine")
    split.make()
    assert (split.folder / "train.json").stat().st_mtime_ns == stamp


def test_it_is_made_anew_when_its_sources_change(split):
    split.make()
    rows = read_json(split.sources[0])
    write_json(split.sources[0], rows[:-1])
    split.make()
    assert sum(len(read_json(split.folder / name)) for name in FILES) == 20 * 9 - 1
    assert {path.name for path in split.folder.parent.iterdir()} == {"annotations", "annotations_video_split"}


@pytest.mark.parametrize("strange", ["notes.txt", "val.json"])
def test_what_was_not_made_here_is_never_replaced(split, strange):
    split.make()
    (split.folder / strange).write_text("[]")
    write_json(split.sources[0], read_json(split.sources[0])[:-1])
    before = contents(split.folder)
    with pytest.raises(UserError, match=f"its {strange} is not as it was made here; move that away"):
        split.make()
    assert contents(split.folder) == before


def test_a_folder_that_is_not_whole_is_not_replaced(split):
    for name in ("train.json", "val.json"):
        write_json(split.folder / name, [])
    (split.folder / "notes.txt").write_text("mine")
    before = contents(split.folder)
    with pytest.raises(UserError, match=r"lacks test\.json, and was not made here; complete it, or move it away"):
        split.make()
    assert contents(split.folder) == before


def test_a_published_split_by_video_is_left_as_it_is(split):
    for source, name in zip(split.sources, SPLITS, strict=True):
        write_json(split.folder / f"{name}.json", read_json(source))
    before = contents(split.folder)
    split.make()
    assert contents(split.folder) == before
