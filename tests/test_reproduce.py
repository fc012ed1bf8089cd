"""Every table is one command: its rows are the paper's, its runs a queue, its files say what they are."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from scripts.reproduce import queue as run_queue
from scripts.reproduce.__main__ import TABLES, main
from scripts.reproduce.queue import resolve
from tests.small_run import ROOT, make_data
from tests.small_tables import at_once, pretend, reproduce_in
from utils.files import read_json
from utils.scoring.paper import TABLE1, TABLE2, TABLE3, TABLE4, TABLE7

SPLITS = ("train", "val", "test")

# The rows

ABLATIONS = {
    "wo_all": ("table3", "w/o all"),
    "wo_tpm": ("table3", "w/o TPM"),
    "wo_spm": ("table3", "w/o SPM"),
    "wo_tpc": ("table3", "w/o TPC"),
    "qprompt": ("table3", "w/ QPrompt"),
    "wo_merge": ("table3", "w/o Merge"),
    "top_k_20": ("table4", "top_k 20, 14 tokens"),
    "top_k_30": ("table4", "top_k 30, 14 tokens"),
    "top_k_40": ("table4", "top_k 40, 14 tokens"),
    "tokens_8": ("table4", "top_k 10, 8 tokens"),
    "tokens_27": ("table4", "top_k 10, 27 tokens"),
    "vit_b32": ("table5", "TSPM, ViT-B/32"),
    "question_only": ("table1", "question only"),
    "audio_only": ("table1", "audio only"),
    "visual_only": ("table1", "visual only"),
}


@pytest.mark.parametrize(("file", "row"), ABLATIONS.items())
def test_a_row_is_what_the_ablation_s_file_says(file, row):
    table, name = row
    options = TABLES[table].rows[name].format(unmerged=577, second_features="data/music_avqa/features_b32").split()
    base = ["--config", str(ROOT / "configs/music_avqa.yaml")]
    assert resolve(*base, *options) == resolve(*base, "--config", str(ROOT / f"configs/ablations/{file}.yaml"))


def test_every_row_of_ours_in_the_paper_is_run():
    assert TABLES["table3"].rows.keys() == TABLE3.keys()
    assert [row for row in TABLES["table7"].rows if row in TABLE7] == [row for row in TABLE7 if row.startswith("TSPM")]
    for k, s in TABLE4:
        config = resolve(*TABLES["table4"].rows[f"top_k {k}, {s} tokens"].split())
        assert (config.model.top_k, config.model.tokens, config.data.tokens) == (k, s, s)
    for table in ("table1", "table2", "table3", "table6", "table7"):
        assert TABLES[table].rows["TSPM"] == ""


# The command, with a stand-in for training


@pytest.fixture
def quick(monkeypatch):
    pretend(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The YAML of a small data set in MUSIC-AVQA's format, split by video."""
    return make_data(tmp_path_factory.mktemp("data"), videos=20)


def test_a_table_is_written_with_its_command_its_seeds_and_what_went_wrong(quick, data, tmp_path, capfd):
    results = reproduce_in(tmp_path, data, "table3", "--seeds", "0", "1", "2", expect=1)
    text = (results / "table3.md").read_text()
    assert text.startswith(
        "# Table 3: modules, on MUSIC-AVQA (tspm)\n\n    python -m scripts.reproduce table3 --seeds 0 1 2"
    )
    assert re.search(r"\| TSPM \| this project \| 3 \| .* \| 66\.67 \| \d\d\.\d\d to \d\d\.\d\d \|  \|  \|  \|", text)
    assert re.search(
        r"\| w/o all \| this project \| 3 \| .* \| 55\.56 \| .* \| -11\.11 \| -[\d.]+ to [+-][\d.]+ \|", text
    )
    assert "| TSPM | TSPM paper |  | 76.91 | 83.61 | 73.51 | 76.79 |  |  |  |  |" in text
    notes = " ".join(text.split())
    assert "Failed: w/o TPM, seed 1: error: out of luck" in notes
    assert re.search(r"Not run: w/o Merge: .*: how many tokens a frame has unmerged is known once merged ones", notes)
    assert "18 test questions about 2 videos. Intervals are over other videos and other seeds: SE²" in notes
    assert "Differences to TSPM are on the same questions; p is two-sided, and corrected for" in notes
    table = pd.read_csv(results / "table3.csv", comment="#")
    ours = table[table["source"] == "this project"]
    assert ours["All"].round(2).tolist() == [55.56] * 4 + [66.67]
    assert (ours["All low"] <= ours["All"]).all()
    assert ours["difference"].round(2).tolist()[:4] == [-11.11] * 4
    assert list(ours["row"]) == ["w/o all", "w/o SPM", "w/o TPC", "w/ QPrompt", "TSPM"]
    paper = table[table["source"] == "TSPM paper"].set_index("row")
    assert paper["All"].to_dict() == {row: values["All"] for row, values in TABLE3.items()}
    err = capfd.readouterr().err
    assert "cannot start: w/o Merge" in err
    assert "failed: w/o TPM, seed 0: error: out of luck" in err


def test_tables_share_their_runs_and_a_deleted_one_is_done_again_alone(quick, data, tmp_path):
    results = reproduce_in(tmp_path, data, "table1", "table2", "--seeds", "0", "1")
    runs = sorted((tmp_path / "runs/tspm").iterdir())
    assert len(runs) == 5 * 2  # Table 2 adds none: the splits share no video as they are
    stamps = {folder: (folder / "test/metrics.json").stat().st_mtime_ns for folder in runs}
    shutil.rmtree(runs[3])
    before = (results / "table1.md").read_text()
    reproduce_in(tmp_path, data, "table1", "table2", "--seeds", "0", "1")
    after = {folder: (folder / "test/metrics.json").stat().st_mtime_ns for folder in runs}
    assert [folder for folder in runs if after[folder] != stamps[folder]] == [runs[3]]
    assert (results / "table1.md").read_text() == before
    for name, paper in (("table1", TABLE1), ("table2", TABLE2)):
        table = pd.read_csv(results / f"{name}.csv", comment="#")
        assert set(table[table["source"] == "TSPM paper"]["row"]) == set(paper)
    assert {"most frequent answer", "most frequent answer of each template"} < set(table["row"])
    assert set(pd.read_csv(results / "table1.csv", comment="#")["source"]) == {"this project", "TSPM paper", "later"}


def test_baselines_are_those_of_the_annotations(quick, data, tmp_path):
    table = pd.read_csv(reproduce_in(tmp_path, data, "prior", "--seeds", "0") / "prior.csv", comment="#")
    train, test = (read_json(data.parent / f"{split}.json") for split in ("train", "test"))
    answers = [row["anser"] for row in train]
    best = max(MUSIC_AVQA_ANSWERS, key=lambda answer: (answers.count(answer), -answers.index(answer)))
    expected = 100 * np.mean([row["anser"] == best for row in test])
    assert table.set_index("row").loc["most frequent answer", "All"] == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def bandstand(tmp_path_factory):
    """The YAML of a small data set that says it is generated."""
    path = make_data(tmp_path_factory.mktemp("bandstand"), videos=20)
    root = path.parent
    for split in SPLITS:
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"{split}.json").rename(root / f"annotations/{split}.json")
    path.write_text(
        path.read_text().replace(f"{root}/t", f"{root}/annotations/t").replace(f"{root}/v", f"{root}/annotations/v")
    )
    path.write_text(path.read_text().replace("data:\n", f"data:\n  truth: {root}/truth\n"))
    return path


def test_bandstand_is_called_so(quick, bandstand, tmp_path):
    results = reproduce_in(tmp_path, bandstand, "table5", "--seeds", "0", expect=1)
    text = (results / "table5.md").read_text()
    assert text.startswith(f"# {TABLES['table5'].title}, on Bandstand (tspm, generated)\n")
    text = " ".join(text.split())
    assert "their order can be compared with ours, their height cannot" in text
    assert "Of one seed, so over other videos alone: TSPM, ViT-L/14." in text
    assert re.search(r"Not run: TSPM, ViT-B/32: .*features_b32/vggish: no such folder", text)


def test_table_7_is_of_avqa(quick, tmp_path):
    data = make_data(tmp_path, dataset="avqa")
    table = pd.read_csv(reproduce_in(tmp_path, data, "table7", "--seeds", "0") / "table7.csv", comment="#")
    table = table.set_index(["row", "source"])
    assert table.loc[("random choice", "this project"), "All"] == 25.0
    assert table.loc[("TSPM", "TSPM paper"), "All"] == 90.8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["table7"], "table7 is of AVQA; give it with --config configs/avqa.yaml"),
        (["table1", "--seeds", "1", "1"], "--seeds must be different numbers"),
        (["table8"], "invalid choice: 'table8'"),
        (["table1", "--model.topk", "3"], "topk"),
        (["table1", "--data.features", "absent"], "none of the runs can start; --dry-run lists"),
        (["table1", "--train.device", "cuda"], "--train.device cpu runs without one"),
    ],
)
def test_wrong_options_are_a_line(data, tmp_path, capfd, options, said):
    if "cuda" in options and run_queue.torch.cuda.is_available():
        pytest.skip("there is a GPU")
    reproduce_in(tmp_path, data, *options, expect=2)
    err = capfd.readouterr().err.strip()
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_row_of_ones_own_stands_beside_the_others(quick, data, tmp_path):
    row = ("--row", "peers", "--model.network means --model.hidden 8")  # a table's name too
    results = reproduce_in(tmp_path, data, "prior", *row, "--seeds", "0", "1")
    table = pd.read_csv(results / "prior.csv", comment="#").set_index("row")
    assert table.loc["peers", "All"] == pytest.approx(100 * 9.5 / 18, abs=1e-3)
    assert "prior --row peers '--model.network means --model.hidden 8'" in (results / "prior.md").read_text()


def test_rows_of_another_data_set_stand_without_the_paper_s(quick, tmp_path):
    data = make_data(tmp_path, dataset="avqa")
    results = reproduce_in(tmp_path, data, "table1", "--seeds", "0")
    table = pd.read_csv(results / "table1.csv", comment="#")
    assert set(table["source"]) == {"this project"}
    assert list(table["row"]) == list(TABLES["table1"].rows)


@pytest.mark.parametrize("option", ["--runs", "--results"])
def test_a_folder_that_cannot_be_written_is_a_line(quick, data, tmp_path, capfd, option):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        main(
            ["prior", "--config", str(data), "--seeds", "0", "--runs", str(tmp_path), option, str(tmp_path / "file/x")]
        )
    assert left.value.code == 2
    said = capfd.readouterr().err.strip()
    assert "file/x/tspm" in said
    assert "cannot be written (Not a directory)" in said


# With real training


@pytest.mark.slow
def test_the_language_prior_needs_text_features_alone(data, tmp_path):
    shutil.copytree(data.parent / "features/text", tmp_path / "features/text")
    options = ["--data.features", str(tmp_path / "features"), "--train.epochs", "1", "--seeds", "0"]
    table = pd.read_csv(reproduce_in(tmp_path, data, "prior", *options) / "prior.csv", comment="#").set_index("row")
    (found,) = (read_json(path)["accuracy"]["All"] for path in (tmp_path / "runs").glob("tspm/*/test/metrics.json"))
    assert table.loc["question only", "All"] == pytest.approx(found, abs=1e-3)


@pytest.mark.slow
def test_cost_is_measured(data, tmp_path, monkeypatch):
    at_once(monkeypatch)
    results = reproduce_in(tmp_path, data, "table6", "--seeds", "0", "--train.epochs", "1")
    cost = pd.read_csv(results / "table6.csv", comment="#").set_index(["row", "source"])
    ours = cost.loc[("TSPM", "this project")]
    assert ours["parameters"] > ours["trained"] > cost.loc[("question only", "this project"), "trained"] > 0
    assert ours["s/epoch"] > 0
    assert cost.loc[("TSPM", "TSPM paper"), "thop parameters"] == 6.22
