"""Whatever file is asked about: an answer with a note of what is odd, or a line that says why there is none."""

import numpy as np
import pytest

from scripts.answer import draw
from tests.asking import T
from tests.clips import sine, write_clip
from utils.errors import UserError

QUESTION = "Is there a flute sound?"
TIMES = np.arange(5 * T) / 5


def note(answerer, path):
    (found,) = answerer.ask(path, [QUESTION])
    assert 0 < found.probability < 1
    return found.note


def test_a_clip_of_200_ms_is_padded(answerer, tmp_path):
    path = write_clip(tmp_path / "short.mp4", [0, 0.1], sine(0.2))
    assert note(answerer, path) == "the model sees 4 s: from 1 s on it saw the last second again and again"


def test_a_longer_clip_is_cut(answerer, tmp_path):
    path = write_clip(tmp_path / "longer.mp4", np.arange(45) / 5, sine(9))
    assert "lasts 9.0 s: the model saw 4 s from 0 s on; --start S has it see others" in note(answerer, path)


def test_what_is_not_heard_is_said(answerer, tmp_path):
    assert note(answerer, write_clip(tmp_path / "a.mp4", TIMES)) == "has no sound: heard as silence"
    quiet = write_clip(tmp_path / "b.mp4", TIMES, sine(T, amplitude=0))
    assert note(answerer, quiet) == "its sound is silence"


@pytest.mark.parametrize("size", [(2, 2), (640, 2), (2, 640)])
def test_odd_shapes_are_drawn(answerer, tmp_path, size):
    (found,) = answerer.ask(write_clip(tmp_path / "odd.mp4", TIMES, size=size), [QUESTION])
    draw([found], tmp_path / "odd.png")


@pytest.mark.parametrize(
    ("name", "contents", "says"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "cannot be opened"),
        ("text.mp4", b"This is a text, which no player plays.\n" * 50, "cannot be opened"),
        ("小提琴.txt", "小提琴\n".encode() * 50, "cannot be opened"),
    ],
)
def test_what_is_no_video_is_refused(answerer, tmp_path, name, contents, says):
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(UserError) as refused:
        answerer.ask(tmp_path / name, [QUESTION])
    assert str(refused.value).startswith(f"{tmp_path / name}: ")
    assert len(str(refused.value).splitlines()) == 1
    assert says in str(refused.value)


def test_sound_alone_is_refused(answerer, tmp_path):
    with pytest.raises(UserError, match=r"sound\.mp4: no video stream"):
        answerer.ask(write_clip(tmp_path / "sound.mp4", sound=sine(T)), [QUESTION])


def test_a_folder_is_refused(answerer, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        answerer.ask(tmp_path, [QUESTION])


@pytest.mark.slow
def test_real_clips_are_answered(answerer, shared):
    """Of every codec, turned, damaged, of one pixel; the notes are those of media that tests of media know."""
    notes = {path.name: note(answerer, path) for path in sorted((shared / "media").iterdir()) if path.suffix != ".md"}
    assert len(notes) == 16
    assert "damaged" in notes["corrupted_noaudio.mp4"]
    assert all(("has no sound" in said) == ("noaudio" in name) for name, said in notes.items())
    assert {name for name, said in notes.items() if "its sound is silence" in said} == {
        *("alpha_vp9_silent.webm", "no_duration_silent.webm"),
    }
