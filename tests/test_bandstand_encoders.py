"""Bandstand's small encoders, read by extraction's own code on decoded videos, know what is seen and heard."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from dataset.bandstand.benchmark import BENCHMARK, ENCODERS
from dataset.bandstand.render import render
from dataset.bandstand.scene import INSTRUMENTS, make_scene
from feat_script.clip_vision import encode_frames, encode_sentences, load_clip
from feat_script.extract_audio import read_examples
from feat_script.extract_visual import read_squares
from feat_script.vggish import load_vggish

ASSETS = Path("assets/bandstand")


def test_scenes_of_the_encoders_are_not_in_the_benchmark():
    ours = {make_scene(0, BENCHMARK, i, 20).performers for i in range(200)}
    assert not ours & {make_scene(0, ENCODERS, i, 20).performers for i in range(200)}


def test_they_are_small():
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files) <= 12e6  # what git stores


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Four scenes of the benchmark with their videos."""
    scenes = [make_scene(0, BENCHMARK, i, 20) for i in range(4)]
    videos = [tmp_path_factory.mktemp("rendered") / f"{scene.video_id}.mp4" for scene in scenes]
    for scene, video in zip(scenes, videos, strict=True):
        render(scene, video)
    return list(zip(scenes, videos, strict=True))


@pytest.mark.parametrize("name", ["clip.pt", "clip_second.pt", "clip_captions.pt"])
def test_clips_find_who_plays_and_who_rests(rendered, name):
    model, _, _ = load_clip(str(ASSETS / name), "cpu")
    names = [f"The {i.replace('_', ' ')} is {what}." for i in INSTRUMENTS for what in ("playing", "resting")]
    captions, found = normalize(torch.from_numpy(encode_sentences(model, names)), dim=-1), []
    for scene, video in rendered:
        squares, _ = read_squares(video, 20, model.visual.input_resolution, "crop")
        similarity = normalize(encode_frames(model, squares, {}).frame, dim=-1) @ captions.T
        for second, row in enumerate(similarity):
            shown = [performer for performer in scene.seen if second in performer.in_view]
            true = {names[2 * INSTRUMENTS.index(p.instrument) + (second not in p.plays)] for p in shown}
            found += [np.mean([names[j] in true for j in row.topk(len(true)).indices])] if true else []
    assert np.mean(found) > 0.4  # chance: 0.05


@torch.inference_mode()
def test_the_five_features_of_an_instrument_tell_when_it_sounds(rendered):
    network, _ = load_vggish(ASSETS / "vggish.pth")
    told = []
    for scene, video in rendered:
        heard = network(read_examples(video, 20, 1.0)[0])[:, : 5 * len(INSTRUMENTS)].unflatten(1, (-1, 5))
        for performer in scene.heard:
            own = heard[:, INSTRUMENTS.index(performer.instrument)]
            sounds = torch.from_numpy(np.isin(np.arange(20), sorted(performer.sounds)))
            if not 1 < sounds.sum() < 19:
                continue
            apart = (own[sounds].mean(dim=0) - own[~sounds].mean(dim=0)).norm()
            told.append(float(apart / own[~sounds].std(dim=0).norm()))
    assert np.median(told) > 2
