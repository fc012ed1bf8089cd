"""Reading video: the frame and the sound of the right second, from real clips and from clips made here."""

import subprocess
import sys
import textwrap

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feat_script.media import RATE, MediaError, _upright_rgb, read_audio, read_frames
from tests.clips import loudness, number, repeat, sine, write_clip

T = 10
# name: seconds of picture, height and width of the upright frame, sound, does decoding stumble
REAL = {
    "music_flute_guitar_duet.mp4": (10, (144, 256), "sound", False),
    "music_drumkit.mp4": (10, (360, 640), "sound", False),
    "music_congas.mp4": (10, (360, 640), "sound", False),
    "vfr_rot180_mono48k.mp4": (2, (720, 1280), "sound", False),
    "no_duration_silent.webm": (5, (720, 1280), "silent", False),
    "chaplin_mp3.mp4": (10, (360, 640), "sound", False),
    "smpte_timecode_1080p.mp4": (10, (1080, 1920), "sound", False),
    "alpha_vp9_silent.webm": (5, (200, 200), "silent", False),
    "one_pixel_1fps_noaudio.mp4": (5, (1, 1), "absent", False),
    "corrupted_noaudio.mp4": (5, (720, 1280), "absent", True),
    "rot90_noaudio.mov": (1, (568, 320), "absent", False),
    "pancake_opus.mkv": (10, (240, 426), "sound", False),
    "nasa_multi_stream.mp4": (10, (270, 480), "sound", False),
    "av1_noaudio.mkv": (5, (360, 640), "absent", False),
    "h264_10bit_noaudio.mp4": (1, (200, 200), "absent", False),
    "dog_portrait_1s.mp4": (1, (568, 320), "sound", False),
}


def numbers(path, segments=T):
    return [number(image) for image in read_frames(path, segments).images]


@pytest.mark.parametrize("name", REAL)
def test_real_clips(shared, name):
    own, size, sound, stumbles = REAL[name]
    frames, audio = read_frames(shared / "media" / name, T), read_audio(shared / "media" / name, T)
    assert len(frames.images) == T
    assert all(image.shape == (*size, 3) and image.dtype == np.uint8 for image in frames.images)
    assert frames.own == own
    assert (frames.problem is not None) == stumbles
    for image in frames.images[own:]:
        assert np.array_equal(image, frames.images[own - 1])
    assert audio.samples.shape == (T * RATE,)
    assert audio.samples.dtype == np.float32
    assert audio.state == sound
    assert (np.abs(audio.samples).max() > 0.01) == (sound == "sound")
    assert not audio.samples[round((audio.seconds + 0.1) * RATE) :].any()


@pytest.mark.parametrize("name", sorted(REAL.keys() - {"corrupted_noaudio.mp4"}))
def test_real_frames_are_those_that_decoding_everything_shows(shared, name):
    with av.open(str(shared / "media" / name)) as container:
        frames = [(frame.time, frame) for frame in container.decode(container.streams.best("video"))]
        first = frames[0][1]
        shown = [([first] + [frame for time, frame in frames if time <= i + 0.5])[-1] for i in range(T)]
        shown = [_upright_rgb(frame) for frame in shown]
    frames = read_frames(shared / "media" / name, T)
    for second in range(frames.own):
        assert np.array_equal(frames.images[second], shown[second])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 900), min_size=1, max_size=29))
def test_variable_rate_shows_the_last_frame_begun(tmp_path, gaps):
    """Against the definition: the frame at i + 0.5 s is the last whose time is not after it, else the first."""
    times = np.cumsum([0, *gaps]) / 1000
    expected = [max([0] + [n for n, time in enumerate(times) if time <= i + 0.5]) for i in range(T)]
    frames = read_frames(write_clip(tmp_path / "vfr.mkv", times), T)
    assert [number(image) for image in frames.images[: frames.own]] == expected[: frames.own]
    assert [number(image) for image in frames.images[frames.own :]] == expected[frames.own - 1 : frames.own] * (
        T - frames.own
    )
    assert frames.own == T or frames.own - 0.5 < times[-1] + 1 < frames.own + 1.5


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov", "clip.ts", "clip.avi"])
def test_containers(tmp_path, name):
    """Five frames a second, whatever the container counts time in and wherever it starts to count."""
    codec = {"codec": "mpeg4", "audio": "mp2", "tick": 5} if name == "clip.avi" else {}
    path = write_clip(tmp_path / name, np.arange(25) / 5, sine(5), **codec)
    frames, audio = read_frames(path, T), read_audio(path, T)
    assert frames.own == 5
    assert [number(image) for image in frames.images] == [2, 7, 12, 17, 22] + [22] * 5
    assert audio.seconds == pytest.approx(5, abs=0.15)  # the last packet of sound is padded
    assert (loudness(audio)[:5] > 0.3).all()
    assert (loudness(audio)[6:] == 0).all()


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_late_starts(tmp_path, name):
    path = write_clip(tmp_path / f"sound_{name}", np.arange(25) / 5, sine(2), sound_start=3.0)
    audio = read_audio(path, T)
    onset = np.flatnonzero(np.abs(audio.samples) > 0.1)[0] / RATE
    assert onset == pytest.approx(3.0, abs=0.01)
    assert (loudness(audio) > 0.3).tolist() == [False] * 3 + [True] * 2 + [False] * 5
    assert numbers(path) == [2, 7, 12, 17, 22] + [22] * 5

    path = write_clip(tmp_path / f"picture_{name}", 2 + np.arange(25) / 5, sine(7))
    frames = read_frames(path, T)
    assert frames.own == 7
    assert [number(image) for image in frames.images] == [0, 0, 2, 7, 12, 17, 22, 22, 22, 22]


def test_an_edit_list_that_skips_the_first_second(tmp_path):
    whole, edited = write_clip(tmp_path / "whole.mp4", np.arange(25) / 5, sine(5)), tmp_path / "edited.mp4"
    with av.open(str(whole)) as clip, av.open(str(edited), "w") as out:  # MP4 writes times below 0 as an edit list
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in clip.streams}
        for packet in clip.demux():
            if packet.dts is not None:
                packet.pts -= round(1 / packet.time_base)
                packet.dts -= round(1 / packet.time_base)
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    frames = read_frames(edited, T)
    assert frames.own == 4
    assert [number(image) for image in frames.images] == [7, 12, 17, 22] + [22] * 6
    assert (loudness(read_audio(edited, T)) > 0.3).tolist() == [True] * 4 + [False] * 6


def test_a_clip_of_200_ms(tmp_path):
    path = write_clip(tmp_path / "short.mp4", np.arange(5) / 25, sine(0.2))
    frames, audio = read_frames(path, T), read_audio(path, T)
    assert frames.own == 1
    assert [number(image) for image in frames.images] == [4] * T
    assert audio.state == "sound"
    assert audio.seconds == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4"])
def test_a_file_cut_in_the_middle_keeps_its_start_and_says_so(tmp_path, name):
    whole = write_clip(tmp_path / f"whole{name}", np.arange(0, 8, 0.04), sine(8), size=(128, 96))
    if name == "cut.mp4":  # an index that stands first, as in videos made for the web
        with (
            av.open(str(whole)) as clip,
            av.open(str(tmp_path / "web.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in clip.streams}
            for packet in clip.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        whole = tmp_path / "web.mp4"
    path = tmp_path / name
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames, audio = read_frames(path, T), read_audio(path, T)
    assert 2 <= frames.own <= 6
    assert frames.problem
    assert audio.problem
    assert audio.seconds < 7
    expected, n = read_frames(whole, T).images, frames.own - 1
    for second in range(n):
        assert np.array_equal(frames.images[second], expected[second])


def test_files_without_media(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    whole = write_clip(tmp_path / "whole.mp4", np.arange(25) / 5).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # its index stood at the end
    for name in ("empty.mp4", "text.mp4", "headless.mp4", "absent.mp4"):
        for read in (read_frames, read_audio):
            with pytest.raises(MediaError, match="cannot be opened"):
                read(tmp_path / name, T)
    with pytest.raises(MediaError, match="no video stream"):
        read_frames(write_clip(tmp_path / "sound.wav", sound=sine(1), audio="pcm_s16le"), T)


def test_frames_are_prepared_once_each(tmp_path):
    seen = []
    read_frames(
        write_clip(tmp_path / "slow.mp4", [0.0, 3.0, 3.9]), T, prepare=lambda image: seen.append(image) or image
    )
    assert [number(image) for image in seen] == [0, 1, 2]


def test_an_hour_at_bounded_memory(tmp_path):
    """Reading 60 of 3,600 seconds takes no more memory than reading 60 of 60."""
    minute = write_clip(tmp_path / "minute.mp4", np.arange(60), sine(60))
    hour = repeat(minute, tmp_path / "hour.mp4", 61, 59)
    code = """
        import resource, sys
        from feat_script.media import read_audio, read_frames
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB
        minute = [read_frames(sys.argv[1], 60), read_audio(sys.argv[1], 60)], peak()
        hour = [read_frames(sys.argv[2], 60), read_audio(sys.argv[2], 60)], peak()
        assert hour[0][0].own == hour[0][1].seconds == 60
        print(hour[1] - minute[1])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), minute, hour], check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 30
    assert [number(image) for image in read_frames(hour, 30).images] == list(range(30))
