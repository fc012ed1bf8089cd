"""Score predictions made elsewhere by the rows of a benchmark's table: no features, no weights, no run of ours.

    python -m scripts.score FILE --benchmark music_avqa
    python -m scripts.score FILE --benchmark music_avqa --annotations other_test.json --json scores.json --out scored
    python -m scripts.score A1 A2 --compare B1 B2 --benchmark music_avqa    what B gains over A, a file for each seed

The format is told by content: our CSV, the public tab format, or JSON lines with free text. scripts/score.md has the
formats, the 42 answers, the rules by which text is read, and a sample with its output.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from configs.schema import parse as parse_config
from dataset import DATASETS
from dataset.annotations import describe, read_annotations
from dataset.config import DataConfig
from dataset.text_prompt import ANY, PromptTable
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import write_json
from utils.scoring.intervals import compare
from utils.scoring.report import report, show
from utils.scoring.submission import Submission, read_submission

EXAMPLES = 10
CONFIGS = Path(__file__).parents[1] / "configs"


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", help="predictions; several are the seeds of one model, with --compare")
    parser.add_argument("--benchmark", required=True, help="a file of configs/, such as music_avqa or avqa")
    parser.add_argument("--annotations", help="annotation file of the questions; by default the benchmark's test split")
    parser.add_argument("--compare", nargs="+", help="predictions of another model, a file for each seed")
    parser.add_argument("--json", help="file for the scores, and for what was missing or could not be read")
    parser.add_argument("--out", help="folder for predictions.csv, metrics.json and two pictures")
    options = parser.parse_args(args)
    if len(options.files) > 1 and not options.compare:
        parser.error("several files are the seeds of one model, which go with --compare")
    if options.compare and (options.json or options.out):
        parser.error("--json and --out go with one file, not with --compare")
    return options


def benchmark(name: str) -> DataConfig:
    """The data options of `configs/<name>.yaml`. Raises `UserError` where there is none."""
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
        raise UserError(f"--benchmark must be one of {there}, is {name!r}")
    return parse_config(Parser(prog=""), ["--config", str(path)])[0].data


def read_questions(data: DataConfig, annotations: str | None) -> tuple[pd.DataFrame, int]:
    """The questions of the test split, or of a file; and how many rows cannot be used, which are named.

    Raises `UserError` where there are several test splits.
    """
    files = data.files("test") if annotations is None else {"": annotations}
    if len(files) > 1:
        listed = ", ".join(f"{path} ({split})" for split, path in files.items())
        raise UserError(f"the benchmark has several test splits; say which with --annotations: {listed}")
    (path,) = files.values()
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; python -m scripts.download fetches it or says where it is")
    any_question = PromptTable({ANY: ANY}, "")  # scoring reads no prompt, so any release's templates will do
    questions, faults = read_annotations(path, data.dataset, any_question)
    if faults:
        print(f"{path}: {describe(faults)}")
    return questions.drop(columns=["template", "prompt"]), len(faults)


def tell(submission: Submission) -> None:
    """Say which questions have no answer, or one that cannot be read."""
    predictions, missing, unmapped, surplus = submission
    unanswered = f"of {len(predictions)} questions are not answered and count as wrong"
    for ids, what in ((surplus, "answers are to rows that were left out"), (missing, unanswered)):
        if ids:
            print(f"\n{len(ids)} {what}: {', '.join(ids[:EXAMPLES])}{', ...' if len(ids) > EXAMPLES else ''}")
    if unmapped:
        print(f"\n{len(unmapped)} answers cannot be read as one of the benchmark's and count as wrong:")
        for question, text in list(unmapped.items())[:EXAMPLES]:
            print(f"  question {question}: {text!r}")
        if len(unmapped) > EXAMPLES:
            print("  ... (--json lists all)")


@command
def main(args: list[str] | None = None) -> None:
    """Read, match, score."""
    options = parse(args)
    data = benchmark(options.benchmark)
    dataset = DATASETS[data.dataset]
    questions, left_out = read_questions(data, options.annotations)
    answers = partial(dataset.vocabulary, {"test": questions})
    ours, others = (
        [read_submission(file, questions, answers, dataset.read_answer, left_out) for file in files or []]
        for files in (options.files, options.compare)
    )
    if others:
        for file, submission in zip([*options.files, *options.compare], [*ours, *others], strict=True):
            if submission.missing or submission.unmapped:
                print(f"\n{file}", end="")
                tell(submission)
        print(f"a: the mean of {len(ours)} predictions files, b: of {len(others)}; % and, of b - a, percentage points")
        a, b = ([each.predictions for each in side] for side in (ours, others))
        table = compare(a, b, dataset.columns)
        print(table.to_string(float_format="{:.2f}".format, formatters={"p": "{:.2g}".format}))
        print(
            "low to high: 95 % interval; p: two-sided, of that row alone\n"
            "(over other videos, and over other seeds where a side has several)"
        )
        return
    (one,), published = ours, {} if data.truth else dataset.published
    shown = (one.predictions, Path(options.files[0]).stem, dataset.columns)
    if options.out:
        metrics = report(*shown, Path(options.out), published, dataset.published_questions)
    else:
        metrics = show(*shown, published, dataset.published_questions)
    tell(one)
    if options.json:
        listed = [{"question_id": question, "answer": text} for question, text in one.unmapped.items()]
        found = {"benchmark": options.benchmark, "missing": one.missing, "unmapped": listed}
        write_json(options.json, found | metrics)


if __name__ == "__main__":
    main()
