"""Figure 4 of the paper from any run: when and where the model looked, for a few questions of a split.

    python -m scripts.visualize --run runs/bandstand --videos data/bandstand/videos
    python -m scripts.visualize --run runs/bandstand --videos data/bandstand/videos --questions 12 45 --out two.png
    python -m scripts.visualize --run runs/a --run runs/b --videos data/bandstand/videos    # the same questions to both

Without --questions a few are drawn by --seed, of as many types as can be; where truth files tell in which segments a
prompt is true, from the questions for which these are neither none nor all. Any option of the stored configurations may
be overridden, such as --train.device cpu.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jsonargparse.typing import PositiveInt

from configs.stored import StoredRun, model_file, open_run
from dataset.loader import Loader
from feat_script.media import MediaError, read_frames
from feat_script.pipeline import find_videos
from utils.cli import PlainParser
from utils.errors import UserError, command
from utils.scoring.evaluation import choose, looked_at, perceive
from utils.scoring.figure4 import Example, draw
from utils.scoring.geometry import Look, thumbnail
from utils.scoring.grounding import patches_of, sounding_boxes, true_segments, truth_of
from utils.scoring.metrics import judge


def pick(questions: pd.DataFrame, true: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    """Positions of `count` questions drawn by `seed`: one of each type in turn, then a second of each, and so on.

    Where the true segments (Q, T) are known, those with none or all true are drawn only if there is no other question.
    """
    drawn = questions.reset_index(drop=True)
    if true is not None:
        (partly,) = np.nonzero(true.any(axis=1) & ~true.all(axis=1))
        drawn = drawn.iloc[partly] if len(partly) else drawn
    drawn = drawn.sample(frac=1, random_state=seed)
    turn = drawn.groupby(["modality", "type"]).cumcount()
    return turn.sort_values(kind="stable").index[:count].to_numpy()


def find(questions: pd.DataFrame, wanted: list[str], source: str) -> np.ndarray:
    """Positions of the questions with the ids `wanted`. Raises `UserError` for one that `source` has not."""
    position = {name: row for row, name in enumerate(questions["question_id"])}
    if absent := [name for name in wanted if name not in position]:
        some = ", ".join(list(position)[:3])
        raise UserError(f"{source}: has no question {', '.join(absent)}; there are {len(position)}, such as {some}")
    return np.array([position[name] for name in dict.fromkeys(wanted)])


def look(run: StoredRun, split: str, rows: np.ndarray, videos: dict[str, Path], model: str = "") -> list[Example]:
    """Ask the questions at `rows` of a split and keep what the model looked at. Raises `UserError` as `frames_of`."""
    config, data, asked = run.config, run.data, run.data.splits[split]
    loader = Loader(data, run.runtime, "disk", 1)  # a few videos; the rest stays where it is
    ((batch, seen),) = perceive(run.model, loader.batches(asked, [rows]), config.train.precision, run.runtime.device)
    looked = looked_at(seen)
    if "selected" not in looked:
        raise UserError(f"{config.out}: the network {config.model.network} selects no segments; there is none to draw")
    questions = asked.questions.iloc[rows]
    predictions = judge(questions, data.vocabulary.words(choose(seen.logits.float(), batch.choices).tolist()))
    truth = truth_of(config.data.truth, questions) if config.data.truth else {}
    manifests = data.store.manifests
    fit = manifests.get("token", manifests.get("frame", {})).get("fit") or ""
    stored = None
    if "token_weights" in looked and data.store.tells_patches:
        stored = data.store.read_source(list(questions["video_id"]))
    elif "token_weights" in looked:
        print("no heat maps: features that were made elsewhere do not tell which patches are in a token")

    examples = []
    answered = zip(predictions.to_dict("records"), looked["segment_weights"], looked["selected"], strict=True)
    for (row, weights, selected), (segments, maps) in zip(answered, patches_of(looked, stored), strict=True):
        told = truth.get(row["video_id"])
        looks = []
        pictures = frames_of(row["video_id"], videos, segments)
        for segment, (second, picture), patches in zip(segments, pictures, maps, strict=True):
            boxes = _boxes(told, segment, picture) if told else []
            looks.append(Look(second, picture, patches, fit, boxes))
        examples.append(
            Example(
                heading=f"{row['modality']}, {row['type']}; question {row['question_id']}, video {row['video_id']}",
                question=row["question"],
                prompt=row["prompt"] if config.data.query == "prompt" else "(the question itself)",
                prediction=row["prediction"],
                answer=row["answer"],
                correct=row["correct"],
                weights=weights,
                selected=selected.tolist(),
                true=told["questions"][row["question_id"]]["segments"] if told else None,
                looks=looks,
                model=model,
            )
        )
    return examples


def _boxes(told: dict[str, Any], segment: int, picture: np.ndarray) -> list[list[float]]:
    """Boxes of the performers sounding in a segment, in pixels of a picture that may be smaller than the video's."""
    height, width = picture.shape[:2]
    scale = np.tile([width, height], 2) / np.tile(told["frame"], 2)
    return [(box * scale).tolist() for box in sounding_boxes(told, segment)]


def frames_of(video: str, videos: dict[str, Path], segments: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The seconds and frames of some segments, as large as they are drawn; beyond its end a video's last second.

    Raises `UserError` for a video that is not there or cannot be read.
    """
    if video not in videos:
        some = next(iter(videos.values()))
        raise UserError(f"--videos: holds no video {video!r} among {len(videos)}, such as {some}")
    try:
        frames = read_frames(videos[video], int(segments.max()) + 1, thumbnail)
    except MediaError as error:
        raise UserError(f"{videos[video]}: {error}") from error
    return [(min(segment, frames.own - 1), np.asarray(frames.images[segment])) for segment in segments.tolist()]


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, ask, draw."""
    parser = PlainParser(__doc__)
    parser.add_argument(
        "--run", required=True, type=Path, action="append", help="run folder of train.py, or a released model; several"
    )
    parser.add_argument("--names", nargs="+", help="of several runs, in their order (default: the folders' names)")
    parser.add_argument("--videos", required=True, help="folder of the videos")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="the questions to choose from")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--questions",
        nargs="+",
        action="extend",
        metavar="ID",
        help="questions to draw; --questions=-1 for an id of -1",
    )
    which.add_argument("--examples", type=PositiveInt, default=4, help="how many to draw by --seed")
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw")
    parser.add_argument(
        "--out", help="the picture; by default figure4.png, of several runs figure4_compared.png in the first"
    )
    options, overrides = parser.parse_known_args(arguments)

    runs: list[Path] = options.run
    names = options.names or [run.resolve().name for run in runs]
    if len(names) != len(runs):
        raise UserError(f"--names: {len(names)} for {len(runs)} runs")
    videos, wanted, by_run = find_videos(options.videos), options.questions, []
    for path, name in zip(runs, names, strict=True):
        with open_run(model_file(path), options.split, overrides) as run:
            print(*run.data.notes, sep="\n", end="\n" if run.data.notes else "")
            config, split = run.config, next(iter(run.data.splits))
            questions, source = run.data.splits[split].questions, config.data.files(options.split)[split]
            if wanted is None:
                true = None
                if config.data.truth:
                    truth = truth_of(config.data.truth, questions)
                    true = true_segments(questions, truth, config.data.segments)
                picked = pick(questions, true, options.examples, options.seed)
                wanted = questions["question_id"].iloc[picked].tolist()
            by_run.append(look(run, split, find(questions, wanted, source), videos, name))
    one = len(runs) == 1
    out = Path(options.out or runs[0] / ("figure4.png" if one else "figure4_compared.png"))
    draw([*zip(*by_run, strict=True)], names[0] if one else "", out)
    print(f"{out}: questions {', '.join(dict.fromkeys(wanted))} of {source}")


if __name__ == "__main__":
    main()
