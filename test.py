"""Score a trained model, or predictions made elsewhere, by the rows of Table 1.

    python test.py --run runs/bandstand                       the best checkpoint of a run, on its test split
    python test.py --checkpoint FILE --data.features DIR      any option of the stored configuration may be overridden
    python test.py --predictions FILE                         our CSV; needs neither features nor weights
    python test.py --predictions FILE --annotations test.json the public format: indices, joined with the annotation
    python test.py --predictions FILE --compare OTHER         what OTHER gains, with its 95 % interval over videos

Writes predictions.csv, metrics.json, confusion.png and accuracy.png.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from configs.schema import Config
from configs.stored import open_run
from dataset.annotations import read_annotations
from dataset.answers import MUSIC_AVQA_ANSWERS
from dataset.config import DataConfig
from dataset.data import Data, Split
from dataset.loader import Loader
from dataset.text_prompt import ANY, PromptTable
from utils.errors import command
from utils.files import write_json
from utils.scoring.evaluation import choose, in_batches, perceive
from utils.scoring.grounding import heat_maps, pointing_table, selection_table, true_segments, truth_of
from utils.scoring.metrics import (
    accuracy_row,
    bootstrap_interval,
    compare,
    is_music_avqa,
    judge,
    most_frequent,
    random_choice,
)
from utils.scoring.paper import TABLE1, format_table1, format_table7
from utils.scoring.plots import accuracy_bars, confusion_matrix
from utils.scoring.predictions import read_predictions, write_predictions

PAPER_QUESTIONS = 9129  # of MUSIC-AVQA's test split, by question


def test_checkpoint(
    path: Path, split: str, overrides: list[str]
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], Config]:
    """Answer a split with a stored model: predictions, grounding measures (where there is truth), configuration."""
    with open_run(path, split, overrides) as (config, data, model, runtime):
        for note in data.notes:
            print(note)
        loader = Loader(data, runtime, config.data.residency, config.data.workers)
        asked = data.splits[split]
        classes, looked = [], defaultdict(list)
        orders = in_batches(np.arange(len(asked)), config.train.batch_size)
        orders = tqdm(orders, desc=split, leave=False, delay=1)
        for batch, seen in perceive(model, loader.batches(asked, orders), config.train.precision, runtime.device):
            classes += choose(seen.logits.float(), batch.choices).tolist()
            if config.data.truth:
                for name, value in seen._asdict().items():
                    if value is not None:
                        looked[name].append((value.float() if value.is_floating_point() else value).cpu().numpy())
    _print_baselines(asked.questions, config.data)
    predictions = judge(asked.questions, data.vocabulary.words(classes))
    arrays = {name: np.concatenate(parts) for name, parts in looked.items()}
    return predictions, _ground(arrays, asked, data, config) if "selected" in arrays else {}, config


def _ground(looked: dict[str, np.ndarray], asked: Split, data: Data, config: Config) -> dict[str, pd.DataFrame]:
    """When and where the model looked against the truth files; beside it, what CLIP's own similarity would select."""
    questions, store, top_k = asked.questions, data.store, looked["selected"].shape[1]
    truth = truth_of(config.data.truth, questions)
    pictures = store.read("frame", data.videos)[asked.video].astype(np.float32)  # (Q, T, Df)
    cosine = np.einsum("qtd,qd->qt", pictures, data.text[asked.prompt]) / np.linalg.norm(pictures, axis=-1)
    ranked = {"zero-shot": cosine, "model": looked["segment_weights"]}
    selected = {"zero-shot": np.argsort(-cosine, axis=1)[:, :top_k], "model": looked["selected"]}
    true = true_segments(questions, truth, config.data.segments)
    tables = {"segment selection": selection_table(questions, true, ranked, selected)}
    if "token_weights" in looked and not store.manifests:
        print("no pointing game: the public layout does not tell which patches are in a token")
    elif "token_weights" in looked:
        patches = store.read_source(data.videos)  # (V, T, 1 + P)
        frames = looked["selected"]
        if config.model.spm_frames == "first_k":
            frames = np.broadcast_to(np.arange(top_k), frames.shape)
        attended = {"model": looked["token_weights"], "chance": np.ones_like(looked["token_weights"])}
        heat = {
            name: heat_maps(weights, looked["token_source"], frames, (patches[video] for video in asked.video))
            for name, weights in attended.items()  # small tokens peak where all weigh the same: that is chance
        }
        tables["pointing game"] = pointing_table(questions, truth, frames, heat, store.manifests["token"]["fit"])
    return tables


def _print_baselines(questions: pd.DataFrame, config: DataConfig) -> None:
    """Print what answers without looking reach: the most frequent of the training questions, and chance."""
    if "choices" in questions:
        print(f"random choice among the four: {random_choice(questions):.2f} %")
    if not Path(config.train).exists():
        print(f"most frequent answer: not known, {config.train} is not at hand")
        return
    train = read_annotations(config.train, config.dataset, PromptTable.read(config.prompts, config.sheet)).questions
    for name, by in (("most frequent answer", []), ("most frequent answer of each template", ["template"])):
        print(f"{name}: {accuracy_row(most_frequent(train, questions, by))['All']:.2f} %")


def read_scored(path: str, annotations: str | None) -> pd.DataFrame:
    """Read a predictions file of either format; the public one needs MUSIC-AVQA's annotation file."""
    questions = None
    if annotations:
        any_question = PromptTable({ANY: ANY}, "")  # scoring reads no prompt, so any release's templates will do
        questions = read_annotations(annotations, "music_avqa", any_question).questions
    return read_predictions(path, questions, MUSIC_AVQA_ANSWERS)


def report(
    predictions: pd.DataFrame,
    name: str,
    beside_paper: bool,
    out: Path,
    grounding: dict[str, pd.DataFrame] | None = None,
) -> None:
    """Print the row of Table 1 (AVQA: Table 7) and the grounding measures; write all, with pictures, into `out`."""
    row, interval = accuracy_row(predictions), bootstrap_interval(predictions)
    music = is_music_avqa(predictions)
    print((format_table1 if music else format_table7)({name: row}, beside_paper))
    low, high = interval["All"]
    print(
        f"\n{len(predictions)} questions, {row['All']:.2f} % correct, 95 % interval over videos {low:.2f} to {high:.2f}"
    )
    same_questions = music and beside_paper and len(predictions) == PAPER_QUESTIONS
    if music and beside_paper and not same_questions:
        print(f"The paper's rows are for {PAPER_QUESTIONS} questions; these are {len(predictions)}.")
    metrics = {"questions": len(predictions), "accuracy": row, "interval95": interval}
    for measure, table in (grounding or {}).items():
        shown = table.round(1).to_string() if len(table) else "no question to measure it on"
        print(f"\n{measure}, % (n questions)\n{shown}")
        metrics[measure] = table.to_dict("index")
    write_predictions(out / "predictions.csv", predictions)
    write_json(out / "metrics.json", metrics)
    confusion_matrix(predictions, out / "confusion.png")
    accuracy_bars(predictions, out / "accuracy.png", TABLE1["TSPM"] if same_questions else None)
    print(
        "\nwrote",
        ", ".join(str(out / file) for file in ("predictions.csv", "metrics.json", "confusion.png", "accuracy.png")),
    )


@command
def main() -> None:
    """Read the command line, score, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder of train.py; its best.pt is tested")
    what.add_argument("--checkpoint", help="a checkpoint file")
    what.add_argument("--predictions", help="a predictions file, ours or in the public format")
    parser.add_argument("--annotations", help="annotation file, for predictions in the public format")
    parser.add_argument("--compare", help="second predictions file")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="the questions to answer")
    parser.add_argument(
        "--out", help="folder for the results; by default a folder named as the split, beside the input"
    )
    options, overrides = parser.parse_known_args()
    if not options.predictions and (options.annotations or options.compare):
        parser.error("--annotations and --compare go with --predictions")
    if options.predictions:
        if overrides:
            parser.error(f"unrecognized arguments: {' '.join(overrides)}")
        scored = read_scored(options.predictions, options.annotations)
        if options.compare:
            print(compare(scored, read_scored(options.compare, options.annotations)).round(2).to_string())
            return
        path = Path(options.predictions)
        report(scored, path.stem, True, Path(options.out or path.parent / f"{path.stem}_scored"))
        return
    path = Path(options.checkpoint or Path(options.run) / "best.pt")
    scored, grounding, config = test_checkpoint(path, options.split, overrides)
    out = Path(options.out or path.parent / options.split)
    report(scored, path.parent.name, config.data.truth is None, out, grounding)


if __name__ == "__main__":
    main()
