"""Asking a trained model about a video: the numbers are those of test.py, and what cannot be asked is said."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from configs.stored import open_run
from dataset.loader import Loader
from nets import NETWORKS
from scripts import answer as command
from scripts.answer import MODEL, SAMPLE, Answerer, draw
from scripts.answering import encoders
from tests.asking import T, train_asked
from tests.clips import number
from tests.scoring_run import called
from tests.small_run import run
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.scoring import figure4
from utils.scoring.evaluation import answer

QUESTION = "Is there a flute sound?"


@pytest.fixture
def video(asked_run):
    return asked_run.parent / "videos/00000009.mp4"


def answers_of(run):
    """The test questions of a run, and what test.py answers to them."""
    with open_run(run / "best.pt", "test", []) as opened:
        asked = opened.data.splits["test"]
        batches = Loader(opened.data, opened.runtime, "device", 1).by_video(asked, np.arange(len(asked)), 64)
        return asked.questions, answer(opened.model, batches, "fp32", opened.runtime.device, looks=True)


def test_probabilities_are_those_of_test_py(asked_run, answerer, score):
    """Features of one video, made when it is asked about, against those that were extracted in a batch."""
    questions, wanted = answers_of(asked_run)
    score("--run", asked_run)
    written = pd.read_csv(asked_run / "test/predictions.csv")
    for video, rows in questions.groupby("video_id"):
        answers = answerer.ask(asked_run.parent / f"videos/{video}.mp4", rows["question"].tolist())
        for row, found in zip(rows.index, answers, strict=True):
            question = rows.loc[row]
            assert (found.template, found.prompt) == (question["template"], question["prompt"])
            assert found.answer == written["prediction"][row]
            assert found.probability == pytest.approx(wanted.probability[row], abs=1e-5)
            assert found.probability == pytest.approx(written["probability"][row], abs=5.1e-5)  # four decimals
            assert found.selected == wanted.looked["selected"][row].tolist()
            np.testing.assert_allclose(found.segment_weights, wanted.looked["segment_weights"][row], atol=1e-5)


def test_an_answer_tells_what_was_looked_at(answerer, video):
    stages = []
    (found,) = answerer.ask(video, [QUESTION], progress=lambda stage, share: stages.append((stage, share)))
    assert len(found.others) == 4
    probabilities = [p for _, p in found.ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) < 1
    assert found.note == ""
    assert found.mel.shape == (64, 96 * T)
    assert [look.second for look in found.looks] == found.selected
    for look in found.looks:
        assert number(look.picture) == 5 * look.second + 2  # on the screen in the middle of its second
        assert look.heat.shape == look.picture.shape[:2] == (64, 96)
        assert look.heat[:, :16].max() == look.heat[:, 80:].max() == 0  # CLIP saw the square in the middle
        x0, y0, x1, y1 = look.box
        assert look.heat[y0:y1, x0:x1].max() == look.heat.max() > 0
        assert look.heat.sum() == pytest.approx(look.patches.sum() * (64 / 7) ** 2, rel=0.1)  # 7 x 7 patches
    assert {stage for stage, _ in stages} == {
        *("reading the question", "reading the picture", "seeing", "listening", "answering"),
    }
    assert all(0 <= share <= 1 for _, share in stages)
    assert stages[-1] == ("answering", 1.0)


def test_templates_can_be_filled(answerer, video):
    template = "Is the <Object> louder than the <Object>?"
    assert answerer.wording.templates[template] == ["Object", "Object"]
    assert answerer.wording.values("Object") == ["cello", "drum", "erhu", "flute", "piano", "violin"]
    assert answerer.ask(video, ["Is the cello louder than the erhu?"])[0].template == template


def test_from_a_later_second_on(answerer, video):
    (found,) = answerer.ask(video, [QUESTION], start=1)
    assert found.start == 1
    assert "the model sees 4 s: from 4 s on it saw the last second again and again" in found.note
    assert (found.own, found.clipped(4), found.clipped(2)) == (3, 3, 2)
    seconds = sorted(look.second for look in found.looks)
    assert seconds == sorted(map(found.clipped, found.selected))  # never beyond the end
    assert max(seconds) == 3
    assert all(number(look.picture) == 5 * look.second + 2 for look in found.looks)
    with pytest.raises(UserError, match=r"lasts 4\.\d s, nothing is left from 60 s on"):
        answerer.ask(video, [QUESTION], start=60)
    with pytest.raises(UserError, match="start -1"):
        answerer.ask(video, [QUESTION], start=-1)


def test_features_are_kept_by_the_contents_of_the_file(asked_run, video, tmp_path, monkeypatch):
    cache, copy = tmp_path / "cache", tmp_path / video.name
    shutil.copy(video, copy)
    cached = Answerer(asked_run, "cpu", cache, [asked_run.parent / "encoders"])
    (first,) = cached.ask(video, [QUESTION])
    monkeypatch.setattr(encoders, "read_frames", None)  # nothing is decoded again
    (second,) = cached.ask(copy, [QUESTION])
    assert json.dumps(first.as_dict()) == json.dumps(second.as_dict())
    assert all((a.picture == b.picture).all() for a, b in zip(first.looks, second.looks, strict=True))
    np.testing.assert_array_equal(first.mel, second.mel)
    (held,) = cache.iterdir()
    monkeypatch.undo()
    with np.load(held) as kept:
        arrays = {**kept}
    assert {"audio", "mel", "frame", "jpeg", "token", "source"} < arrays.keys()
    held.write_bytes(held.read_bytes()[:1000])
    assert json.dumps(cached.ask(copy, [QUESTION])[0].as_dict()) == json.dumps(first.as_dict())
    for name in ("audio", "jpeg"):  # as a version kept it that had other names
        np.savez(held, **{key.replace(name, "older"): x for key, x in arrays.items()})
        assert json.dumps(cached.ask(copy, [QUESTION])[0].as_dict()) == json.dumps(first.as_dict())
    with pytest.raises(UserError, match="nothing is left"):
        cached.ask(copy, [QUESTION], start=9)
    monkeypatch.setattr(encoders, "KEPT", 1)
    cached.ask(copy, [QUESTION], start=2)
    assert len(list(cache.iterdir())) == 1
    gone = cache / "gone.npz"  # listed, and removed by another process since
    monkeypatch.setattr(Path, "glob", lambda *_: [gone, *cache.iterdir()])
    cached.ask(copy, [QUESTION], start=1)
    monkeypatch.undo()
    monkeypatch.setattr(encoders, "KEPT", 1)
    cached.ask(copy, [QUESTION], start=3)
    assert len(list(cache.iterdir())) == 1


def test_no_question_has_no_answer(answerer, video):
    assert answerer.ask(video, []) == []


def test_encoders_are_known_by_their_digests(asked_run, tmp_path):
    with pytest.raises(UserError, match=r"no file there has the SHA-256 \w{64} of the encoder 'clip'.*--encoders DIR"):
        Answerer(asked_run, "cpu", encoders=[tmp_path])
    stored = load_checkpoint(asked_run / "best.pt")
    public = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"  # ViT-L/14@336px
    for kind in ("text", "frame", "token"):
        stored["manifests"][kind]["weights_sha256"] = public
    torch.save(stored, tmp_path / "best.pt")
    with pytest.raises(UserError, match=f"{public}.*fetch it with: python -m scripts.download clip_l14"):
        Answerer(tmp_path, "cpu")
    stored["manifests"]["frame"] |= {"weights_sha256": "not known: DINOv2", "encoder": "DINOv2"}  # as adopted ones
    torch.save(stored, tmp_path / "best.pt")
    with pytest.raises(UserError, match="frame features by 'DINOv2', not by the CLIP of its questions"):
        Answerer(tmp_path, "cpu")


def test_a_run_that_cannot_be_asked_says_why(asked_run, tmp_path):
    stored = load_checkpoint(asked_run / "best.pt")
    stored["config"]["model"]["temporal"] = "oracle"
    torch.save(stored, tmp_path / "best.pt")
    with pytest.raises(UserError, match="an oracle, which must be told what is true"):
        Answerer(tmp_path, "cpu")
    del stored["prompts"]
    torch.save(stored, tmp_path / "best.pt")
    with pytest.raises(UserError, match="tells no prompts"):
        Answerer(tmp_path, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"tspm", "means"}))
def test_every_network_can_be_asked(asked_run, network, tmp_path):
    given = {"pstp_net": ["--model.spans", T], "st_avqa": ["--model.seconds", T]}.get(network, [])  # T is small
    trained = train_asked(asked_run.parent, network, "--model.network", network, "--model.tokens", 14, *given)
    questions, wanted = answers_of(trained)
    video = questions["video_id"].iloc[0]
    of_video = questions[questions["video_id"] == video]
    asked = Answerer(trained, "cpu", encoders=[asked_run.parent / "encoders"])
    found = asked.ask(asked_run.parent / f"videos/{video}.mp4", of_video["question"].tolist())
    np.testing.assert_allclose([each.probability for each in found], wanted.probability[of_video.index], atol=1e-5)
    if found[0].looks:
        draw(found, tmp_path / "looked.png")


@pytest.mark.parametrize(("means_of", "hears"), [("[audio,frame]", True), ("[frame]", False), ("[]", False)])
def test_a_network_that_selects_nothing_answers_all_the_same(asked_run, video, tmp_path, means_of, hears):
    means = train_asked(asked_run.parent, f"means {means_of}", "--model.network", "means", "--model.means_of", means_of)
    (found,) = Answerer(means, "cpu", tmp_path, [asked_run.parent / "encoders"]).ask(video, [QUESTION])
    assert (found.selected, found.segment_weights, found.looks, found.note) == ([], None, [], "")
    assert (found.mel is not None) == hears
    assert 0 < found.as_dict()["probability"] < 1
    with pytest.raises(UserError, match="selects no seconds"):
        draw([found], tmp_path / "none.png")


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("", "the question is empty"),
        ("why " * 300, "has 1200 characters"),
        ("Is there a theremin sound?", "never 'theremin'"),
        ("小提琴在哪里？", "fits no template"),
    ],
)
def test_a_question_is_refused_before_the_video_is_opened(answerer, question, says):
    with pytest.raises(UserError, match=says):
        answerer.ask("missing.mp4", [question])


def test_the_command_prints_draws_and_tells_all_as_data(asked_run, video, tmp_path):
    given = ["--run", asked_run, "--encoders", asked_run.parent / "encoders", "--device", "cpu", "--cache", tmp_path]
    out = called(command.main, video, QUESTION, "Where is the performance?", *given, "--png", tmp_path / "looked.png")
    assert out.count("template  ") == 2
    assert "prompt    The sound of the flute can be heard." in out
    assert imread(tmp_path / "looked.png").shape[0] > 500
    told = json.loads(called(command.main, video, QUESTION, *given, "--json", "--png", tmp_path / "looked.png"))
    assert told[0]["question"] == QUESTION
    assert len(told[0]["segment_weights"]) == told[0]["seconds"] == T
    assert len(told[0]["looks"][0]["patches"]) == 49
    for arguments, says in (
        ([video], "no question"),
        ([tmp_path / "missing.mp4", QUESTION], "missing.mp4: no such file"),
        ([video, "Is there a theremin sound?"], "theremin"),
        ([video, QUESTION, "--start", "nan"], "start nan"),
    ):
        error = called(command.main, *arguments, *given, fails=True)
        assert says in error
        assert len(error.splitlines()) <= 2


def test_the_picture_shows_every_answer(answerer, video, tmp_path, monkeypatch):
    answers = answerer.ask(video, [QUESTION, "Where is the performance?"])
    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(figure4, "save_png", lambda figure, path, dpi: figures.append(figure))
        draw([answers[0], replace(answers[1], note="has no sound")], "unused.png")
    words = [text.get_text() for text in figures[0].texts]
    assert f"Template: {answers[0].template}" in words
    assert f"Template: {answers[1].template}; has no sound" in words
    draw(answers[:1], tmp_path / "one.png")
    draw(answers, tmp_path / "two.png")
    one, two = (imread(tmp_path / f"{name}.png").shape[0] for name in ("one", "two"))
    assert two > 1.5 * one


@pytest.mark.slow
def test_the_sample_is_answered_within_15_seconds(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = run("-m", "scripts.answer", "--png", tmp_path / "sample.png", "--cache", tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15  # of one core; others may be busy
    assert out.count("true      ") == 3
    assert (tmp_path / "sample.png").exists()
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 4e6
    assert SAMPLE.stat().st_size <= 300e3
