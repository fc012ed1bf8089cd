"""Bandstand's scenes: the picture and the sound, in memory and in the file, are what the description says."""

import hashlib
import multiprocessing

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.bandstand import sounds
from dataset.bandstand.benchmark import PRESETS, Preset
from dataset.bandstand.looks import HOLDS, SHAPES
from dataset.bandstand.render import FPS, frames, render
from dataset.bandstand.scene import FRAME, INSTRUMENTS, PLACES, SeenPerformer, make_scene
from scripts import render_bandstand
from tests.bandstand_scenes import performer, scene


@given(index=st.integers(0, 5000), seconds=st.sampled_from([20, 60]))
@settings(max_examples=60)
def test_scenes_are_possible(index, seconds):
    happening = make_scene(0, 0, index, seconds)
    assert 1 <= len(happening.seen) <= 4
    for p in happening.performers:
        edges = [edge for interval in p.intervals for edge in interval]
        assert edges == sorted(edges)
        if isinstance(p, SeenPerformer):
            assert not edges or p.present[0] <= edges[0] <= edges[-1] <= p.present[1] <= seconds
            x0, y0, x1, y1 = p.box
            assert 0 <= x0 < x1 <= FRAME
            assert 0 <= y0 < y1 <= FRAME
            assert int((x0 + x1) / 2 // (FRAME / 3)) == PLACES.index(p.place)
        for s in range(seconds):
            share = sum(max(0.0, min(b, s + 1) - max(a, s)) for a, b in p.intervals)
            assert (s in p.plays) == (share >= 0.5) == any(a <= s + 0.5 < b for a, b in p.intervals)


def digest(index, seed=0):
    happening = make_scene(seed, 0, index, 20)
    samples, onsets = sounds.soundtrack(happening)
    pixels = b"".join(frame.tobytes() for frame in frames(happening, onsets))
    return hashlib.sha256(samples.tobytes() + pixels).hexdigest()


def test_same_seed_same_pixels_and_samples():
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # an interpreter of its own
        elsewhere = pool.map(digest, [0, 1])
    assert elsewhere == [digest(0), digest(1)]
    assert digest(0) not in (digest(1), digest(0, seed=1))


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_playing_is_seen_and_heard_in_its_segments_only(instrument):
    happening = scene(performer(instrument, "middle", (4.0, 7.0), (12.0, 15.0), present=(2.0, 18.0)))
    samples, onsets = sounds.soundtrack(happening)
    level = 10 * np.log10(np.mean(samples.reshape(20, -1) ** 2, axis=1))
    plays = np.isin(np.arange(20), [4, 5, 6, 12, 13, 14])
    assert level[plays].min() > sounds.FULL_DB - 6
    assert level[~plays].max() < sounds.FLOOR_DB + 3

    shown = np.stack(list(frames(happening, onsets)))[FPS // 2 :: FPS].astype(int)  # the middle of each second
    changed = np.abs(shown - shown[0]).sum(axis=3) > 12
    x0, y0, x1, y1 = happening.performers[0].box
    inside = np.zeros((FRAME, FRAME), bool)
    inside[y0:y1, x0:x1] = True
    assert not changed[:, ~inside].any()
    assert (changed.any(axis=(1, 2)) == np.isin(np.arange(20), range(2, 18))).all()
    resting = shown[2]
    moved = (np.abs(shown - resting).sum(axis=3) > 60).sum(axis=(1, 2))
    assert (moved[plays] > 250).all()  # about one patch of 16 x 16 of the encoder's 112 pixels
    assert (moved[np.isin(np.arange(20), [3, 7, 10, 16])] == 0).all()


def test_instruments_look_and_sound_like_no_other():
    assert set(SHAPES) == set(HOLDS) == set(sounds.TIMBRES) == set(INSTRUMENTS)
    spectra = []
    for instrument in INSTRUMENTS:
        track, _ = sounds.play(performer(instrument, "left", (0.0, 4.0)), 4, np.random.default_rng(0))
        bands = np.abs(np.fft.rfft(track)) ** 2
        spectra.append(np.log(np.add.reduceat(bands, np.geomspace(200, len(bands) - 1, 32).astype(int)) + 1e-3))
    distance = np.linalg.norm(np.array(spectra)[:, None] - np.array(spectra)[None], axis=-1)
    assert distance[~np.eye(len(INSTRUMENTS), dtype=bool)].min() > 5


def test_loudness_is_as_stated():
    for db in (0.0, -6.0, -12.0):
        track, _ = sounds.play(performer("cello", "left", (0.0, 4.0), loudness=db), 4, np.random.default_rng(0))
        assert 10 * np.log10(np.mean(track**2)) == pytest.approx(sounds.FULL_DB + db, abs=0.3)


@pytest.mark.parametrize("rate", [1, 3, 6])
def test_notes_come_at_the_stated_rate(rate):
    _, onsets = sounds.play(performer("piano", "left", (2.0, 8.0), rate=rate), 20, np.random.default_rng(0))
    assert np.allclose(onsets, 2 + np.arange(6 * rate) / rate)


def test_the_same_scene_gives_the_same_file(tmp_path):
    """x264's defaults do not on machines with AVX-512."""
    happening = make_scene(0, 0, 10, 20)
    made = []
    for n in range(4):
        render(happening, tmp_path / f"{n}.mp4")
        made.append((tmp_path / f"{n}.mp4").read_bytes())
    assert len(set(made)) == 1


def test_file_shows_the_frame_of_each_second(tmp_path):
    happening = make_scene(0, 0, 3, 20)
    render(happening, tmp_path / "video.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    _, onsets = sounds.soundtrack(happening)
    rendered = list(frames(happening, onsets))
    with av.open(str(tmp_path / "video.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name, audio.rate) == ("h264", "aac", sounds.RATE)
        decoded = {round(frame.time * FPS): frame.to_ndarray(format="rgb24") for frame in container.decode(video)}
        container.seek(0)
        assert sum(frame.samples for frame in container.decode(audio)) >= 20 * sounds.RATE
    assert sorted(decoded) == list(range(20 * FPS))
    for second in range(20):
        middle = second * FPS + FPS // 2
        errors = [np.abs(decoded[middle].astype(int) - rendered[i]).mean() for i in range(0, 20 * FPS, FPS)]
        assert np.abs(decoded[middle].astype(int) - rendered[middle]).mean() < min(8, min(errors) + 1)


def test_script_renders_once_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "demo", Preset(videos=10, seconds=11))
    render_bandstand.main(["--out", str(tmp_path), "--workers", "1"])
    videos = sorted((tmp_path / "videos").iterdir())
    assert [video.name for video in videos] == [f"{i:08d}.mp4" for i in range(10)]
    videos[1].unlink()
    before = [video.stat().st_mtime_ns for video in videos if video.exists()]
    annotations = (tmp_path / "annotations" / "train.json").read_bytes()
    render_bandstand.main(["--out", str(tmp_path), "--workers", "1"])
    assert videos[1].exists()
    assert [video.stat().st_mtime_ns for video in videos if video != videos[1]] == before
    assert (tmp_path / "annotations" / "train.json").read_bytes() == annotations
    listed = (tmp_path / "SHA256SUMS").read_bytes()
    (tmp_path / "SHA256SUMS").write_bytes(listed[:90] + bytes(20))  # half a line, which must not take in the next one
    videos[5].unlink()
    render_bandstand.main(["--out", str(tmp_path), "--workers", "1"])
    assert (tmp_path / "SHA256SUMS").read_bytes() == listed
    with pytest.raises(SystemExit) as stop:
        render_bandstand.main(["--out", str(tmp_path), "--seed", "1"])
    assert stop.value.code == 2
    assert "seed" in capsys.readouterr().err
