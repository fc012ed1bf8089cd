"""The commands of dataset/own_videos.md, as they stand there, lead from a folder and a table to a scored test."""

import importlib
import re
import shlex

import numpy as np
import pytest

import train
from scripts import score as scoring
from tests.clips import sine, write_clip
from tests.scoring_run import called
from tests.small_encoders import save_narrow_vggish, save_small_clip
from tests.small_run import ROOT
from utils.files import read_json

PAGE = (ROOT / "dataset/own_videos.md").read_text()


def commands() -> list[list[str]]:
    """The words of the page's commands from the table to the test, braces expanded."""
    lines = re.findall(r"^    python (.+)$", PAGE.split("## Another encoder")[0], re.MULTILINE)
    return [[word for each in shlex.split(line) for word in expanded(each)] for line in lines]


def expanded(word: str) -> list[str]:
    """As a shell reads a word with {a,b} in it."""
    before, brace, rest = word.partition("{")
    some, _, after = rest.partition("}")
    return [f"{before}{middle}{after}" for middle in some.split(",")] if brace else [word]


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_a_scored_test(score, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for room in ("configs", "dataset"):
        (tmp_path / room).symlink_to(ROOT / room)
    (tmp_path / "videos").mkdir()
    table = ["id,video,question,answer,type"]
    for number in range(10):
        write_clip(f"videos/clip {number}.mp4", np.arange(10) / 5, sine(2))
        table += [f"{number}-a,clip {number}.mp4,Who plays?,a man,who", f"{number}-b,clip {number},Is it loud?,yes,is"]
    (tmp_path / "questions.csv").write_text("\n".join(table))
    clip, vggish = save_small_clip(tmp_path / "clip.pt"), save_narrow_vggish(tmp_path / "vggish.pth")
    quick = {
        "feat_script.extract_audio": ["--weights", vggish, "--device", "cpu", "--workers", 1],
        "feat_script.extract_visual": ["--device", "cpu", "--workers", 1],
        "feat_script.extract_text": ["--device", "cpu"],
    }
    done = []
    for words in commands():
        name, rest = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
        rest = [str(clip) if word == "ViT-B/32" else word for word in rest]
        done.append(name)
        if name == "train.py":
            small = ("--model.hidden", 16, "--train.epochs", 1, "--train.device", "cpu")
            called(train.main, *rest, *small)
        elif name == "test.py":
            score(*rest)
        elif name != "scripts.download":
            called(importlib.import_module(name).main, *rest, *quick.get(name, []))
    assert done == [
        *("scripts.make_annotations", "scripts.download"),
        *(f"feat_script.extract_{kind}" for kind in ("audio", "visual", "text")),
        *("train.py", "test.py"),
    ]
    metrics = read_json("runs/own/test/metrics.json")
    assert metrics["questions"] == 4
    assert list(metrics["accuracy"]) == ["is", "who", "All"]
    called(scoring.main, "runs/own/test/predictions.csv", "--benchmark", "own", "--json", "scores.json")
    assert read_json("scores.json")["accuracy"] == metrics["accuracy"]
