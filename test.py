"""Score a trained model by the rows of Table 1. Predictions made elsewhere: `python -m scripts.score`.

    python test.py --run runs/bandstand                       the best checkpoint of a run, on its test split
    python test.py --checkpoint FILE --data.features DIR      any option of the stored configuration may be overridden

Writes predictions.csv, metrics.json, confusion.png, accuracy.png, errors_by_template.csv and, where there is truth,
grounding.csv; a folder each where data.test names several files, whose rows are printed together at the end.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from configs.stored import StoredRun, model_file, open_run
from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.config import DataConfig
from dataset.loader import Loader
from dataset.text_prompt import PromptTable
from utils.checkpoint import weights_sha256
from utils.cli import PlainParser
from utils.errors import UserError, command
from utils.progress import tqdm
from utils.scoring.evaluation import Answers, answer, at_once
from utils.scoring.grounding import Scores, pointing, selection, true_segments, truth_of
from utils.scoring.metrics import accuracy_row, judge, most_frequent, random_choice
from utils.scoring.paper import format_table
from utils.scoring.report import report


def test_run(path: Path, split: str, overrides: list[str], out: Path) -> None:
    """Answer a split with a stored model and report it, with what it looked at where there is truth."""
    with open_run(path, split, overrides) as run:
        config, data = run.config, run.data
        print(*config.notes, *data.notes, sep="\n", end="\n" if config.notes or data.notes else "")
        dataset = DATASETS[config.data.dataset]
        truths = {name: Measures(run, name) for name in data.splits} if config.data.truth else {}
        loader = Loader(data, run.runtime, config.data.residency, config.data.workers)
        rows = {}
        for name, asked in data.splits.items():
            together = at_once(config.train.batch_size, run.runtime.device)
            batches = loader.by_video(asked, np.arange(len(asked)), together)
            batches = tqdm(batches, name, -(-len(asked) // together), leave=False, delay=1)
            answers = answer(run.model, batches, config.train.precision, run.runtime.device, looks=bool(truths))
            print_baselines(asked.questions, config.data)
            rows[name] = report(
                told(judge(asked.questions, data.vocabulary.words(answers.classes)), answers),
                path.parent.name,
                dataset.columns,
                out if len(data.splits) == 1 else out / name,
                {} if truths else dataset.published,
                dataset.published_questions,
                partial(truths[name].of, answers.looked) if truths else dict,
                weights_sha256(run.model.state_dict()),
            )["accuracy"]
        if len(rows) > 1:
            print(f"\n{format_table(dataset.columns, rows, {})}")


def told(predictions: pd.DataFrame, answers: Answers) -> pd.DataFrame:
    """The predictions with what the model tells of each: the probability of its answer, the segments it selected."""
    predictions = predictions.assign(probability=answers.probability.round(4))
    if "selected" in answers.looked:
        predictions["selected"] = [" ".join(map(str, segments)) for segments in answers.looked["selected"]]
    return predictions


class Measures:
    """When and where a model looked against the truth files, which are read and checked before it answers."""

    def __init__(self, run: StoredRun, split: str):
        self.run, self.asked = run, run.data.splits[split]
        self.truth = truth_of(run.config.data.truth or "", self.asked.questions)
        self.true = true_segments(self.asked.questions, self.truth, run.config.data.segments)

    def of(self, looked: Mapping[str, np.ndarray]) -> dict[str, Scores]:
        """The scores of each question, by measure; none where the model has no selection."""
        data, asked = self.run.data, self.asked
        measures = {}
        if "selected" in looked:
            frames = data.store.read("frame", data.videos)[asked.video]  # (Q, T, Df)
            measures["segment selection"] = selection(self.true, looked, frames, data.text[asked.prompt])
        if "token_weights" in looked and not data.store.tells_patches:
            print("no pointing game: features that were made elsewhere do not tell which patches are in a token")
        elif "token_weights" in looked:
            patches = data.store.read_source(data.videos)  # (V, T, 1 + P)
            stored, fit = (patches[video] for video in asked.video), data.store.manifests["token"]["fit"]
            videos = asked.questions["video_id"].tolist()
            measures["pointing game"] = pointing(videos, self.truth, looked, stored, fit)
        return measures


def print_baselines(questions: pd.DataFrame, config: DataConfig) -> None:
    """Print what answers without looking reach: the most frequent of the training questions, and chance."""
    columns = DATASETS[config.dataset].columns
    if "choices" in questions:
        print(f"random choice among those offered: {random_choice(questions):.2f} %")
    try:
        train = read_annotations(config.train, config.dataset, PromptTable.read(config.prompts, config.sheet)).questions
    except UserError as error:  # the answers do not need it
        print(f"most frequent answer: not known, {error}")
        return
    for name, by in (("most frequent answer", []), ("most frequent answer of each template", ["template"])):
        print(f"{name}: {accuracy_row(most_frequent(train, questions, by), columns)['All']:.2f} %")


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, score, report."""
    parser = PlainParser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder of train.py, whose best.pt is tested, or a released model")
    what.add_argument("--checkpoint", help="a checkpoint file")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="the questions to answer")
    parser.add_argument(
        "--out", help="folder for the results; by default a folder named as the split, beside the input"
    )
    options, overrides = parser.parse_known_args(arguments)
    path = Path(options.checkpoint) if options.checkpoint else model_file(Path(options.run))
    test_run(path, options.split, overrides, Path(options.out or path.parent / options.split))


if __name__ == "__main__":
    main()
