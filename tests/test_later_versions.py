"""MUSIC-AVQA v2 and R: several test sets in one run, in the formats of their releases; their rows printed together."""

import json
import shutil

import numpy as np
import pytest
import yaml

from dataset.annotations import read_annotations
from dataset.text_prompt import PromptTable, question_text
from tests.small_run import ROOT
from utils.files import read_json, save_npy, write_json

STRICT = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA")
FREE = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA-R")


def release(name: str) -> dict:
    """The options of one of the configs."""
    return yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())


def in_small(tmp_path, name: str, data: dict) -> str:
    """The config of a release with the paths of small files; every test file that it names must be given."""
    options = release(name)
    assert options["data"]["test"].keys() == data["test"].keys()
    options["data"] |= data
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(options, sort_keys=False))
    return str(tmp_path / "release.yaml")


def without_ids(rows: list[dict]) -> list[dict]:
    """As version 2 has its new rows: no id, no `question_deleted`, the values a list."""
    dropped = ("question_id", "question_deleted")
    rows = [{name: value for name, value in row.items() if name not in dropped} for row in rows]
    return [row | {"templ_values": json.loads(row["templ_values"])} for row in rows]


def rows_at_the_end(printed: str, names: list[str]) -> dict[str, float]:
    """The last column of the rows of the table that is printed last."""
    lines = printed.rstrip().split("\n")[-len(names) :]
    assert [line.split()[0] for line in lines] == names
    return {line.split()[0]: float(line.split()[-1]) for line in lines}


def test_both_test_sets_of_version_2_are_scored_in_one_run(tested, score, tmp_path):
    run, rows = tested[0], read_json(tested[0].parent / "test.json")
    write_json(tmp_path / "balance.json", [*rows[:6], *without_ids(rows[6:])])
    write_json(tmp_path / "bias.json", without_ids(rows[:9]))
    files = {"balanced": str(tmp_path / "balance.json"), "biased": str(tmp_path / "bias.json")}
    config = in_small(tmp_path, "music_avqa_v2", {"test": files, "features": str(run.parent / "features")})
    printed = score("--run", run, "--config", config, "--out", tmp_path / "out")
    assert "CueSpace, balanced" in printed
    shown = rows_at_the_end(printed, ["balanced", "biased"])
    for name, total in shown.items():
        accuracy = read_json(tmp_path / f"out/{name}/metrics.json")["accuracy"]
        assert total == pytest.approx(accuracy["All"], abs=0.006)
    whole = read_json(run / "test/metrics.json")["accuracy"]
    assert read_json(tmp_path / "out/balanced/metrics.json")["accuracy"] == whole  # the same questions, without ids


def rephrased(row: dict, number: int) -> dict:
    """As R has its rows: words filled in, no `templ_values`; here two of each keep the id of their question."""
    question = STRICT.fill(*question_text(row)).question.rstrip("?")
    return {name: row[name] for name in ("video_id", "question_id", "type", "anser")} | {
        "question_content": f"{question}, in phrasing {number}"
    }


def test_head_tail_and_all_rephrased_questions_are_scored_for_a_model_of_the_original(tested, score, tmp_path):
    run, rows = tested[0], read_json(tested[0].parent / "test.json")
    every = [rephrased(row, number) for number in (1, 2) for row in rows]
    parts = {"head": every[:12], "tail": every[12:], "overall": every}
    for name, part in parts.items():
        write_json(tmp_path / f"{name}.json", part)
    features = shutil.copytree(run.parent / "features", tmp_path / "features")
    encode(features / "text", every)
    files = {name: str(tmp_path / f"{name}.json") for name in parts}
    config = in_small(tmp_path, "music_avqa_r", {"test": files, "features": str(features)})
    printed = score("--run", run, "--config", config, "--out", tmp_path / "out")
    shown = rows_at_the_end(printed, ["head", "tail", "overall"])
    assert shown["overall"] == pytest.approx((12 * shown["head"] + 24 * shown["tail"]) / 36, abs=0.01)
    assert read_json(tmp_path / "out/overall/metrics.json")["questions"] == 36  # none is left out for its id


def encode(text, rows: list[dict]) -> None:
    """Add the sentences of some questions to the text features, with rows that are made up."""
    filled = [FREE.fill(*question_text(row)) for row in rows]
    known = read_json(text / "sentences.json")
    new = [*dict.fromkeys(sentence for each in filled for sentence in (each.question, each.prompt))]
    new = [sentence for sentence in new if sentence not in known]
    held = np.load(text / "features.npy")
    made = np.random.default_rng(0).standard_normal((len(new), held.shape[1]), np.float32)
    save_npy(text / "features.npy", np.concatenate([held, made]))
    write_json(text / "sentences.json", known + new)


def test_rephrased_questions_are_called_by_their_rows(tested, tmp_path):
    rows = [rephrased(row, 1) | {"question_id": 7} for row in read_json(tested[0].parent / "test.json")]
    write_json(tmp_path / "r.json", rows)
    questions, faults = read_annotations(tmp_path / "r.json", "music_avqa_r", FREE)
    assert not faults
    assert questions["question_id"].tolist() == [f"row-{n}" for n in range(1, 19)]
