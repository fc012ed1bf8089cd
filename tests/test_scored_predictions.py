"""scripts.score: predictions made elsewhere, in three formats, alone and compared; what it refuses and counts."""

import random

import numpy as np
import pytest

from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from scripts import score as command
from tests.scoring_run import WRITTEN, answers_of, by_hand, called
from tests.small_run import ROOT, avqa_rows
from utils.files import read_json, write_json


def score(*arguments, **how) -> str:
    return called(command.main, *arguments, "--benchmark", "music_avqa", **how)


def test_our_predictions_are_scored_again_to_the_same_row(tested, tmp_path):
    folder, printed = tested
    questions = folder.parent / "test.json"
    again = score(folder / "test/predictions.csv", "--annotations", questions, "--out", tmp_path)
    assert read_json(tmp_path / "metrics.json") == read_json(folder / "test/metrics.json")
    assert (tmp_path / "predictions.csv").read_bytes() == (folder / "test/predictions.csv").read_bytes()
    row = [line for line in printed.splitlines() if line.startswith("run ")]
    assert len(row) == 1
    numbers = row[0].split("|", 1)[1]
    assert numbers in again
    assert {file.name for file in tmp_path.iterdir()} == WRITTEN


def public_lines(rows: list[dict], predicted: dict[str, str]) -> str:
    """The public format: question id, right or wrong, target index, predicted index."""
    index = {answer: i for i, answer in enumerate(MUSIC_AVQA_ANSWERS)}
    lines = []
    for row in rows:
        target, guess = row["anser"], predicted[str(row["question_id"])]
        lines.append(f"{row['question_id']} \t {target == guess} \t {index[target]} \t {index[guess]}\n")
    return "".join(lines)


def guesses(rows: list[dict], share: float, seed: int) -> dict[str, str]:
    """Of `rows` the given share right, the others anything."""
    draw = random.Random(seed)
    wrong = {str(row["question_id"]): draw.choice(MUSIC_AVQA_ANSWERS) for row in rows}
    return {i: row["anser"] if draw.random() < share else wrong[i] for i, row in zip(wrong, rows, strict=True)}


def test_public_predictions_are_scored_with_the_annotation(tested, tmp_path):
    path = tested[0].parent / "test.json"
    rows = read_json(path)
    predicted = guesses(rows, 0.6, seed=1)
    (tmp_path / "public.txt").write_text(public_lines(random.Random(0).sample(rows, len(rows)), predicted))
    out = tmp_path / "scored"
    score(tmp_path / "public.txt", "--annotations", path, "--out", out)
    assert read_json(out / "metrics.json")["accuracy"] == pytest.approx(by_hand(rows, predicted))
    assert answers_of(out / "predictions.csv") == predicted
    assert {file.name for file in out.iterdir()} == WRITTEN


def test_public_predictions_of_rephrased_questions_are_scored(tested, tmp_path):
    """MUSIC-AVQA-R's questions are no templates; scoring needs no prompt for them."""
    rows = read_json(tested[0].parent / "test.json")
    for number, row in enumerate(rows):
        row["question_content"] = f"In how many ways, say {number}, can this be asked?"
        del row["templ_values"]
    write_json(tmp_path / "rephrased.json", rows)
    predicted = guesses(rows, 0.6, seed=1)
    (tmp_path / "public.txt").write_text(public_lines(rows, predicted))
    scores = tmp_path / "scores.json"
    score(tmp_path / "public.txt", "--annotations", tmp_path / "rephrased.json", "--json", scores)
    assert read_json(scores)["accuracy"] == pytest.approx(by_hand(rows, predicted))


def test_two_predictions_are_compared(tested, tmp_path):
    path = tested[0].parent / "test.json"
    rows = read_json(path)
    files, accuracy = [tmp_path / "a.txt", tmp_path / "b.txt"], []
    for seed, file in enumerate(files):
        predicted = guesses(rows, 0.3 + 0.5 * seed, seed)
        file.write_text(public_lines(rows, predicted))
        accuracy.append(by_hand(rows, predicted)["All"])

    def compared(*arguments) -> list[float]:
        """The row "All": n, a, b, difference, low, high, p."""
        printed = score(*arguments, "--annotations", path)
        (row,) = (line for line in printed.splitlines() if line.startswith("All "))
        return [float(number) for number in row.split()[1:]]

    n, a, b, difference, low, high, p = compared(files[0], "--compare", files[1])
    assert [n, a, b] == [18, *np.round(accuracy, 2)]
    assert difference == pytest.approx(accuracy[1] - accuracy[0], abs=0.01)
    assert low <= difference <= high
    assert 0 < p <= 1
    ours = tested[0] / "test/predictions.csv"  # one of ours against one of the public format
    assert compared(ours, "--compare", files[1])[2] == np.round(accuracy[1], 2)
    assert compared(ours, "--compare", ours)[3:] == [0, 0, 0, 1]
    seeds = compared(*files, "--compare", files[1], ours)  # on either side the mean of the runs
    our_accuracy = read_json(tested[0] / "test/metrics.json")["accuracy"]["All"]
    assert seeds[1:3] == pytest.approx([np.mean(accuracy), (accuracy[1] + our_accuracy) / 2], abs=0.006)
    assert seeds[3] == pytest.approx(seeds[2] - seeds[1], abs=0.011)


def test_the_real_test_split_is_scored_without_features_and_weights(shared, tmp_path):
    """The counts of Table 1's columns are those of the paper's test file, so are the weights of its averages."""
    path = shared / "music_avqa/test.json"
    rows = read_json(path)
    predicted = guesses(rows, 0.75, seed=0)
    (tmp_path / "public.txt").write_text(public_lines(rows, predicted))
    printed = score(tmp_path / "public.txt", "--annotations", path, "--json", tmp_path / "scores.json")
    expected = by_hand(rows, predicted)
    metrics = read_json(tmp_path / "scores.json")
    assert metrics["missing"] == metrics["unmapped"] == []
    assert metrics["questions"] == 9129
    assert metrics["accuracy"] == pytest.approx(expected)
    counts = {"A-Count": 1017, "A-Comp": 594, "V-Count": 1197, "V-Loc": 1225, "Exist": 988}
    counts |= {"AV-Count": 1265, "AV-Loc": 920, "AV-Comp": 1101, "Temp": 822}
    weighed = sum(n * metrics["accuracy"][column] for column, n in counts.items()) / 9129
    assert metrics["accuracy"]["All"] == pytest.approx(weighed)
    shown = next(line for line in printed.splitlines() if line.startswith("public "))
    numbers = [float(number) for number in shown.removeprefix("public").replace("|", " ").split()]
    assert numbers[-1] == round(expected["All"], 2)
    assert len(numbers) == 13
    assert "these are" not in printed
