"""The benchmark's figures as text, and as hours and bytes at scale."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from dataset.loader import SPARE
from scripts.benchmark.data import FULL, video_bytes

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
        found = results["data"]["rates"]["packed, from disk, in a window"]
        read = found["questions_per_second"] * found["bytes_per_question"] / a_video  # videos a second
        learn = min(step, read * max(1, dataset.train / dataset.videos))  # training reads a video once an epoch
        check = min(answer, read)
        bound = "the disk" if learn < step else "the step"
    seconds = EPOCHS * (dataset.train / learn + dataset.val / check)
    return row | {"train_hours": seconds / 3600, "train_bound": bound}


def fastest(measured: Results, kind: str = "") -> Results:
    """Ours in the fastest precision, as it is by default: not compiled. At the shapes of MUSIC-AVQA, or `kind` AVQA."""
    ours = [name for name in measured if name.startswith("ours") and name.endswith("AVQA") == bool(kind)]
    ours = [name for name in ours if not name.endswith("compiled")]
    return min((measured[name] for name in ours), key=lambda found: found["seconds"])


def _residency(needed: int, machine: Results) -> str:
    """Where the loader would keep so many bytes of features, with as much memory free as there was."""
    if needed <= SPARE * machine["available_device_memory"]:
        return "memory" if machine["type"] == "cpu" else "device"
    return "memory" if needed <= SPARE * machine["available_memory"] else "disk"


def tables(results: Results) -> str:
    """Whatever parts of the results are given, for the terminal."""
    parts = {
        "machine": _machine_lines,
        "peak": _peak_lines,
        "fastest": _fastest_lines,
        "train": _train_lines,
        "compile": _compile_lines,
        "stages": _stage_lines,
        "attention": _attention_lines,
        "evaluation": _evaluation_lines,
        "data": _data_lines,
        "memory": _memory_lines,
        "epochs": _epochs_lines,
        "extraction": _extraction_lines,
        "scale": _scale_lines,
    }
    return "\n".join(line for name, lines in parts.items() if name in results for line in lines(results[name]))


def _machine_lines(machine: Results) -> Iterator[str]:
    memory = f"{machine['memory'] / 1e9:.0f} GB of memory, {machine['available_memory'] / 1e9:.0f} GB of it free"
    yield f"{machine['device']}, {machine['threads']} threads on {machine['cores']} cores, {memory}"
    yield f"torch {machine['torch']}; {machine['load']:.1f} processes were running on average when this began"


def _peak_lines(peak: Results) -> Iterator[str]:
    yield "\nlimits"
    for name, value in peak.items():
        what, unit = ("copying memory", "GB/s") if name == "copy" else (f"{name} matrix products", "GFLOP/s")
        yield f"{what:<28}{value / 1e9:10.1f} {unit}"


def _fastest_lines(fastest: Results) -> Iterator[str]:
    for precision, name in fastest.items():
        yield f"the fastest of {precision}: {name.removeprefix(f'{precision}, ')}"


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
    yield f"\n{'training step':<28}{'questions/s':>12}{_heads(*WORK, *parts)}"
    for name, found in steps.items():
        in_parts = "".join(f"{found['parts'][part]:10.4f}" for part in parts if found["parts"])  # recorded: all in one
        yield f"{name:<28}{found['questions_per_second']:12.1f}{_work(found)}{in_parts}"
    ours = steps["ours, fp32"]
    for name, found in steps.items():
        if name.startswith("plain"):
            best, median = (found[key] / ours[key] for key in ("seconds", "median"))
            yield f"ours, fp32, is {best:.1f} times as fast as {name} (by medians {median:.1f})"
    for name, found in steps.items():
        if "kernels" in found:
            busy = f"{found['busy_seconds'] * 1000:.2f} of {found['seconds'] * 1000:.2f} ms"
            yield f"{name}: {found['kernels']:.0f} kernels keep the GPU busy for {busy}"


def _compile_lines(compiling: Results) -> Iterator[str]:
    if "seconds" in compiling:
        yield f"compiling takes {compiling['seconds']:.0f} s, the first step with it"
    else:
        yield f"compiled: {NONE}, {compiling['not_measured']}"


def _stage_lines(stages: Results) -> Iterator[str]:
    yield f"\n{'by stage*':<28}{_heads(*WORK, 'FLOP/byte')}"
    for name, found in stages.items():
        yield f"{name.removeprefix('stage '):<28}{_work(found)}{found['flops'] / found['bytes']:10.1f}"
    yield "* each forward and backward by itself; dropout is a part of context, spatial and grounding"


def _attention_lines(attention: Results) -> Iterator[str]:
    yield f"\n{'attention of context*':<40}{_heads('seconds', 'median', 'worst')}"
    for name, found in attention.items():
        yield f"{name.removeprefix('attention '):<40}" + _spread(found)
    yield "* its self-attention with either at its heart, in training, forward and backward"


WORK = ("seconds", "median", "worst", "GFLOP", "GB", "of peak")


def _heads(*names: str) -> str:
    return "".join(f"{name:>10}" for name in names)


def _spread(found: Results) -> str:
    return "".join(f"{found[key]:10.4f}" for key in ("seconds", "median", "worst"))


def _work(found: Results) -> str:
    return f"{_spread(found)}{found['flops'] / 1e9:10.1f}{found['bytes'] / 1e9:10.2f}{found['share_of_peak']:10.1%}"


COMPARED = (  # packed and plain: as each is used, then in the same order
    ("from disk, in a window", "from disk, shuffled"),
    ("from disk, in a window", "from disk, in a window"),
    ("from disk, shuffled", "from disk, shuffled"),
    ("cached", "cached"),
)


def _data_lines(data: Results) -> Iterator[str]:
    where = "holes, so nothing came from a disk" if data["sparse"] else f"{data['bytes_on_disk'] / 1e9:.1f} GB on disk"
    size = f"{data['bytes_of_files'] / 1e9:.1f} GB of files, {where}"
    yield f"\n{data['videos']:,} videos, {data['questions']:,} questions, {size}; {data['workers']} workers"
    yield f"{'reading alone*':<32}{'questions/s':>12}{_heads('median', 'worst', 'videos', 'MB', 'MB/s')}"
    for name, found in data["rates"].items():
        rate, median, worst = (found[f"{key}questions_per_second"] for key in ("", "median_", "worst_"))
        videos, size = found["videos_per_question"], found["bytes_per_question"] / 1e6
        yield f"{name:<32}{rate:12.1f}{median:10.1f}{worst:10.1f}{videos:10.2f}{size:10.2f}{rate * size:10.0f}"
    yield "* videos and MB: of a question, each video read once"
    for packed, plain in COMPARED:
        ours, theirs = data["rates"][f"packed, {packed}"], data["rates"][f"plain, {plain}"]
        best, median = (ours[key] / theirs[key] for key in ("questions_per_second", "median_questions_per_second"))
        yield f"packed, {packed}, is {best:.1f} times as fast as plain, {plain} (by medians {median:.1f})"
    heads = _heads("seconds", "median", "worst", "waiting", "of it", "at worst", "first")
    yield f"\n{'training step fed from*':<28}{heads}  order"
    for name, found in data["fed"].items():
        if "does_not_fit" in found:
            yield f"{name:<28}{NONE}, {found['does_not_fit']}"
        else:
            waiting = "".join(f"{found[key]:10.2%}" for key in ("waiting_share", "worst_waiting_share"))
            waiting = f"{found['waiting_seconds']:10.5f}{waiting}{found['first_batch_seconds']:10.3f}"
            yield f"{name:<28}{_spread(found)}{waiting}  {found['order']}"
    yield "* waiting for the batch is a part of the step; for the first one, before anything was read ahead, it is not"


def _memory_lines(memory: Results) -> Iterator[str]:
    yield f"\nmost GB held, training with {memory['feature_bytes'] / 1e9:.2f} GB of features kept in"
    for place, peaks in memory["peak_gb"].items():
        yield f"{place:<28}" + ", ".join(f"{where} {peak:.2f}" for where, peak in peaks.items())


def _epochs_lines(found: Results) -> Iterator[str]:
    train, val = found["questions"]
    yield f"\ntrain.py: {train:,} training and {val:,} validation questions about {found['videos']:,} videos"
    held = ", ".join(f"{where} {peak:.2f}" for where, peak in found["peak_gb"].items())
    yield f"{found['precision']}, {found['place']}; most GB held: {held}"
    first, later, steps = (found[f"{which}_seconds"] for which in ("first_epoch", "epoch", "train"))
    yield f"{found['epochs']} epochs in {found['seconds']:.1f} s; the first, with the start, {first:.1f} s"
    yield f"each later one in {later:.2f} s, of which {steps:.2f} s are training steps"


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
