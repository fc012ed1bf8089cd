"""The benchmark's figures as text, as hours and bytes at scale, and as a picture."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dataset.loader import SPARE
from scripts.benchmark_data import FULL, video_bytes
from utils.files import write_bytes
from utils.plots import BLUE, LIGHT_GREY, VERMILION

NONE = "not measured"
EPOCHS = 30
Results = dict[str, Any]


class Dataset(NamedTuple):
    """Counts that decide how long everything takes."""

    name: str
    videos: int
    segments: int
    train: int  # questions
    val: int


DATASETS = (
    Dataset("MUSIC-AVQA", 9_288, 60, 31_927, 4_568),
    Dataset("AVQA", 57_000, 10, 40_425, 16_909),
    Dataset("a million videos", 1_000_000, 60, 3_437_400, 491_800),  # as many questions a video as MUSIC-AVQA
)


def scale(results: Results) -> list[Results]:
    """Bytes, hours and bounds for each of `DATASETS`, from this run's figures alone; "not measured" where one lacks."""
    return [dataset._asdict() | _extraction(dataset, results) | _training(dataset, results) for dataset in DATASETS]


def _extraction(dataset: Dataset, results: Results) -> Results:
    if "extraction" not in results:
        return {"extract_hours": NONE, "extract_bound": NONE}
    rates, cores = results["extraction"], results["machine"]["cores"]
    seconds = dataset.videos * dataset.segments
    networks = seconds / rates["encoder_with_merging_frames_per_second"] + seconds / rates["vggish_examples_per_second"]
    stages = ("decode_frames", "decode_audio", "front_end")
    decoding = seconds * sum(1 / rates[f"{stage}_x_real_time_per_core"] for stage in stages) / cores
    on_cpu = results["machine"]["type"] == "cpu"  # there they share the cores; a GPU works while the cores decode
    return {
        "extract_hours": (networks + decoding if on_cpu else max(networks, decoding)) / 3600,
        "extract_bound": "the networks" if networks > decoding else "decoding",
    }


def _training(dataset: Dataset, results: Results) -> Results:
    a_video = video_bytes(FULL.features._replace(segments=dataset.segments))
    row = {"feature_bytes": a_video * dataset.videos, "train_hours": NONE, "train_bound": NONE}
    row["residency"] = _residency(row["feature_bytes"], results["machine"])
    if "train" not in results or "evaluation" not in results:
        return row
    kind = "AVQA" if dataset.segments == 10 else ""
    step = results["batch"] / fastest(results["train"], kind)["seconds"]
    answer = fastest(results["evaluation"], kind)["questions_per_second"]
    learn, check, bound = step, answer, "the step"
    if row["residency"] == "disk":
        if "data" not in results or results["data"]["sparse"]:
            return row
        found = results["data"]["rates"]["packed, from disk"]
        read = found["questions_per_second"] * found["bytes_per_question"] / a_video  # videos a second
        learn = min(step, read * max(1, dataset.train / dataset.videos))  # training reads a video once an epoch
        check = min(answer, read)
        bound = "the disk" if learn < step else "the step"
    seconds = EPOCHS * (dataset.train / learn + dataset.val / check)
    return row | {"train_hours": seconds / 3600, "train_bound": bound}


def fastest(measured: Results, kind: str = "") -> Results:
    """Ours in the fastest precision, at the shapes of MUSIC-AVQA or, if `kind` says so, of AVQA."""
    ours = [name for name in measured if name.startswith("ours") and name.endswith("AVQA") == bool(kind)]
    return min((measured[name] for name in ours), key=lambda found: found["seconds"])


def _residency(needed: int, machine: Results) -> str:
    """Where so many bytes of features stay between batches, if nothing else takes memory."""
    if needed <= SPARE * machine["device_memory"]:
        return "memory" if machine["type"] == "cpu" else "device"
    return "memory" if needed <= SPARE * machine["memory"] else "disk"


def tables(results: Results) -> str:
    """Whatever parts of the results are given, for the terminal."""
    parts = {
        "machine": _machine_lines,
        "peak": _peak_lines,
        "train": _train_lines,
        "stages": _stage_lines,
        "evaluation": _evaluation_lines,
        "data": _data_lines,
        "extraction": _extraction_lines,
        "scale": _scale_lines,
    }
    return "\n".join(line for name, lines in parts.items() if name in results for line in lines(results[name]))


def _machine_lines(machine: Results) -> Iterator[str]:
    memory = f"{machine['memory'] / 1e9:.0f} GB of memory"
    yield f"{machine['device']}, {machine['threads']} threads on {machine['cores']} cores, {memory}"
    yield f"torch {machine['torch']}; {machine['load']:.1f} processes were running on average when this began"


def _peak_lines(peak: Results) -> Iterator[str]:
    yield "\nlimits"
    for name, value in peak.items():
        what, unit = ("copying memory", "GB/s") if name == "copy" else (f"{name} matrix products", "GFLOP/s")
        yield f"{what:<28}{value / 1e9:10.1f} {unit}"


def _evaluation_lines(evaluation: Results) -> Iterator[str]:
    yield f"\n{'evaluation':<28}{'questions/s':>12}{'median':>10}{'worst':>10}"
    for name, found in evaluation.items():
        questions = found["questions_per_second"] * found["seconds"]
        yield f"{name:<28}" + "".join(f"{questions / found[key]:10.1f}" for key in ("seconds", "median", "worst"))


def _extraction_lines(rates: Results) -> Iterator[str]:
    yield "\nextraction"
    for name, value in rates.items():
        yield f"{name:<44}{value:10.4g}" if isinstance(value, float) else f"{name:<44}{value!s:>10}"


def _train_lines(steps: Results) -> Iterator[str]:
    parts = ("forward", "backward", "optimizer")
    yield f"\n{'training step':<28}{_heads(*WORK, *parts)}"
    for name, found in steps.items():
        yield f"{name:<28}{_work(found)}" + "".join(f"{found['parts'][part]:10.4f}" for part in parts)
    ours = steps["ours, fp32"]
    for name, found in steps.items():
        if name.startswith("plain"):
            best, median = (found[key] / ours[key] for key in ("seconds", "median"))
            yield f"ours, fp32, is {best:.1f} times as fast as {name} (by medians {median:.1f})"
    for name, found in steps.items():
        if "kernels" in found:
            busy = f"{found['busy_seconds'] * 1000:.2f} of {found['seconds'] * 1000:.2f} ms"
            yield f"{name}: {found['kernels']:.0f} kernels keep the GPU busy for {busy}"


def _stage_lines(stages: Results) -> Iterator[str]:
    yield f"\n{'by stage*':<28}{_heads(*WORK, 'FLOP/byte')}"
    for name, found in stages.items():
        yield f"{name.removeprefix('stage '):<28}{_work(found)}{found['flops'] / found['bytes']:10.1f}"
    yield "* each forward and backward by itself; dropout is a part of context, spatial and grounding"


WORK = ("seconds", "median", "worst", "GFLOP", "GB", "of peak")


def _heads(*names: str) -> str:
    return "".join(f"{name:>10}" for name in names)


def _work(found: Results) -> str:
    seconds = "".join(f"{found[key]:10.4f}" for key in ("seconds", "median", "worst"))
    return f"{seconds}{found['flops'] / 1e9:10.1f}{found['bytes'] / 1e9:10.2f}{found['share_of_peak']:10.1%}"


def _data_lines(data: Results) -> Iterator[str]:
    where = "holes, so nothing came from a disk" if data["sparse"] else f"{data['bytes_on_disk'] / 1e9:.1f} GB on disk"
    about = (
        f"{data['videos']} videos, {data['bytes_of_files'] / 1e9:.1f} GB of files, {where}; {data['workers']} workers"
    )
    yield f"\nreading alone: {about}"
    yield f"{'':<28}{'questions/s':>12}{'median':>10}{'worst':>10}{'MB each':>10}{'MB/s':>10}"
    for name, found in data["rates"].items():
        spread = "".join(f"{found[f'{key}_questions_per_second']:10.1f}" for key in ("median", "worst"))
        each = found["bytes_per_question"] / 1e6
        rate = found["questions_per_second"]
        yield f"{name:<28}{rate:12.1f}{spread}{each:10.2f}{rate * each:10.0f}"
    for place in ("from disk", "cached"):
        plain, packed = (data["rates"][f"{way}, {place}"]["questions_per_second"] for way in ("plain", "packed"))
        yield f"packed is {packed / plain:.1f} times as fast as plain, {place}"
    for name, found in data["fed_step_seconds"].items():
        spread = f"median {found['median']:.4f}, worst {found['worst']:.4f}"
        yield f"training step fed from {name:<8} {found['seconds']:.4f} s ({spread})"
    for name, why in data.get("does_not_fit", {}).items():
        yield f"training step fed from {name}: {NONE}, {why}"


def _scale_lines(rows: list[Results]) -> Iterator[str]:
    yield f"\n{'at scale':<20}{'videos':>10}{'features':>12}{'kept in':>9}  {'extraction':<26}{EPOCHS} epochs"
    for row in rows:
        extraction, training = (_hours(row[f"{what}_hours"], row[f"{what}_bound"]) for what in ("extract", "train"))
        size = f"{row['feature_bytes'] / 1e9:,.0f} GB"
        yield f"{row['name']:<20}{row['videos']:>10,}{size:>12}{row['residency']:>9}  {extraction:<26}{training}"
    yield "From this run's figures alone, with what bounds it. AVQA: 10 segments; the million: as MUSIC-AVQA's videos."


def _hours(hours: float | str, bound: str) -> str:
    if hours == NONE:
        return NONE
    return f"{hours * 60:.0f} min, {bound}" if hours < 2 else f"{hours:,.0f} h, {bound}"


def roofline(results: Results, path: str | Path) -> None:
    """Draw FLOP/s against FLOPs per byte touched, of the whole steps and of the stages of ours, to a PNG file.

    The bytes are those of all operands, so a point may lie above the slope: its operands were still in cache.
    Raises `UserError` if the file cannot be written.
    """
    stages = {name.removeprefix("stage "): found for name, found in results["stages"].items() if found["flops"]}
    steps = {name: found for name, found in results["train"].items() if not name.endswith("AVQA")}
    peak, copy = results["peak"][results["staged"].split(", ")[1]], results["peak"]["copy"]
    points = sorted([*stages.items(), *steps.items()], key=lambda point: -_rate(point[1]))
    x = [found["flops"] / found["bytes"] for _, found in points]

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    low, high = min(*x, peak / copy) / 1.5, max(*x, peak / copy) * 1.5
    bottom, top = min(_rate(found) for _, found in points) / 1.5e9, max(peak, _rate(points[0][1])) * 1.4e-9
    reach = np.geomspace(low, high, 200)
    axes.plot(reach, np.minimum(peak, copy * reach) / 1e9, color="black", linewidth=1.2)
    axes.text(low * 1.1, peak / 1e9 * 1.03, f"matrix products: {peak / 1e9:,.0f} GFLOP/s", fontsize=9, va="bottom")
    slope = peak / copy / 2.5
    axes.text(slope * 1.15, copy * slope / 1e9, f"copying memory: {copy / 1e9:,.0f} GB/s", fontsize=9, va="top")

    whole = results["train"][results["staged"]]["seconds"]
    own = [np.log(_rate(found) / 1e9 / bottom) / np.log(top / bottom) for _, found in points]
    for (name, found), at, height in zip(points, x, _apart(own, 0.06), strict=True):
        colour = BLUE if name in stages else VERMILION
        area = 20 + 600 * found["seconds"] / whole if name in stages else 60
        axes.scatter(at, _rate(found) / 1e9, area, color=colour, marker="o" if name in stages else "D", alpha=0.7)
        axes.annotate(
            f"{name}, {_duration(found['seconds'])}", (at, _rate(found) / 1e9), (1.04, height), fontsize=9,
            textcoords="axes fraction", va="center", color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set(xlim=(low, high), ylim=(bottom, top), xlabel="FLOPs per byte touched", ylabel="GFLOP/s attained")
    axes.set_title(
        f"training step of {results['batch']}: whole (diamonds), and {results['staged']} by stage", fontsize=10
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.grid(color=LIGHT_GREY)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())


def _apart(heights: list[float], gap: float) -> list[float]:
    """Descending heights in [0, 1], moved until neighbours are a gap apart."""
    moved: list[float] = []
    for height in heights:
        moved.append(min(height, moved[-1] - gap) if moved else min(height, 1.0))
    for i in reversed(range(len(moved))):
        moved[i] = max(moved[i], moved[i + 1] + gap if i + 1 < len(moved) else 0.0)
    return moved


def _rate(found: Results) -> float:
    """FLOP/s."""
    return found["flops"] / found["seconds"]


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
