"""Reading sound: at the right time, in the right amplitude, whatever its format."""

import av
import numpy as np
import pytest

from feat_script.media import RATE, read_audio
from tests.clips import loudness, sine, write_clip

T = 10


def test_real_sound_made_late_by_remuxing(shared, tmp_path):
    source, late = shared / "media" / "music_drumkit.mp4", tmp_path / "late.mp4"
    with av.open(str(source)) as clip, av.open(str(late), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in clip.streams}
        for packet in clip.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts += round(3 / packet.time_base)
                    packet.dts += round(3 / packet.time_base)
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    before, after = read_audio(source, T).samples, read_audio(late, T).samples
    assert np.abs(after[: 3 * RATE - 100]).max() < 0.01 * np.abs(before).max()  # the resampler rings a little
    # AAC's first packet primes the decoder and is trimmed only at the start of a file, so compare the inside.
    inside = slice(3 * RATE + 4000, T * RATE - 4000)
    shifts = range(-20, 21)
    misfit = [np.abs(after[inside] - np.roll(before, 3 * RATE + shift)[inside]).mean() for shift in shifts]
    assert min(misfit) < 0.2 * np.abs(before).mean()
    assert abs(shifts[int(np.argmin(misfit))]) <= 16  # 1 ms


def test_a_gap_in_the_sound_is_silence(tmp_path):
    whole, gap = write_clip(tmp_path / "whole.mkv", [0.0, 5.9], sine(6)), tmp_path / "gap.mkv"
    with av.open(str(whole)) as clip, av.open(str(gap), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in clip.streams}
        for packet in clip.demux():
            lost = packet.stream.type == "audio" and packet.pts is not None and 2 <= packet.pts * packet.time_base < 4
            if packet.dts is not None and not lost:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    assert (loudness(read_audio(gap, 6)) > 0.2).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_sample_formats_keep_the_amplitude(tmp_path, codec):
    path = tmp_path / ("clip.flac" if codec == "flac" else "clip.wav")
    audio = read_audio(write_clip(path, sound=sine(2), audio=codec), 2)
    assert np.abs(audio.samples - sine(2)).max() < (0.01 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_time_and_amplitude(tmp_path, rate):
    path = write_clip(tmp_path / "clip.wav", sound=sine(3, rate=rate), rate=rate, audio="pcm_f32le")
    got, expected = read_audio(path, 3).samples, sine(3)
    inside = slice(400, -400)
    assert np.abs(got[inside] - expected[inside]).max() < 2e-3


def test_channels_are_averaged(tmp_path):
    left, right = sine(1), sine(1, hertz=1000, amplitude=0.25)
    path = tmp_path / "stereo.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, right], 1).reshape(1, -1), "flt", "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    np.testing.assert_allclose(read_audio(path, 1).samples, (left + right) / 2, atol=1e-6)


def test_no_sound_and_silence_are_told_apart(tmp_path):
    without = read_audio(write_clip(tmp_path / "without.mp4", np.arange(10) / 5), 2)
    silent = read_audio(write_clip(tmp_path / "silent.mp4", np.arange(10) / 5, sine(2, amplitude=0)), 2)
    assert (without.state, silent.state) == ("absent", "silent")
    assert not without.samples.any()
    assert without.seconds == silent.seconds == 2
