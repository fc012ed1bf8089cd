"""What is printed and written of a set of predictions: a row of a table, measures, errors, two pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from utils.files import seal, sha256, write_bytes
from utils.scoring.grounding import Scores, by_column, write_grounding
from utils.scoring.intervals import intervals_of
from utils.scoring.metrics import Columns, accuracy_row
from utils.scoring.paper import Row, format_table
from utils.scoring.plots import accuracy_bars, confusion_matrix
from utils.scoring.predictions import write_predictions

VIDEOS = 5  # named of a template


def report(
    predictions: pd.DataFrame,
    name: str,
    columns: Columns,
    out: Path,
    published: Mapping[str, Mapping[str, Row]],
    published_questions: int | None = None,
    measure: Callable[[], Mapping[str, Scores]] = dict,
    model: str = "",
) -> dict[str, Any]:
    """Print the row `name` below published ones, write what there is into `out`; returns what metrics.json holds.

    predictions.csv, metrics.json, confusion.png, accuracy.png; errors_by_template.csv where templates are known; and
    grounding.csv where `measure`, which is called once the predictions are written, has scores of further measures.
    `model` is a digest of the weights that answered, which metrics.json notes.
    Where published rows are known to be for another number of questions, that is said and the picture leaves them out.
    """
    write_predictions(out / "predictions.csv", predictions)
    metrics = show(predictions, name, columns, published, published_questions)
    others = published_questions not in (None, len(predictions))
    written = ["predictions.csv", "metrics.json", "confusion.png", "accuracy.png"]
    if measures := measure():
        metrics["measures_interval95"] = {}
        for title, scores in measures.items():
            metrics[title], metrics["measures_interval95"][title] = print_measure(title, predictions, columns, scores)
        write_grounding(out / "grounding.csv", predictions, measures)
        written.append("grounding.csv")
    if "template" in predictions:
        errors = errors_by_template(predictions).to_csv(index=False, lineterminator="\n")
        write_bytes(out / "errors_by_template.csv", errors.encode())
        written.append("errors_by_template.csv")
    confusion_matrix(predictions, out / "confusion.png")
    best_known = None if others else next(iter(published.values()), {}).get("TSPM")
    accuracy_bars(predictions, columns, out / "accuracy.png", best_known)
    metrics["predictions_sha256"] = sha256(out / "predictions.csv")
    if model:
        metrics["weights_sha256"] = model
    seal(out / "metrics.json", metrics)  # last: a run that has it is done
    print("\nwrote", ", ".join(str(out / file) for file in written))
    return metrics


def show(
    predictions: pd.DataFrame,
    name: str,
    columns: Columns,
    published: Mapping[str, Mapping[str, Row]],
    published_questions: int | None = None,
) -> dict[str, Any]:
    """Print the row `name` below published ones, with its interval; returns questions, accuracy and interval95."""
    row, interval = accuracy_row(predictions, columns), intervals_of([predictions], columns)
    print(format_table(columns, {name: row}, published))
    low, high = interval["All"]
    print(
        f"\n{len(predictions)} questions, {row['All']:.2f} % correct, 95 % interval over videos {low:.2f} to {high:.2f}"
        "\n(what other test videos would change for this very model; a run from another seed may differ by more)"
    )
    if published and published_questions not in (None, len(predictions)):
        print(f"The published rows are for {published_questions} questions; these are {len(predictions)}.")
    return {"questions": len(predictions), "accuracy": row, "interval95": interval}


def print_measure(title: str, questions: pd.DataFrame, columns: Columns, scores: Scores) -> tuple[dict, dict]:
    """Print the table of a measure; returns it by column, and the 95 % interval of each of its scores by column."""
    table = by_column(questions, columns, scores)
    print(f"\n{title}, % (n questions)")
    if table.empty:
        print("no question to measure it on")
        return {}, {}
    intervals = {
        name: intervals_of([questions.assign(**{name: values})], columns, name) for name, values in scores.items()
    }
    limits = ("{} {:.1f} to {:.1f}".format(name, *interval["All"]) for name, interval in intervals.items())
    print(f"{table.round(1).to_string()}\n95 % interval over videos, All: {'; '.join(limits)}")
    return table.to_dict("index"), intervals


def errors_by_template(predictions: pd.DataFrame) -> pd.DataFrame:
    """Where answers are wrong, a row per template, most wrong answers first.

    Columns: template, n, wrong, accuracy (%), wrong_answer (the most frequent one), videos (some that were answered
    so or otherwise wrong, to open; space-separated).
    """
    rows = []
    for template, asked in predictions.groupby("template", sort=True):
        wrong = asked[~asked["correct"]]
        frequent = wrong["prediction"].mode().get(0, "")  # of equals the alphabetically first
        first = wrong.assign(other=wrong["prediction"] != frequent).sort_values("other", kind="stable")
        rows.append(
            {
                "template": template,
                "n": len(asked),
                "wrong": len(wrong),
                "accuracy": round(100 * float(asked["correct"].mean()), 2),
                "wrong_answer": frequent,
                "videos": " ".join(first["video_id"].unique()[:VIDEOS]),
            }
        )
    return pd.DataFrame(rows).sort_values("wrong", ascending=False, kind="stable")
