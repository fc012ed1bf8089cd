"""Bandstand's small encoders: what they are taught is true, and feature extraction reads what they learnt."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.bandstand import lessons
from dataset.bandstand.benchmark import BENCHMARK, ENCODERS
from dataset.bandstand.lessons import FALSE, TRUE, UNKNOWN, Fact
from dataset.bandstand.render import FPS, frames, render
from dataset.bandstand.scene import FRAME, INSTRUMENTS, make_scene
from dataset.bandstand.sounds import RATE, soundtrack
from dataset.text_prompt import PromptTable
from feat_script.clip_vision import encode_frames, encode_sentences, fit_image, load_clip
from feat_script.media import read_frames
from feat_script.vggish import load_vggish
from scripts.bandstand.clip import Batch, train_clip
from scripts.bandstand.vggish import Listener
from scripts.train_bandstand_encoders import save
from tests.bandstand_scenes import performer, scene

ASSETS = Path("assets/bandstand")
DUO = scene(performer("violin", "left", (0.0, 10.0)), performer("cello", "right", present=(5.0, 20.0)), outdoor=True)


@pytest.fixture(scope="module")
def prompts():
    return PromptTable.read("dataset/TextPrompt.xlsx", "MUSIC-AVQA")


def test_scenes_of_the_encoders_are_not_in_the_benchmark():
    ours = {make_scene(0, BENCHMARK, i, 20).performers for i in range(200)}
    assert not ours & {make_scene(0, ENCODERS, i, 20).performers for i in range(200)}


def test_captions_say_what_is_in_the_frame():
    assert lessons.facts(DUO, 2) == [Fact("violin", "left", True)]
    assert lessons.facts(DUO, 12) == [Fact("violin", "left", False), Fact("cello", "right", False)]
    assert set(lessons.captions(lessons.facts(DUO, 7), DUO.outdoor)) == {
        "The violin on the left is playing.",
        "The cello on the right is resting.",
        "The violin is playing.",
        "The cello is resting.",
        "The performance is outdoor.",
        "Two instruments can be seen.",
        "One instruments are playing.",
    }
    every = set(lessons.all_captions())
    for lesson_scene in (make_scene(0, ENCODERS, i, 20) for i in range(50)):
        assert set(lessons.captions(lessons.facts(lesson_scene, 9), lesson_scene.outdoor)) <= every


def test_truth_of_a_sentence(prompts):
    mine, other = lessons.lessons(0, range(2), 20, prompts)
    sentence = next(s for s in mine.sentences if 0 < len(s.segments) < 20)
    inside, outside = min(sentence.segments), min(set(range(20)) - sentence.segments)
    assert lessons.truth(sentence, mine, mine, inside) == TRUE
    assert lessons.truth(sentence, mine, mine, outside) == FALSE
    there = {p.instrument for p in other.scene.performers}
    absent = next(i for i in INSTRUMENTS if i not in there)
    assert lessons.truth(sentence._replace(values=(absent,)), mine, other, 0) == FALSE
    assert lessons.truth(sentence._replace(values=(min(there),)), mine, other, 0) == UNKNOWN
    assert lessons.truth(sentence._replace(values=("first",)), mine, other, 0) == UNKNOWN


def test_frames_are_like_those_of_the_videos():
    """The quick pictures differ from rendered ones, reduced by CLIP's preparation, by clothes and stage alone."""
    off, by_chance = [], []
    for i in range(6):
        happening = make_scene(0, ENCODERS, i, 20)
        _, onsets = soundtrack(happening)
        rendered = list(frames(happening, onsets))[8 * FPS + FPS // 2]
        reduced = fit_image(rendered, lessons.SIDE, "crop").astype(int)
        quick = lessons.frame(happening, 8, np.random.default_rng(i)).astype(int)
        elsewhere = lessons.frame(make_scene(0, ENCODERS, i + 10, 20), 8, np.random.default_rng(i)).astype(int)
        owner = np.kron(lessons.cover(happening, 8, lessons.SIDE // 4).reshape(28, 28), np.ones((4, 4))) >= 0
        off.append(np.abs(quick - reduced)[owner].mean())
        by_chance.append(np.abs(elsewhere - reduced)[owner].mean())
    assert np.nanmean(off) < 0.8 * np.nanmean(by_chance)


def test_patches_know_their_performer():
    owner = lessons.cover(DUO, 7, 14).reshape(14, 14)
    x0, y0, x1, y1 = DUO.performers[0].box
    violin = 2 * INSTRUMENTS.index("violin") + 1
    row, column = (y0 + y1) * 7 // FRAME, (x0 + x1) * 7 // FRAME
    assert owner[row, column] == violin
    assert set(owner.ravel()) == {-1, violin, 2 * INSTRUMENTS.index("cello")}
    assert abs((owner == violin).sum() - (x1 - x0) * (y1 - y0) / 16**2) < 12


def test_seconds_of_sound():
    heard = lessons.sounds(DUO)
    assert heard.samples.shape == (20, RATE)
    assert (heard.sounding.sum(axis=1) == np.r_[np.ones(10), np.zeros(10)]).all()
    assert heard.sounding[:10, INSTRUMENTS.index("violin")].all()
    assert (heard.rate[heard.sounding] == 3).all()
    assert not heard.voice.any()


def test_batches_match_their_scenes(prompts):
    pool = lessons.lessons(0, range(6), 20, prompts)
    captions = {caption: i for i, caption in enumerate(lessons.all_captions())}
    batch = Batch(pool, captions, 7, np.random.default_rng(0))
    assert batch.pictures.shape == (18, lessons.SIDE, lessons.SIDE, 3)
    assert (batch.own.sum(axis=1) >= 1).all()  # every frame meets sentences of its own scene
    assert (batch.own.sum(axis=1) <= 4).all()
    assert (batch.truth[batch.own] != UNKNOWN).all()
    assert batch.captions.sum(axis=1).min() >= 3  # the place, how many are seen and how many play


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, prompts):
    torch.manual_seed(0)
    teacher, seen = train_clip(0, 16, 2, 12, prompts, taught_prompts=True)
    path = tmp_path_factory.mktemp("encoders") / "clip.pt"
    save(teacher.clip, path)
    return teacher, seen, path


def test_extraction_sees_what_training_saw(short_run):
    teacher, seen, path = short_run
    model, _, _ = load_clip(str(path), "cpu")
    pictures = np.stack([lessons.frame(DUO, s, np.random.default_rng(0)) for s in range(3)])
    with torch.inference_mode():
        taught, tokens = teacher.images(pictures)
        extracted = encode_frames(model, torch.from_numpy(pictures), {50: (0, 0, 0, 0), 14: (9, 9, 9, 9)})
        texts = teacher.texts(["The violin is playing.", "Where is the first sounding instrument?"])
    torch.testing.assert_close(extracted.frame, taught, atol=3e-2, rtol=0)  # the file is float16
    torch.testing.assert_close(extracted.tokens[50][:, 1:], tokens, atol=3e-2, rtol=0)
    assert extracted.tokens[14].shape == (3, 14, 128)
    read = encode_sentences(model, ["The violin is playing.", "Where is the first sounding instrument?"])
    np.testing.assert_allclose(read, texts.numpy(), atol=2e-2)
    assert {49406, 49407} <= seen  # start and end of a sentence


def test_vggish_is_read(tmp_path):
    save(Listener().network, tmp_path / "vggish.pth")
    network, _ = load_vggish(tmp_path / "vggish.pth")
    assert network(torch.zeros(2, 96, 64)).shape == (2, 128)


def test_committed_encoders_know_the_benchmark(tmp_path):
    """Read by extraction's own code, on decoded videos: plain captions are found, and instruments told by ear."""
    assert (
        sum(len(zlib.compress(path.read_bytes())) for path in ASSETS.rglob("*") if path.is_file()) <= 12e6
    )  # what git stores
    model, _, _ = load_clip(str(ASSETS / "clip.pt"), "cpu")
    names = lessons.all_captions()
    captions = torch.nn.functional.normalize(torch.from_numpy(encode_sentences(model, names)), dim=-1)
    found = []
    for i in range(4):
        happening = make_scene(0, BENCHMARK, i, 20)
        render(happening, tmp_path / "video.mp4")
        shown = read_frames(tmp_path / "video.mp4", 20, lambda picture: fit_image(picture, lessons.SIDE, "crop"))
        frame = encode_frames(model, torch.from_numpy(np.stack(shown.images)), {}).frame
        similarity = torch.nn.functional.normalize(frame, dim=-1) @ captions.T
        for second, row in enumerate(similarity):
            true = set(lessons.captions(lessons.facts(happening, second), happening.outdoor))
            found.append(np.mean([names[j] in true for j in row.topk(len(true)).indices]))
    assert np.mean(found) > 0.4  # chance: 0.04
