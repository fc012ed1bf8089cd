"""Texts: what they link to and the commands that they name are there; lines end where a reader's window does."""

import dataclasses
import re
import subprocess

import pytest

from configs.schema import TrainConfig
from dataset.config import DataConfig
from nets import NETWORKS
from tests.small_run import ROOT


def files(*patterns: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split()


TEXTS = files("*.md")
COMMAND = re.compile(r"python3? (?:-m )?((?:scripts|feat_script|tests)\.[\w.]+\w|train\.py|test\.py)([^`#;\n]*)")
ROOMS = {"data": [DataConfig], "train": [TrainConfig], "model": [NETWORKS[name] for name in NETWORKS]}
OPTIONS = {f"--{room}.{each.name}" for room, made in ROOMS.items() for one in made for each in dataclasses.fields(one)}
OPTIONS |= {"--config", "--out"}


@pytest.mark.skipif(not TEXTS, reason="not a git repository")
def test_relative_links_lead_somewhere():
    broken = []
    for text in TEXTS:
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / text).read_text(encoding="utf-8")):
            if "://" not in target and not ((ROOT / text).parent / target).exists():
                broken.append(f"{text}: {target}")
    assert not broken


@pytest.mark.skipif(not TEXTS, reason="not a git repository")
def test_lines_of_prose_end_before_column_160():
    long = [
        f"{text}:{number}"
        for text in TEXTS
        if not text.startswith("assets/")  # written by a command, for a page that wraps lines
        for number, line in enumerate((ROOT / text).read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 160 and not line.startswith(("|", "    "))
    ]
    assert not long


@pytest.mark.skipif(not TEXTS, reason="not a git repository")
def test_commands_and_their_options_are_there():
    """An option is of the command's own file, shared by extraction, or of the configuration that train.py composes."""
    shared, wrong = (ROOT / "feat_script/pipeline.py").read_text(), []
    for text in (*TEXTS, *files("configs/*.yaml", "*.sh", "scripts/*.py", "feat_script/*.py", "train.py", "test.py")):
        whole = (ROOT / text).read_text(encoding="utf-8")
        for command, rest in COMMAND.findall(re.sub(r"\\+\n", " ", whole)):
            path = ROOT / (command if command.endswith(".py") else command.replace(".", "/") + ".py")
            path = path if path.exists() else path.with_suffix("") / "__main__.py"
            if command != "scripts.NAME" and not path.exists():
                wrong.append(f"{text}: {command}")
            elif named := re.findall(r"(?<=[\s\[])--[a-z][\w.-]*\w", rest):
                own = path.read_text()
                own += shared if "common_options(" in own else ""
                strange = [each for each in named if each not in OPTIONS and f'"{each}"' not in own]
                wrong += [f"{text}: {command} {each}" for each in strange]
    assert not wrong
