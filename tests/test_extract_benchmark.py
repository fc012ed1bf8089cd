"""The extraction benchmark: its count of operations against torch's counter, and its figures as a whole."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from feat_script.clip_vision import encode_frames, schedules
from feat_script.media import read_audio, read_frames
from scripts.benchmark.extraction import PUBLIC, extraction_rates, flops_per_frame, make_video, random_clip
from tests.clips import sine, write_clip
from tests.small_encoders import save_small_clip, small_clip
from utils.runtime import Runtime

CPU = torch.device("cpu")


@pytest.mark.parametrize(("tokens", "slack"), [([], 0.0), ([50], 0.0), ([14], 0.02), ([8, 14, 27], 0.04)])
def test_operations_are_those_that_torch_counts(tokens, slack):
    """Merging's own products, the similarities and the sums, are not counted as the encoder's work."""
    model = small_clip()
    merging = schedules(model.visual, tokens)
    images = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encode_frames(model, images, merging)
    counted = 2 * flops_per_frame(model.visual, list(merging.values()))
    assert counted <= counter.get_total_flops() <= counted * (1 + slack)


def test_public_networks_have_their_token_counts():
    with torch.device("meta"):
        counts = {name: len(random_clip(name, torch.device("meta")).visual.positional_embedding) for name in PUBLIC}
    assert counts == {"ViT-B/32": 50, "ViT-B/16": 197, "ViT-L/14": 257, "ViT-L/14@336px": 577}


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path):
    path = save_small_clip(tmp_path / "small.pt")
    video = write_clip(tmp_path / "clip.mp4", np.arange(20) / 5, sine(4))
    rates = extraction_rates(Runtime(CPU), str(path), (8, 14), 3, video)
    figures = {name: value for name, value in rates.items() if not isinstance(value, str)}
    assert all(np.isfinite(value) and value > 0 for value in figures.values())
    assert {name for name, value in rates.items() if value == "not measured"} == {"peak_float16_tflops"}
    assert rates["encoder_with_merging_fraction_of_peak"] < 1.5
    assert rates["pipeline_bound_by"] in ("encoder", "decoding")


@pytest.mark.slow
def test_the_clip_made_for_decoding(tmp_path):
    video = make_video(tmp_path / "made.mp4", 2)
    frames = read_frames(video, 2)
    assert frames.own == 2
    assert frames.images[0].shape == (720, 1280, 3)
    assert not np.array_equal(frames.images[0], frames.images[1])
    assert read_audio(video, 2).state == "sound"
