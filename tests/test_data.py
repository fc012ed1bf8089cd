"""What a run reads: questions, answers and features opened together, and what is said of those left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dataset import DATASETS
from dataset.answers import most_frequent_answers
from dataset.config import DataConfig
from dataset.data import open_data
from dataset.kinds import KINDS
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from dataset.music_avqa import MUSIC_AVQA
from tests.small_run import avqa_rows, data_config, make_data
from tests.synthetic import edit_json
from utils.errors import UserError
from utils.files import read_json, write_json

FREQUENT = dataclasses.replace(MUSIC_AVQA, vocabulary=most_frequent_answers(3))


@pytest.fixture
def music(tmp_path) -> DataConfig:
    return data_config(make_data(tmp_path))


@pytest.fixture
def avqa(tmp_path) -> DataConfig:
    return data_config(make_data(tmp_path, dataset="avqa"))


def edit(path: str, change) -> None:
    """Rewrite an annotation file after `change(rows)`."""
    rows = read_json(path)
    change(rows)
    write_json(path, rows)


def test_music_avqa_has_its_42_classes_whatever_the_splits_hold(music):
    data = open_data(music, KINDS, ["val"])
    assert data.vocabulary.answers == MUSIC_AVQA_ANSWERS
    assert set(data.splits) == {"val"}
    val = data.splits["val"]
    assert val.choices is None
    assert [MUSIC_AVQA_ANSWERS[i] for i in val.answer] == list(val.questions["answer"])
    assert data.videos == ["00000007"]
    assert data.notes == []


def test_avqas_classes_are_the_choices_of_the_splits(avqa):
    data = open_data(avqa, KINDS, ["train", "val"])
    offered = {choice for row in avqa_rows(["v"]) for choice in row["multi_choice"]}
    assert set(data.vocabulary.answers) == offered
    for split in data.splits.values():
        for row, question in split.questions.iterrows():
            assert [data.vocabulary.answers[i] for i in split.choices[row]] == question["choices"]
            assert data.vocabulary.answers[split.answer[row]] == question["answer"]
    assert data.notes == [
        "train: 7 of 28 questions took the prompt of row *",
        "val: 1 of 4 questions took the prompt of row *",
    ]


def test_training_leaves_unknown_answers_out_and_testing_keeps_them_as_wrong(music):
    def spoil(rows):
        rows[0]["anser"], rows[4]["anser"] = "theremin", "kazoo"

    for split in ("train", "test"):
        edit(getattr(music, split), spoil)
    data = open_data(music, KINDS, ["train", "test"])
    train, test = data.splits["train"], data.splits["test"]
    assert len(train) == 61
    assert not train.questions["answer"].isin(["theremin", "kazoo"]).any()
    assert train.answer.min() >= 0
    assert len(test) == 18
    assert list(np.flatnonzero(test.answer < 0)) == [0, 4]
    assert data.notes == [
        "train: 2 questions left out, their answers are outside the vocabulary "
        "(question 1: 'theremin', question 5: 'kazoo')",
        "test: 2 questions have an answer outside the vocabulary, such as 'theremin': wrong",
    ]


def test_a_stored_vocabulary_decides_and_unseen_choices_are_no_class(avqa):
    offered = open_data(avqa, KINDS, ["train"]).vocabulary.answers

    def swap(rows):
        rows[0] |= {"multi_choice": ["the moon", *rows[0]["multi_choice"][1:]], "answer": 0}

    edit(avqa.test, swap)
    data = open_data(avqa, KINDS, ["test"], answers=offered)
    assert data.vocabulary.answers == offered
    assert data.splits["test"].answer[0] == -1
    assert list(data.splits["test"].choices[0] < 0) == [True, False, False, False]
    assert data.notes[-1] == "test: 1 questions have an answer outside the vocabulary, such as 'the moon': wrong"


def test_nothing_to_learn_is_refused(avqa):
    with pytest.raises(UserError, match=r"no training question has an answer of the vocabulary \(1 answers\)"):
        open_data(avqa, KINDS, ["train"], answers=["moon"])


def test_answers_that_are_rare_in_training_are_no_class_and_count_as_wrong(music, monkeypatch):
    """An open vocabulary: the training split decides it, and a stored run brings it along."""
    monkeypatch.setitem(DATASETS._entries, "frequent", f"{__name__}.FREQUENT")
    music.dataset = "frequent"
    for split, answers in (("train", ["b", "a", "rare", "c", "a", "b"]), ("test", ["new", "a", "rare"])):
        path = getattr(music, split)
        write_json(path, [row | {"anser": a} for row, a in zip(read_json(path), answers, strict=False)])
    data = open_data(music, KINDS, ["train", "test"])
    assert data.vocabulary.answers == ("a", "b", "c")
    assert list(data.splits["train"].questions["answer"]) == ["b", "a", "c", "a", "b"]
    assert data.splits["test"].answer.tolist() == [-1, 0, -1]
    assert "test: 2 questions have an answer outside the vocabulary, such as 'new': wrong" in data.notes
    again = open_data(music, KINDS, ["test"], answers=data.vocabulary.answers)
    assert again.splits["test"].answer.tolist() == [-1, 0, -1]
    with pytest.raises(UserError, match=r"frequent in training: open its data\.train too"):
        open_data(music, KINDS, ["test"])


def test_several_test_files_are_a_split_each(music):
    music.test = {"seen": music.train, "new": music.test}
    data = open_data(music, KINDS, ["test"])
    assert {name: len(split) for name, split in data.splits.items()} == {"seen": 63, "new": 18}
    for split in data.splits.values():
        assert [data.videos[i] for i in split.video] == list(split.questions["video_id"])
    music.test["gone"] = "gone.json"
    with pytest.raises(UserError, match=r"gone\.json: no such file"):
        open_data(music, KINDS, ["test"])


@pytest.mark.parametrize("name", ["train", "", "..", "a/b"])
def test_a_test_file_is_called_by_a_folders_name_that_is_not_train(name):
    with pytest.raises(UserError, match=rf"data\.test: '{name}' must be a folder's name, and another than 'train'"):
        DataConfig(test={name: "test.json"})


def test_questions_in_a_field_of_their_own_name_are_read(avqa):
    """A data set that writes `question`, as most do beside the two that are here."""
    edit(avqa.val, lambda rows: [row.update(question=row.pop("question_text")) for row in rows])
    data = open_data(avqa, KINDS, ["val"])
    assert data.splits["val"].questions["question"][0] == "Where did the video take place?"


@pytest.mark.parametrize(
    ("kind", "field", "value", "other"),
    [
        ("clip_frame", "hop_seconds", 0.5, "vggish"),
        ("clip_token_4", "hop_seconds", 2.0, "vggish"),
        ("clip_token_4", "fit", "squash", "clip_frame"),
        ("clip_token_4", "image_size", 224, "clip_frame"),
        ("text", "weights_sha256", "another CLIP", "clip_frame"),
    ],
)
def test_features_that_were_not_made_alike_are_refused(music, kind, field, value, other):
    edit_json(Path(music.features) / kind / "manifest.json", **{field: value})
    said = rf"{kind}/manifest\.json: field '{field}' is {value!r} .* {other}/manifest\.json is .*; extract both alike"
    with pytest.raises(UserError, match=said.replace(" .* ", ".*")):
        open_data(music, KINDS, ["val"])


def test_only_the_named_splits_are_opened(music):
    Path(music.test).unlink()
    open_data(music, KINDS, ["train", "val"])
    with pytest.raises(UserError, match=r"test\.json: no such file"):
        open_data(music, KINDS, ["test"])


def test_videos_without_features_stop_the_run_or_are_skipped(music):
    (Path(music.features) / "vggish/00000003.npy").unlink()
    (Path(music.features) / "clip_frame/00000007.npy").unlink()
    with pytest.raises(UserError, match=r"2 of 10 videos lack whole features\n[^$]*--data\.missing skip"):
        open_data(music, KINDS, ["train", "val", "test"])
    assert open_data(music, ("frame",), ["train"]).notes == []  # the audio is not asked for
    edit(music.val, lambda rows: rows[0].update(video_id="00000004"))
    music.missing = "skip"
    data = open_data(music, KINDS, ["train", "val", "test"])
    assert [len(split) for split in data.splits.values()] == [54, 1, 18]
    assert data.notes[:2] == [
        "train: 9 questions left out, their videos lack whole features",
        "val: 8 questions left out, their videos lack whole features",
    ]
    assert "00000003" in data.notes[-1]
    assert not {"00000003", "00000007"} & set(data.videos)
    for split in data.splits.values():
        assert [data.videos[i] for i in split.video] == list(split.questions["video_id"])
    (Path(music.features) / "vggish/00000004.npy").unlink()
    with pytest.raises(UserError, match=r"no video of .*val\.json has whole features"):
        open_data(music, KINDS, ["train", "val"])


@pytest.mark.parametrize("layout", ["files", "public"])
def test_the_prompt_asks_or_with_qprompt_the_question(tmp_path, layout):
    config = data_config(make_data(tmp_path, layout=layout))
    made = {
        query: open_data(dataclasses.replace(config, query=query), KINDS, ["train"]) for query in ("prompt", "question")
    }
    prompts, questions = (made[query].splits["train"] for query in ("prompt", "question"))
    np.testing.assert_array_equal(questions.prompt, questions.question)
    np.testing.assert_array_equal(prompts.question, questions.question)
    assert (prompts.prompt != prompts.question).all()


def test_each_split_has_rows_of_text_of_its_own(music):
    edit(music.val, list.reverse)  # the same questions in another order
    together = open_data(music, KINDS, ["train", "val", "test"])
    for name, split in together.splits.items():
        alone = open_data(music, KINDS, [name])
        for column in ("question", "prompt"):
            rows, expected = getattr(split, column), getattr(alone.splits[name], column)
            np.testing.assert_array_equal(together.text[rows], alone.text[expected])


@pytest.mark.parametrize(("shuffle", "moved"), [("audio", {"audio"}), ("visual", {"frame", "token"})])
def test_shuffled_features_are_those_of_another_video_of_the_split(music, shuffle, moved):
    plain = open_data(music, KINDS, ("train", "test"))
    mixed = open_data(dataclasses.replace(music, shuffle=shuffle), KINDS, ("train", "test"))
    alone = open_data(dataclasses.replace(music, shuffle=shuffle), KINDS, ("test",))
    assert any(shuffle in note for note in mixed.notes)
    for split in ("train", "test"):
        videos = sorted(plain.splits[split].questions["video_id"].unique())
        for kind in KINDS:
            before, after = plain.store.read(kind, videos), mixed.store.read(kind, videos)
            if kind not in moved:
                assert np.array_equal(before, after)
                continue
            source = [[np.array_equal(a, b) for b in before].index(True) for a in after]  # all within the split
            assert sorted(source) == list(range(len(videos)))
            assert all(i != j for i, j in enumerate(source))
            if split == "test":  # whatever else is open
                assert np.array_equal(alone.store.read(kind, videos), after)
    if "token" in moved:
        rows = [mixed.store.read(kind, plain.videos) for kind in ("frame", "token")]
        found = [
            [np.array_equal(a, b) for b in plain.store.read(k, plain.videos)].index(True)
            for k, r in zip(("frame", "token"), rows, strict=True)
            for a in r
        ]
        assert found[: len(plain.videos)] == found[len(plain.videos) :]  # a frame and its tokens stay together


def test_without_validation_questions_a_tenth_of_the_training_videos_is_held_out(tmp_path):
    path = make_data(tmp_path, videos=33)  # 30 of them are for training
    whole = open_data(data_config(path), (), ["train"]).splits["train"].questions
    data = open_data(data_config(path, val=None), (), ["train", "val"])
    train, val = (data.splits[split].questions for split in ("train", "val"))
    assert set(train["video_id"]).isdisjoint(val["video_id"])
    assert val["video_id"].nunique() == 3
    assert sorted([*train["question_id"], *val["question_id"]]) == sorted(whole["question_id"])
    assert "val: 27 of 270 training questions, those about 3 of 30 recordings, are held out" in data.notes[-1]
    again = open_data(data_config(path, val=None), (), ["val"])
    assert list(again.splits) == ["val"]
    assert list(again.splits["val"].questions["question_id"]) == list(val["question_id"])


def test_copies_of_a_recording_are_held_out_together(tmp_path):
    path = make_data(tmp_path, videos=33)
    config = data_config(path, val=None)
    rows = read_json(config.train)
    for row in rows:  # three videos of each recording
        number = int(row["video_id"])
        row["video_id"] = f"{number // 3 * 3:08d}" + ("", "_flip", "_flip+00000000")[number % 3]
    write_json(config.train, rows)
    data = open_data(config, (), ["train", "val"])
    train, val = ({i[:8] for i in data.splits[split].questions["video_id"]} for split in ("train", "val"))
    assert train.isdisjoint(val)
    assert (len(train), len(val)) == (9, 1)
    write_json(config.train, [row for row in rows if row["video_id"][:8] == "00000000"])
    with pytest.raises(UserError, match=r"data\.val is null, but all training questions are about one recording"):
        open_data(config, (), ["train", "val"])
