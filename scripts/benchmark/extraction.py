"""How fast extraction is, stage by stage.

A network's speed does not depend on its weights: a ViT-L/14@336px of random ones is measured, and nothing downloaded.
"""

import tempfile
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from feat_script.clip_vision import clip, encode_frames, schedules
from feat_script.extract_audio import read_examples
from feat_script.extract_visual import read_squares
from feat_script.media import read_audio
from feat_script.vggish import VGGish, examples
from scripts.benchmark.measure import Rows, Task, interleaved, limits, peaks, timed


@torch.inference_mode()
def extraction_rates(device: torch.device, rounds: int, visual: nn.Module | None = None, seconds: int = 20) -> Rows:
    """Measure every stage: times real time on a core, in processor time, or frames (examples) a second on `device`.

    The encoder is CLIP's `visual` transformer, unmerged, and with merging to 14 tokens beside the unmerged pass; its
    share of the peak is that of the fastest matrix product of the same precision.
    """
    frames = 60 if device.type == "cuda" else 4
    model = nn.Module()
    model.visual = visual or clip.model.VisionTransformer(336, 14, 1024, 24, 16, 768)
    if device.type == "cuda":
        clip.model.convert_weights(model)
    model.to(device).eval()
    size, precision = model.visual.input_resolution, "fp16" if device.type == "cuda" else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(Path(folder) / "video.mp4", seconds)
        samples = torch.from_numpy(read_audio(video, seconds).samples)
        images = read_squares(video, frames, size, "crop")[0].to(device)
        sound = read_examples(video, frames, 1.0)[0].to(device)
        stages: dict[str, Task] = {
            "decoding frames": lambda: read_squares(video, seconds, size, "crop"),
            "decoding sound": lambda: read_audio(video, seconds),
            "front end of the sound": lambda: examples(samples),
        }
        times = {name: min(core_seconds(task) for _ in range(rounds)) for name, task in stages.items()}
    rates: Rows = {name: {"times_real_time": seconds / taken} for name, taken in times.items()}

    peak = peaks(interleaved(limits(device, (precision,)), device, rounds), device, (precision,))[precision]
    networks: dict[str, Task] = {"VGGish": partial(VGGish().eval().to(device), sound)}
    for name, merging in {"unmerged": {}, "merging": schedules(model.visual, [14])}.items():
        networks[f"encoder, {name}"] = partial(encode_frames, model, images, merging)
    for name, task in networks.items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as work:  # the fused one is not counted
            task()
        rate = frames / min(timed(task, device) for _ in range(rounds))
        rates[name] = {"frames_per_second": rate, "gflop_per_frame": work.get_total_flops() / frames / 1e9}
        rates[name]["share_of_peak"] = rate * rates[name]["gflop_per_frame"] / peak["gflop_per_second"]
    return rates


def core_seconds(task: Task) -> float:
    """Processor time on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    task()
    taken = time.process_time() - began
    torch.set_num_threads(threads)
    return taken


def make_video(path: Path, seconds: int) -> Path:
    """Moving texture with noise for sound, 1280x720 at 25 frames a second, keyframes as far apart as x264 puts them."""
    random = np.random.default_rng(0)
    coarse = av.VideoFrame.from_ndarray(random.integers(0, 256, (90, 160, 3), dtype=np.uint8), "rgb24")
    scene = coarse.reformat(1600, 900, "rgb24", interpolation="BICUBIC").to_ndarray()
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=44100, layout="mono")
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        for n in range(25 * seconds):
            x, y = (int(offset * (1 + np.sin(n / rate))) for offset, rate in ((160, 40), (90, 25)))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[y : y + 720, x : x + 1280]), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(video.encode(frame))
        noise = (0.1 * random.standard_normal((1, 44100 * seconds))).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        sound.sample_rate = 44100
        for stream, last in ((video, None), (audio, sound), (audio, None)):
            out.mux(stream.encode(last))
    return path
