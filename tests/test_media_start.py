"""Reading from a later second on: the pictures and the sound of just those seconds, without decoding all before."""

import numpy as np
import pytest

from feat_script import media
from feat_script.media import RATE, MediaError, read_audio, read_duration, read_frames
from tests.clips import number, repeat, sine, write_clip

SECONDS = 12


@pytest.fixture(scope="module", params=["mp4", "mkv", "webm"])
def clip(request, tmp_path_factory):
    """Two frames a second and a sound that rises, twelve seconds long."""
    codecs = {"codec": "libvpx", "audio": "libopus", "rate": 48000} if request.param == "webm" else {}
    sound = sine(SECONDS, rate=codecs.get("rate", RATE))
    sound *= np.linspace(0.1, 1, len(sound), dtype=np.float32)
    path = tmp_path_factory.mktemp("start") / f"clip.{request.param}"
    return write_clip(path, np.arange(2 * SECONDS) / 2, sound, **codecs)


def envelope(samples):
    """Loudness of each 50 ms: Opus is some milliseconds late where it is read from its beginning."""
    return np.sqrt((samples.reshape(-1, RATE // 20) ** 2).mean(axis=1))


@pytest.mark.parametrize("start", [0.0, 1.0, 4.5, 9.0, 11.2])
def test_reading_begins_at_the_start(clip, start):
    frames, audio = read_frames(clip, 4, start=start), read_audio(clip, 4, start=start)
    own = min(4, max(1, round(SECONDS - start)))
    assert frames.own == own
    last = 2 * SECONDS - 1
    assert [number(image) for image in frames.images] == [
        min(last, int(2 * (start + 0.5 + min(i, own - 1)) + 1e-6)) for i in range(4)
    ]
    whole = read_audio(clip, SECONDS).samples[round(start * RATE) :][: 4 * RATE]
    np.testing.assert_allclose(envelope(audio.samples[: len(whole)]), envelope(whole), atol=0.02)
    assert audio.seconds == pytest.approx(min(4, SECONDS - start), abs=0.1)
    assert (frames.problem, audio.problem) == (None, None)


def test_nothing_is_left_after_the_end(clip):
    with pytest.raises(MediaError, match="before 20 s"):
        read_frames(clip, 4, start=20)
    assert read_duration(clip) == pytest.approx(SECONDS, abs=0.6)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Two hours without sound, half-minutes of a frame a second."""
    folder = tmp_path_factory.mktemp("long")
    part = write_clip(folder / "part.mp4", np.arange(30), size=(16, 16))
    return repeat(part, folder / "long.mp4", 30, 240)


def test_of_two_hours_only_what_is_asked_about_is_read(long_clip, monkeypatch):
    packets = []
    decode = media._Decoder._packets
    monkeypatch.setattr(media._Decoder, "_packets", lambda self: (packets.append(p) or p for p in decode(self)))
    assert read_duration(long_clip) == pytest.approx(7200, abs=2)
    frames = read_frames(long_clip, 4, start=7000)
    assert [number(image) for image in frames.images] == [second % 30 for second in range(7000, 7004)]
    assert read_audio(long_clip, 4, start=7000).state == "absent"
    assert read_audio(long_clip, 4).seconds == 4
    assert len(packets) < 150  # a group of pictures each, not two hours
