"""Which run is which: by its options and the contents of its data, however they are spelt."""

import os
import shutil

import numpy as np
import openpyxl
import pytest

from dataset.feature_folder import RECORD, Folder
from scripts import pack_features
from scripts.reproduce import identity
from scripts.reproduce.identity import Contents
from scripts.reproduce.queue import find_run, resolve
from tests.small_run import ROOT, make_data
from tests.synthetic import edit_json
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The YAML of a small data set."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def features(data, tmp_path):
    """A copy of its features."""
    return shutil.copytree(data.parent / "features", tmp_path / "features")


def folder_of(data, *options, seed=0, contents=None):
    arguments = ["--config", str(data), *map(str, options)]
    return find_run("Some, seed 0", arguments, seed, "runs", contents or Contents()).folder


def test_a_run_is_found_again_by_what_decides_its_numbers(data):
    known = folder_of(data)
    assert len(known.name) == identity.DIGITS
    assert find_run("Another name", ["--config", str(data)], 0, "runs", Contents()).folder == known
    assert folder_of(data, "--out", "elsewhere", "--train.device", "auto", "--data.workers", 3) == known
    assert folder_of(data, seed=1) != known
    for option, value in (("train.epochs", 5), ("model.top_k", 2), ("data.query", "question")):
        assert folder_of(data, f"--{option}", value) != known


def test_the_spelling_of_a_path_does_not_decide(data, features, tmp_path):
    known = folder_of(data)
    for split in ("train", "val", "test"):
        shutil.copy(data.parent / f"{split}.json", tmp_path / f"other_{split}.json")
        assert folder_of(data, f"--data.{split}", tmp_path / f"other_{split}.json") == known
        assert folder_of(data, f"--data.{split}", os.path.relpath(data.parent / f"{split}.json")) == known
    shutil.copy(ROOT / "dataset/TextPrompt.xlsx", tmp_path / "prompts.xlsx")
    assert folder_of(data, "--data.prompts", tmp_path / "prompts.xlsx", "--data.truth", tmp_path) == known
    assert folder_of(data, "--data.features", features) == known


@pytest.mark.parametrize("changed", ["annotations", "prompts", "manifest", "feature", "sentence"])
def test_a_run_is_another_one_when_its_data_change(data, features, tmp_path, changed):
    known = folder_of(data)
    if changed == "annotations":
        rows = read_json(data.parent / "test.json")
        rows[0]["anser"] = "yes" if rows[0]["anser"] == "no" else "no"
        write_json(tmp_path / "test.json", rows)
        assert folder_of(data, "--data.test", tmp_path / "test.json") != known
        return
    if changed == "prompts":
        book = openpyxl.load_workbook(ROOT / "dataset/TextPrompt.xlsx")
        book["MUSIC-AVQA"].cell(2, 5).value += " Indeed."
        book.save(tmp_path / "prompts.xlsx")
        assert folder_of(data, "--data.prompts", tmp_path / "prompts.xlsx") != known
        return
    if changed == "manifest":
        edit_json(features / "vggish/manifest.json", weights_sha256="another")
    else:
        path = features / ("text/features.npy" if changed == "sentence" else "clip_token_4/00000003.npy")
        array = np.load(path)
        array[0] += 1
        save_npy(path, array)
    assert folder_of(data, "--data.features", features) != known


def test_features_are_read_once_and_again_when_they_change(data, features, monkeypatch):
    reads, fill = [], Folder._fill
    monkeypatch.setattr(Folder, "_fill", lambda self, video, *args: reads.append(video) or fill(self, video, *args))
    for record in features.rglob(RECORD):
        record.unlink()
    options = ("--data.features", features)
    folder_of(data, *options, contents=Contents(keep=False))
    assert len(reads) == 3 * 10
    assert not list(features.rglob(RECORD))
    contents = Contents()
    known = folder_of(data, *options, contents=contents)
    folder_of(data, *options, seed=1, contents=contents)
    assert len(reads) == 2 * 3 * 10
    assert folder_of(data, *options) == known
    assert len(reads) == 2 * 3 * 10
    os.utime(features / "vggish/00000003.npy", (1, 1))
    assert folder_of(data, *options) == known
    assert reads[2 * 3 * 10 :] == ["00000003"]


def test_a_dry_run_notes_nothing_of_a_pack_that_was_copied_either(data, features):
    pack_features.main(["--features", str(features), "--segments", "6", "--tokens", "4"])
    for file in (*features.glob("*/*.npy"), *features.glob("*/packed/features.npy")):
        os.utime(file, (1, 1))
    before = {file: file.stat().st_mtime_ns for file in features.rglob("*")}
    folder_of(data, "--data.features", features, "--data.layout", "packed", contents=Contents(keep=False))
    assert {file: file.stat().st_mtime_ns for file in features.rglob("*")} == before


def test_only_what_a_run_reads_decides(data, features):
    shutil.rmtree(features / "vggish")
    options = ("--model.network", "means", "--model.means_of", "[frame]")
    assert folder_of(data, *options, "--data.features", features) == folder_of(data, *options)
    with pytest.raises(UserError, match=r"vggish: no such folder.*feat_script\.extract_audio"):
        folder_of(data, "--data.features", features)


def test_the_truth_decides_for_those_who_are_told_it(data, tmp_path):
    for folder, segments in (("one", [1, 2]), ("same", [1, 2]), ("other", [2, 3])):
        for split in ("train", "val", "test"):
            rows = read_json(data.parent / f"{split}.json")
            questions = {str(row["question_id"]): {"segments": segments} for row in rows}
            for video in {row["video_id"] for row in rows}:
                told = {"frame": [160, 90], "performers": [], "questions": questions}
                write_json(tmp_path / folder / f"{video}.json", told)

    def found(folder, temporal):
        return folder_of(data, "--data.truth", tmp_path / folder, "--model.temporal", temporal)

    assert found("one", "oracle") == found("same", "oracle") != found("other", "oracle")
    assert found("one", "top_k") == found("other", "top_k")


def test_what_is_missing_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: no such file"):
        folder_of(data, "--data.val", tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"data\.test names several files"):
        folder_of(data, "--data.test", "{a: a.json, b: b.json}")


def test_the_commands_are_those_of_a_user(data):
    run = find_run("a", ["--config", str(data)], 3, "runs", Contents())
    assert run.config == resolve(*run.arguments)
    train, test = run.commands
    assert train == ["train.py", "--config", str(data), "--train.seed", "3", "--out", str(run.folder), "--resume"]
    assert test == ["test.py", "--run", str(run.folder)]
