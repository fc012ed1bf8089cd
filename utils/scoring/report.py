"""What is printed and written of a set of predictions: a row of a table, measures, two pictures."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from utils.files import write_json
from utils.scoring.metrics import Columns, accuracy_row, bootstrap_interval
from utils.scoring.paper import Row, format_table
from utils.scoring.plots import accuracy_bars, confusion_matrix
from utils.scoring.predictions import write_predictions

FILES = ("predictions.csv", "metrics.json", "confusion.png", "accuracy.png")


def report(
    predictions: pd.DataFrame,
    name: str,
    columns: Columns,
    out: Path,
    published: Mapping[str, Mapping[str, Row]],
    published_questions: int | None = None,
    measures: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Print the row `name` below published ones, and further measures; write `FILES` into `out`.

    Where published rows are known to be for another number of questions, that is said and the picture leaves them out.
    """
    row, interval = accuracy_row(predictions, columns), bootstrap_interval(predictions, columns)
    print(format_table(columns, {name: row}, published))
    low, high = interval["All"]
    print(
        f"\n{len(predictions)} questions, {row['All']:.2f} % correct, 95 % interval over videos {low:.2f} to {high:.2f}"
    )
    others = published and published_questions not in (None, len(predictions))
    if others:
        print(f"The published rows are for {published_questions} questions; these are {len(predictions)}.")
    metrics: dict[str, object] = {"questions": len(predictions), "accuracy": row, "interval95": interval}
    for measure, table in (measures or {}).items():
        shown = table.round(1).to_string() if len(table) else "no question to measure it on"
        print(f"\n{measure}, % (n questions)\n{shown}")
        metrics[measure] = table.to_dict("index")
    write_predictions(out / "predictions.csv", predictions)
    write_json(out / "metrics.json", metrics)
    confusion_matrix(predictions, out / "confusion.png")
    best_known = next(iter(published.values()), {}).get("TSPM") if not others else None
    accuracy_bars(predictions, columns, out / "accuracy.png", best_known)
    print("\nwrote", ", ".join(str(out / file) for file in FILES))
