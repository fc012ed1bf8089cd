"""scripts.score: predictions made elsewhere, in three formats, alone and compared; what it refuses and counts."""

import json
import random

import numpy as np
import pandas as pd
import pytest

from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from scripts import score as command
from tests.scoring_run import WRITTEN, answers_of, by_hand, called
from tests.small_run import ROOT, avqa_rows
from utils.files import read_json, unseal, write_json
from utils.scoring.predictions import read_predictions


def score(*arguments, **how) -> str:
    return called(command.main, *arguments, "--benchmark", "music_avqa", **how)


def test_our_predictions_are_scored_again_to_the_same_row(tested, tmp_path):
    folder, printed = tested
    questions = folder.parent / "test.json"
    again = score(folder / "test/predictions.csv", "--annotations", questions, "--out", tmp_path)
    ours, theirs = unseal(folder / "test/metrics.json"), unseal(tmp_path / "metrics.json")
    for metrics in (ours, theirs):  # but for what is the model's own: its weights, its probabilities
        metrics.pop("weights_sha256", None)
        del metrics["predictions_sha256"]
    assert theirs == ours
    tables = (read_predictions(each / "predictions.csv") for each in (tmp_path, folder / "test"))
    pd.testing.assert_frame_equal(*tables)
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
        """The row "All": n, a, b, difference, low, high, df, p."""
        printed = score(*arguments, "--annotations", path)
        (row,) = (line for line in printed.splitlines() if line.startswith("All "))
        return [float(number) for number in row.split()[1:]]

    n, a, b, difference, low, high, _, p = compared(files[0], "--compare", files[1])
    assert [n, a, b] == [18, *np.round(accuracy, 2)]
    assert difference == pytest.approx(accuracy[1] - accuracy[0], abs=0.01)
    assert low <= difference <= high
    assert np.isnan(p)  # both videos gain as much
    ours = tested[0] / "test/predictions.csv"  # one of ours against one of the public format
    assert compared(ours, "--compare", files[1])[2] == np.round(accuracy[1], 2)
    same = compared(ours, "--compare", ours)
    assert [*same[3:6], same[-1]] == [0, 0, 0, 1]
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


def said_lines(predicted: dict[str, str]) -> str:
    """JSON lines of sentences that name the answers."""
    lines = [
        {"question_id": i, "answer": f"The answer is {predicted[i].replace('_', ' ').upper()}."} for i in predicted
    ]
    return "\n".join(map(json.dumps, lines))


def test_free_text_is_scored_as_the_answers_that_it_names(shared, tmp_path):
    """On the real questions, whose answers are all of the kind that the question asks for."""
    path = shared / "music_avqa/test.json"
    rows = read_json(path)
    truth = {str(row["question_id"]): row["anser"] for row in rows}
    (tmp_path / "said.jsonl").write_text(said_lines(truth))
    score(tmp_path / "said.jsonl", "--annotations", path, "--json", tmp_path / "scores.json")
    scores = read_json(tmp_path / "scores.json")
    assert scores["unmapped"] == scores["missing"] == []
    assert set(scores["accuracy"].values()) == {100}


SAMPLE = ROOT / "assets/score"


def test_the_sample_gives_what_the_page_shows(tmp_path):
    printed = score(
        SAMPLE / "answers.jsonl", "--annotations", SAMPLE / "questions.json", "--json", tmp_path / "scores.json"
    )
    assert printed == (SAMPLE / "expected.txt").read_text()
    assert (tmp_path / "scores.json").read_text() == (SAMPLE / "expected.json").read_text()
    assert printed.splitlines()[-1].strip() in (ROOT / "scripts/score.md").read_text()


def test_choices_are_scored_for_avqa(tmp_path):
    rows = avqa_rows(["v1", "v2"])
    write_json(tmp_path / "val.json", rows)
    told = [{"question_id": row["id"], "answer": row["multi_choice"][0].title()} for row in rows]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, told)))
    options = ("--benchmark", "avqa", "--annotations", tmp_path / "val.json", "--json", tmp_path / "scores.json")
    called(command.main, tmp_path / "said.jsonl", *options)
    right = [row["answer"] in (0, row["multi_choice"][0]) for row in rows]
    assert read_json(tmp_path / "scores.json")["accuracy"]["All"] == pytest.approx(100 * np.mean(right))


def test_questions_that_are_not_there_are_to_be_downloaded(tested, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no data here
    said = score(tested[0] / "test/predictions.csv", fails=True)
    assert "data/music_avqa/annotations/test.json: no such file; python -m scripts.download fetches it" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv", "--annotations", "{questions}"], "nowhere.csv: no such file"),
        (["a.csv", "b.csv"], "several files are the seeds of one model"),
        (["a.csv", "--compare", "b.csv", "--json", "c.json"], "go with one file, not with --compare"),
        (["{questions}", "--annotations", "{questions}"], "its first line is neither the header"),
        (["{csv}", "--annotations", "{questions}", "--model.top_k", "3"], "--model.top_k"),
        (["{csv}", "--annotations", "{questions}", "--compare", "gone.csv"], "gone.csv: no such file"),
        (["{csv}", "--annotations", "gone.json"], "gone.json: no such file"),
        (["{csv}", "--benchmark", "music"], "--benchmark must be one of avqa, bandstand,"),
        (["{csv}", "--benchmark", "music_avqa_v2"], "has several test splits; say which with --annotations: data/"),
    ],
)
def test_what_cannot_be_scored_is_named_in_a_line(tested, arguments, said):
    paths = {"csv": tested[0] / "test/predictions.csv", "questions": tested[0].parent / "test.json"}
    arguments = [argument.format(**paths) for argument in arguments]
    benchmark = [] if "--benchmark" in arguments else ["--benchmark", "music_avqa"]
    error = called(command.main, *arguments, *benchmark, fails=True)
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
