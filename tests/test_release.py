"""A released model is the run's: equal answers, to the bit; and a file of it that changed is named."""

import os
import shutil

import pytest
import yaml

from configs.stored import read_stored
from scripts import release
from scripts.answer import Answerer
from tests.scoring_run import called
from utils.checkpoint import load_run, save_checkpoint
from utils.errors import UserError
from utils.files import read_json, unseal
from utils.release import FILES, RUN, SUMS, WEIGHTS, read_release

QUESTIONS = ["Is there a flute sound?", "Where is the performance?"]


@pytest.fixture(scope="module")
def run(asked_run, score):
    score("--run", asked_run)
    return asked_run


@pytest.fixture(scope="module")
def released(run):
    folder = run.parent / "released"
    said = called(release.main, "--run", run, "--out", folder)
    assert f"hf upload USER/run {folder} ." in said
    return folder


def test_a_release_holds_what_the_checkpoint_does(run, released):
    ours, stored = read_stored(released / WEIGHTS), load_run(run / "best.pt")
    assert {*ours} == {*RUN, "config", "answers", "prompts", "slots", "model"} < {*stored}
    assert {name: ours[name] for name in ours if name != "model"} == {
        name: stored[name] for name in ours if name != "model"
    }
    assert ours["model"].keys() == stored["model"].keys()
    assert all((x == stored["model"][name]).all() for name, x in ours["model"].items())
    assert {path.name for path in released.iterdir()} == {*FILES, SUMS}
    assert read_json(released / "metrics.json") == {"test": unseal(run / "test/metrics.json")}


def test_a_release_answers_as_its_run(run, released, answerer, score):
    video = run.parent / "videos/00000009.mp4"
    of_release = Answerer(released, "cpu", encoders=[run.parent / "encoders"]).ask(video, QUESTIONS)
    assert [a.as_dict() for a in of_release] == [a.as_dict() for a in answerer.ask(video, QUESTIONS)]  # to the bit
    score("--run", released, "--out", run.parent / "scored")
    assert (run.parent / "scored/predictions.csv").read_bytes() == (run / "test/predictions.csv").read_bytes()


def test_half_is_half_as_large_and_nearly_equal(run, released, answerer):
    half, video = run.parent / "half", run.parent / "videos/00000009.mp4"
    called(release.main, "--run", run, "--out", half, "--half")
    assert (half / WEIGHTS).stat().st_size < 0.6 * (released / WEIGHTS).stat().st_size
    of_half = Answerer(half, "cpu", encoders=[run.parent / "encoders"]).ask(video, QUESTIONS)
    for found, exact in zip(of_half, answerer.ask(video, QUESTIONS), strict=True):
        assert dict(found.ranked) == pytest.approx(dict(exact.ranked), abs=1e-3)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_byte_that_changed_or_a_file_that_is_gone_is_named(released, tmp_path, name):
    folder = shutil.copytree(released, tmp_path / "copy")
    contents = bytearray((folder / name).read_bytes())
    contents[len(contents) // 2] ^= 1
    (folder / name).write_bytes(contents)
    with pytest.raises(UserError, match=SUMS if name == SUMS else f"{name}: is not as {SUMS} lists it"):
        read_release(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        read_release(folder)


def test_the_card_has_the_head_that_a_hub_reads(released):
    _, head, text = (released / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["pipeline_tag"] == "visual-question-answering"
    (result,) = told["model-index"][0]["results"]
    measured = read_json(released / "metrics.json")["test"]
    assert result["metrics"][0]["value"] == round(measured["accuracy"]["All"], 2)
    low, high = measured["interval95"]["All"]
    assert f"| All | {measured['accuracy']['All']:.1f} | {low:.1f} to {high:.1f} |" in text
    assert "must not be used" in text
    assert "{" not in text
    assert max(map(len, text.splitlines())) <= 160


def test_what_was_not_tested_is_not_released(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    best = load_run(copy / "best.pt")
    next(iter(best["model"].values())).mul_(2)
    save_checkpoint(copy / "best.pt", best)
    error = called(release.main, "--run", copy, "--out", tmp_path / "out", fails=True)
    assert "was not tested since it was trained" in error
    shutil.rmtree(copy / "test")
    error = called(release.main, "--run", copy, "--out", tmp_path / "out", fails=True)
    assert f"was not tested since it was trained; measure it with: python test.py --run {copy}" in error
    assert not (tmp_path / "out").exists()
    moved = shutil.copytree(run, tmp_path / "moved")
    os.utime(moved / "best.pt")  # as a copy may have it
    called(release.main, "--run", moved, "--out", tmp_path / "out")
    assert "holds a run" in called(release.main, "--run", run, "--out", copy, fails=True)
