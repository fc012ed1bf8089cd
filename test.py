"""Score a trained model, or predictions made elsewhere, by the rows of Table 1.

    python test.py --run runs/bandstand                       the best checkpoint of a run, on its test split
    python test.py --checkpoint FILE --data.features DIR      any option of the stored configuration may be overridden
    python test.py --predictions FILE                         our CSV; needs neither features nor weights
    python test.py --predictions FILE --annotations test.json the public format: indices, joined with the annotation
    python test.py --predictions FILE --compare OTHER         what OTHER gains, with its 95 % interval over videos

Writes predictions.csv, metrics.json, confusion.png and accuracy.png; a folder each where data.test names several files.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from configs.stored import StoredRun, open_run
from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.config import DataConfig
from dataset.loader import Loader
from dataset.text_prompt import ANY, PromptTable
from utils.errors import command
from utils.progress import tqdm
from utils.scoring.evaluation import Answers, answer, in_batches
from utils.scoring.grounding import pointing, selection, truth_of
from utils.scoring.metrics import accuracy_row, compare, judge, most_frequent, random_choice
from utils.scoring.predictions import read_predictions
from utils.scoring.report import report


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the options, and those that override a stored configuration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder of train.py; its best.pt is tested")
    what.add_argument("--checkpoint", help="a checkpoint file")
    what.add_argument("--predictions", help="a predictions file, ours or in the public format")
    parser.add_argument("--annotations", help="annotation file, for predictions in the public format")
    parser.add_argument("--compare", help="second predictions file")
    parser.add_argument("--dataset", choices=list(DATASETS), default="music_avqa", help="what --predictions answer")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="the questions to answer")
    parser.add_argument(
        "--out", help="folder for the results; by default a folder named as the split, beside the input"
    )
    options, overrides = parser.parse_known_args(arguments)
    if not options.predictions and (options.annotations or options.compare):
        parser.error("--annotations and --compare go with --predictions")
    if options.predictions and overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    return options, overrides


def test_run(path: Path, split: str, overrides: list[str], out: Path) -> None:
    """Answer a split with a stored model and report it, with what it looked at where there is truth."""
    with open_run(path, split, overrides) as run:
        config, data = run.config, run.data
        print(*config.notes, *data.notes, sep="\n", end="\n" if config.notes or data.notes else "")
        dataset = DATASETS[config.data.dataset]
        loader = Loader(data, run.runtime, config.data.residency, config.data.workers)
        for name, asked in data.splits.items():
            orders = tqdm(in_batches(range(len(asked)), config.train.batch_size), desc=name, leave=False, delay=1)
            batches = loader.batches(asked, orders)
            looks = config.data.truth is not None
            answers = answer(run.model, batches, config.train.precision, run.runtime.device, looks)
            print_baselines(asked.questions, config.data)
            report(
                judge(asked.questions, data.vocabulary.words(answers.classes)),
                path.parent.name,
                dataset.columns,
                out if len(data.splits) == 1 else out / name,
                {} if config.data.truth else dataset.published,
                dataset.published_questions,
                measure(run, name, answers) if config.data.truth else None,
            )


def measure(run: StoredRun, split: str, answers: Answers) -> dict[str, pd.DataFrame]:
    """When and where the model looked against the truth files; nothing where it has no selection."""
    config, data, asked = run.config, run.data, run.data.splits[split]
    columns = DATASETS[config.data.dataset].columns
    truth = truth_of(config.data.truth, asked.questions)
    tables = {}
    if "selected" in answers.looked:
        frames = data.store.read("frame", data.videos)[asked.video]  # (Q, T, Df)
        prompts = data.text[asked.prompt]  # (Q, Dq)
        tables["segment selection"] = selection(asked.questions, columns, truth, answers.looked, frames, prompts)
    if "token_weights" in answers.looked and not data.store.manifests:
        print("no pointing game: the public layout does not tell which patches are in a token")
    elif "token_weights" in answers.looked:
        patches = data.store.read_source(data.videos)  # (V, T, 1 + P)
        fit = data.store.manifests["token"]["fit"]
        stored = (patches[video] for video in asked.video)
        tables["pointing game"] = pointing(asked.questions, columns, truth, answers.looked, stored, fit)
    return tables


def print_baselines(questions: pd.DataFrame, config: DataConfig) -> None:
    """Print what answers without looking reach: the most frequent of the training questions, and chance."""
    columns = DATASETS[config.dataset].columns
    if "choices" in questions:
        print(f"random choice among those offered: {random_choice(questions):.2f} %")
    if not Path(config.train).exists():
        print(f"most frequent answer: not known, {config.train} is not at hand")
        return
    train = read_annotations(config.train, config.dataset, PromptTable.read(config.prompts, config.sheet)).questions
    for name, by in (("most frequent answer", []), ("most frequent answer of each template", ["template"])):
        print(f"{name}: {accuracy_row(most_frequent(train, questions, by), columns)['All']:.2f} %")


def read_scored(path: str, annotations: str | None, dataset: str) -> pd.DataFrame:
    """Read a predictions file of either format; the public one needs the annotation file."""
    questions = answers = None
    if annotations:
        any_question = PromptTable({ANY: ANY}, "")  # scoring reads no prompt, so any release's templates will do
        questions = read_annotations(annotations, dataset, any_question).questions
        answers = DATASETS[dataset].vocabulary({"test": questions})
    return read_predictions(path, questions, answers)


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, score, report."""
    options, overrides = parse(sys.argv[1:] if arguments is None else arguments)
    if not options.predictions:
        path = Path(options.checkpoint or Path(options.run) / "best.pt")
        test_run(path, options.split, overrides, Path(options.out or path.parent / options.split))
        return
    dataset, path = DATASETS[options.dataset], Path(options.predictions)
    scored = read_scored(options.predictions, options.annotations, options.dataset)
    if options.compare:
        other = read_scored(options.compare, options.annotations, options.dataset)
        print(compare(scored, other, dataset.columns).round(2).to_string())
        return
    out = Path(options.out or path.parent / f"{path.stem}_scored")
    report(scored, path.stem, dataset.columns, out, dataset.published, dataset.published_questions)


if __name__ == "__main__":
    main()
