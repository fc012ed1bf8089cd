"""How fast extraction is on this machine, stage by stage, and which stage bounds the whole.

    python -m scripts.benchmark.extraction                                    # ViT-L/14@336px: minutes on a CPU
    python -m scripts.benchmark.extraction --clip ViT-B/32 --segments 10 --video some.mp4

A network's speed does not depend on its weights, so a public CLIP is built with random ones: nothing is downloaded.
Decoding and the front end are counted in processor time, as a core of their own would take.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import nn

from feat_script.clip_vision import clip, encode_frames, load_clip, schedules
from feat_script.extract_audio import read_examples
from feat_script.extract_visual import encode_video, kinds, read_squares
from feat_script.media import read_audio
from feat_script.pipeline import default_workers, extract
from feat_script.vggish import VGGish, examples
from utils.cli import Parser
from utils.errors import command
from utils.files import write_json
from utils.runtime import Runtime, start

PUBLIC = {  # features, image size, blocks, width, patch
    "ViT-B/32": (512, 224, 12, 768, 32),
    "ViT-B/16": (512, 224, 12, 768, 16),
    "ViT-L/14": (768, 224, 24, 1024, 14),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14),
}
NONE = "not measured"


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--clip", default="ViT-L/14@336px", help="a public CLIP, built with random weights, or a file")
    parser.add_argument("--tokens", type=int, nargs="+", default=[14], help="merged tokens of a frame")
    parser.add_argument("--segments", type=int, help="frames of a batch (default: 60 on CUDA, 4 on the CPU)")
    parser.add_argument("--video", help="a video to decode (default: 20 s of 1280x720 H.264, made for it)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the networks run")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes that decode")
    parser.add_argument("--out", help="write the figures to this JSON file too")
    return parser.parse_args(args)


def extraction_rates(
    runtime: Runtime,
    clip_name: str = "ViT-L/14@336px",
    tokens: tuple[int, ...] = (14,),
    segments: int | None = None,
    video: str | Path | None = None,
    workers: int = 1,
) -> dict[str, float | str]:
    """Measure every stage on `runtime.device`; return figures by name, each with its unit in the name.

    "x real time" is seconds of video per second. `encoder` is CLIP's visual transformer, without merging and with all
    of `tokens` besides the unmerged pass; its fraction of peak counts matrix products only, against the fastest large
    one of the same precision measured here. What needs CUDA is "not measured" elsewhere.
    """
    device = runtime.device
    segments = segments or (60 if device.type == "cuda" else 4)
    model = random_clip(clip_name, device) if clip_name in PUBLIC else load_clip(clip_name, device)[0]
    size, merging = model.visual.input_resolution, schedules(model.visual, list(tokens))
    half = model.visual.conv1.weight.dtype == torch.float16
    peak = {dtype: matrix_peak(device, dtype) for dtype in [torch.float32] + [torch.float16] * half}
    rates: dict[str, float | str] = {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads",
        "clip": clip_name,
        "frames_per_batch": segments,
        "peak_float32_tflops": peak[torch.float32] / 1e12,
        "peak_float16_tflops": peak[torch.float16] / 1e12 if half else NONE,
    }
    with tempfile.TemporaryDirectory() as folder:
        video = Path(video) if video else make_video(Path(folder) / "video.mp4", 20)
        seconds = max(1, int(read_audio(video, 60).seconds))
        decoding = cpu_seconds(lambda: read_squares(video, seconds, size, "crop"))
        rates["decode_frames_x_real_time_per_core"] = seconds / decoding
        rates["decode_by_seeking_x_real_time_per_core"] = seconds / cpu_seconds(lambda: seek_frames(video, seconds))
        rates["decode_audio_x_real_time_per_core"] = seconds / cpu_seconds(lambda: read_audio(video, seconds))
        samples = torch.from_numpy(read_audio(video, seconds).samples)
        rates["front_end_x_real_time_per_core"] = seconds / cpu_seconds(lambda: examples(samples))

        vggish = VGGish().eval().requires_grad_(False).to(device)
        batch = read_examples(video, segments, 1.0)[0].to(device)
        rates["vggish_examples_per_second"] = segments / wall_seconds(lambda: vggish(batch), device)
        images = read_squares(video, segments, size, "crop")[0].to(device)
        for name, chosen in {"unmerged": {}, "with_merging": merging}.items():
            taken = wall_seconds(partial(encode_frames, model, images, chosen), device)
            work = segments * flops_per_frame(model.visual, list(chosen.values()))
            rates[f"encoder_{name}_frames_per_second"] = segments / taken
            rates[f"encoder_{name}_fraction_of_peak"] = work / taken / peak[model.visual.conv1.weight.dtype]
        rates["cores_that_hide_decoding"] = rates["encoder_with_merging_frames_per_second"] * decoding / seconds
        rates |= _pipeline_rates(runtime, model, merging, video, segments, workers, Path(folder))
    return rates


def _pipeline_rates(runtime, model, merging, video, segments, workers, folder) -> dict[str, float | str]:
    """The whole on copies of one video: decoding processes, encoder, writing."""
    videos = {f"{n:02}": video for n in range(2 * workers)}
    manifests = kinds(model, "benchmark", "0" * 64, merging, segments, "crop")
    read = partial(read_squares, segments=segments, size=model.visual.input_resolution, fit="crop")
    busy = []

    def encode(images):
        begin = time.perf_counter()
        arrays = encode_video(model, images, merging)
        busy.append(time.perf_counter() - begin)
        return arrays

    begin = time.perf_counter()
    extract(runtime, videos, folder / "features", manifests, read, encode, workers)
    taken = time.perf_counter() - begin
    share = sum(busy) / taken
    return {
        "pipeline_workers": workers,
        "pipeline_videos_per_hour": 3600 * len(videos) / taken,
        "pipeline_encoder_busy_fraction": share,
        "pipeline_bound_by": "encoder" if share > 0.5 else "decoding",
    }


def random_clip(name: str, device: torch.device) -> nn.Module:
    """The visual half of a public CLIP, with random weights, in the precision that it would have on `device`."""
    output, size, blocks, width, patch = PUBLIC[name]
    model = nn.Module()
    model.visual = clip.model.VisionTransformer(size, patch, width, blocks, width // 64, output)
    if device.type == "cuda":
        clip.model.convert_weights(model)
    return model.to(device).eval().requires_grad_(False)


def flops_per_frame(visual, merging: list[tuple[int, ...]]) -> int:
    """Floating-point operations in matrix products of one frame: the unmerged pass and every schedule, prefixes shared.

    Attention projects to 3C and back (8 n C^2) and multiplies twice (4 n^2 C); the MLP widens to 4C and back
    (16 n C^2) after merging.
    """
    m, c = visual.positional_embedding.shape
    blocks = len(visual.transformer.resblocks)
    total = 2 * (m - 1) * visual.conv1.weight[0].numel() * c + 2 * c * visual.output_dim
    schedules = {(0,) * blocks, *merging}
    for depth in range(blocks):
        for done in {schedule[:depth] for schedule in schedules}:
            n = m - sum(done)
            total += 8 * n * c * c + 4 * n * n * c
        for done in {schedule[: depth + 1] for schedule in schedules}:
            total += 16 * (m - sum(done)) * c * c
    return total


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of a few large square matrix products."""
    best = 0.0
    for n in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        a = torch.randn(n, n, device=device, dtype=dtype)
        best = max(best, 2 * n**3 / wall_seconds(lambda a=a: a @ a, device, 5))
    return best


def wall_seconds(function: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Best wall-clock time of a few, after one to warm up."""
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
    return min(times[1:])


def cpu_seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """Best processor time of a few on one thread."""
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    torch.set_num_threads(threads)
    return min(times)


def make_video(path: Path, seconds: int) -> Path:
    """A clip of moving texture, 1280x720 at 25 frames a second, keyframes as far apart as x264 puts them."""
    random = np.random.default_rng(0)
    coarse = av.VideoFrame.from_ndarray(random.integers(0, 256, (90, 160, 3), dtype=np.uint8), "rgb24")
    scene = coarse.reformat(1600, 900, "rgb24", interpolation="BICUBIC").to_ndarray()
    sound = (0.1 * random.standard_normal((1, 44100 * seconds))).astype(np.float32)
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=44100, layout="mono")
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        for n in range(25 * seconds):
            x, y = (int(offset * (1 + np.sin(n / rate))) for offset, rate in ((160, 40), (90, 25)))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[y : y + 720, x : x + 1280]), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
        frame.sample_rate = 44100
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path


def seek_frames(path: Path, seconds: int) -> None:
    """The way not taken: seek to the keyframe before each middle of a second and decode from there."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for second in range(seconds):
            container.seek(int((second + 0.5) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time > second + 0.5:
                    break


@command
def main(args: list[str] | None = None) -> int:
    """Measure and print."""
    options = parse(args)
    with start(options.device, "fp32", "device") as runtime:
        rates = extraction_rates(
            runtime, options.clip, tuple(options.tokens), options.segments, options.video, options.workers
        )
    for name, value in rates.items():
        print(f"{name:<40} {value:.4g}" if isinstance(value, float) else f"{name:<40} {value}")
    if options.out:
        write_json(options.out, rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
