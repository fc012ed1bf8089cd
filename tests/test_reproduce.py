"""Every table is one command: its rows are the paper's, its runs a queue, its files say what they are."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from scripts.reproduce import queue as run_queue
from scripts.reproduce import tables
from scripts.reproduce.__main__ import TABLES, main
from scripts.reproduce.queue import Run, resolve
from tests.small_run import ROOT, make_data, run
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
    assert resolve([*base, *options]) == resolve([*base, "--config", str(ROOT / f"configs/ablations/{file}.yaml")])


def test_every_row_of_ours_in_the_paper_is_run():
    assert TABLES["table3"].rows.keys() == TABLE3.keys()
    assert [row for row in TABLES["table7"].rows if row in TABLE7] == [row for row in TABLE7 if row.startswith("TSPM")]
    for k, s in TABLE4:
        config = resolve(TABLES["table4"].rows[f"top_k {k}, {s} tokens"].split())
        assert (config.model.top_k, config.model.tokens, config.data.tokens) == (k, s, s)
    for table in ("table1", "table2", "table3", "table6", "table7", "figure4"):
        assert TABLES[table].rows["TSPM"] == ""


# The command, with a stand-in for training


@pytest.fixture
def quick(monkeypatch):
    """Runs end at once with an accuracy of 50 + seed, 60 + seed for TSPM; those of w/o TPM fail."""
    code = """
import json, pathlib, sys
folder, epochs, accuracy = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
if "w_o_tpm" in folder.name: sys.exit("error: out of luck")
line = json.dumps({"epoch": 1, "train_seconds": 2.0}) + chr(10)
(folder / "metrics.jsonl").write_text(line * epochs)
(folder / "test").mkdir()
found = {"questions": 18, "accuracy": dict.fromkeys(["A", "V", "AV", "All"], accuracy), "interval95": {"All": [40, 70]}}
(folder / "test/metrics.json").write_text(json.dumps(found))
"""

    def commands(self):
        accuracy = 50 + 10 * self.label.startswith("TSPM, seed") + self.config.train.seed
        yield ["-c", code, str(self.folder), str(self.config.train.epochs), str(accuracy)]

    monkeypatch.setattr(Run, "commands", property(commands))
    monkeypatch.setattr(run_queue, "TICK", 0.02)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The YAML of a small data set in MUSIC-AVQA's format, split by video."""
    return make_data(tmp_path_factory.mktemp("data"), videos=20)


def reproduce_in(folder, data, *options, expect=0):
    """Run the command with its runs and results below `folder`."""
    where = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    code = 0
    try:
        code = main([*options, "--config", str(data), *where])
    except SystemExit as end:
        code = end.code
    assert code == expect
    return folder / "results/tspm"


def test_a_table_is_written_with_its_command_its_seeds_and_what_went_wrong(quick, data, tmp_path, capfd):
    results = reproduce_in(tmp_path, data, "table3", "--seeds", "0", "1", "2", expect=1)
    text = (results / "table3.md").read_text()
    assert text.startswith(
        "# Table 3: modules, on MUSIC-AVQA (tspm)\n\n    python -m scripts.reproduce table3 --seeds 0 1 2"
    )
    assert "![Table 3: modules](table3.png)" in text
    assert "| TSPM | this project | 3 | 61.00 ± 2.48 | 61.00 ± 2.48 | 61.00 ± 2.48 | 61.00 ± 2.48 |" in text
    assert "| TSPM | TSPM paper |  | 76.91 | 83.61 | 73.51 | 76.79 |" in text
    assert "Failed: w/o TPM, seed 1: error: out of luck" in text
    assert re.search(r"Not run: w/o Merge: .*clip_token_577: no such folder", text)
    assert "18 test questions" in text
    assert "± 15.00 (95 %" in text
    table = pd.read_csv(results / "table3.csv", comment="#")
    ours = table[table["source"] == "this project"]
    assert list(ours["row"]) == ["w/o all", "w/o SPM", "w/o TPC", "w/ QPrompt", "TSPM"]
    paper = table[table["source"] == "TSPM paper"].set_index("row")
    assert paper["All"].to_dict() == {row: values["All"] for row, values in TABLE3.items()}
    assert imread(results / "table3.png").ndim == 3
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


def test_bandstand_is_called_so_and_table_7_offers_choices_there(quick, bandstand, tmp_path):
    results = reproduce_in(tmp_path, bandstand, "table7", "table5", "--seeds", "0", expect=1)
    for name in ("table7", "table5"):
        text = (results / f"{name}.md").read_text()
        assert text.startswith(f"# {TABLES[name].title}, on Bandstand (tspm, generated)\n")
        assert "their order can be compared with ours, their height cannot" in text
    table = pd.read_csv(results / "table7.csv", comment="#").set_index(["row", "source"])
    assert table.loc[("random choice", "this project"), "All"] == 25.0
    assert table.loc[("TSPM", "TSPM paper"), "All"] == 90.8
    assert (bandstand.parent / "annotations_choice/made_of.json").exists()
    text = (results / "table5.md").read_text()
    assert re.search(r"Not run: TSPM, ViT-B/32: .*features_b32/vggish: no such folder", text)
    assert "TSPM, ViT-L/14 here: synthetic CLIP, 112 px, frame width 16" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["table7"], "table7 is of AVQA; give it with --config configs/avqa.yaml"),
        (["table1", "--seeds", "1", "1"], "--seeds must be 1 to 10 different numbers"),
        (["table1", "--seeds", *map(str, range(11))], "--seeds must be 1 to 10"),
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


def test_avqa_has_table_7_alone(tmp_path, capfd):
    data = make_data(tmp_path, dataset="avqa")
    reproduce_in(tmp_path, data, "table3", expect=2)
    assert "this table is of MUSIC-AVQA's questions; AVQA's is table7" in capfd.readouterr().err


# What is missing


def dry(data, tmp_path, capfd, *options, expect=1):
    reproduce_in(tmp_path, data, *options, "--dry-run", "--train.device", "cpu", expect=expect)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "results").exists()
    return capfd.readouterr().out


def test_without_anything_every_folder_is_named_with_its_command_and_size(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    (tmp_path / "dataset").mkdir()
    shutil.copy(ROOT / "dataset/TextPrompt.xlsx", "dataset")
    told = dry("configs/music_avqa.yaml", tmp_path, capfd, "table3", "table4", "table5", "table2")
    lines = told.splitlines()
    root = "data/music_avqa/features"
    gigabyte = 9288 * 60 / 1e9
    sizes = {  # one number of float32, or two bytes and a byte for each source
        f"{root}/vggish": 128 * 4,
        f"{root}/clip_frame": 768 * 2,
        f"{root}/clip_token_8": 8 * 1024 * 2 + 577,
        f"{root}/clip_token_14": 14 * 1024 * 2 + 577,
        f"{root}/clip_token_27": 27 * 1024 * 2 + 577,
        f"{root}/clip_token_577": 577 * 1024 * 2,
        f"{root}_b32/clip_frame": 512 * 2,
        f"{root}_b32/clip_token_14": 14 * 768 * 2 + 50,
        f"{root}_b32/vggish": 128 * 4,
    }
    for path, size in sizes.items():
        assert f"    {path}  {size * gigabyte:.2f} GB" in lines
    options = "--videos data/music_avqa/videos --segments 60"
    for command in (
        f"python -m feat_script.extract_audio {options} --out {root}",
        f"python -m feat_script.extract_visual {options} --clip ViT-L/14@336px --tokens 8 14 27 577 --out {root}",
        f"python -m feat_script.extract_visual {options} --clip ViT-B/32 --tokens 14 --out {root}_b32",
        f"mkdir -p {root}_b32 && ln -s ../features/vggish {root}_b32/",
    ):
        assert f"missing, made by: {command}" in lines
    assert sum("feat_script.extract_text" in line and line.startswith("missing") for line in lines) == 2
    for split in SPLITS:
        path = f"data/music_avqa/annotations/{split}.json"
        assert f"{path}: no such file; python -m scripts.download music_avqa fetches it" in lines
        path = f"data/music_avqa/annotations_video_split/{split}.json"
        assert f"{path}: no such file; python -m scripts.download music_avqa_video_split fetches it" in lines
    assert any(line.startswith("data/music_avqa/videos: no such folder; fetch the videos by hand") for line in lines)
    assert "      python train.py --config configs/music_avqa.yaml --train.device cpu --model.temporal even" in told
    assert f"{3 * (7 + 5 + 1 + 2)} runs to do" in told  # Tables 4 and 5 share TSPM with Table 3


def test_what_is_there_is_not_listed_and_broken_videos_are(data, tmp_path, capfd):
    shutil.copytree(data.parent, tmp_path / "data")
    root = tmp_path / "data"
    copied = root / "small.yaml"
    copied.write_text(copied.read_text().replace(str(data.parent), str(root)))
    assert "nothing is missing" in dry(copied, tmp_path, capfd, "table1", expect=0)
    (root / "features/vggish/00000003.npy").unlink()
    told = dry(copied, tmp_path, capfd, "table1")
    assert "1 of 20 videos lack whole features" in told
    assert "audio: no such file: 00000003" in told
    shutil.rmtree(root / "features/clip_token_4")
    told = dry(copied, tmp_path, capfd, "table1")
    assert f"    {root}/features/clip_token_4  " in told
    assert "clip_frame " not in told
    assert "audio only: seed 0 to do, seed 1 to do, seed 2 to do" in told
    assert "TSPM: waits, see (1)" in told


def test_a_row_that_cannot_be_is_told_apart(data, tmp_path, capfd):
    told = dry(data, tmp_path, capfd, "table4")
    assert "top_k 40, 14 tokens: cannot be run: model.top_k 40 is more than the 6 data.segments" in told


def test_the_time_left_is_known_once_a_run_is_done(quick, data, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tables, "find_workers", lambda device: [{}])
    reproduce_in(tmp_path, data, "prior", "--seeds", "0")
    reproduce_in(tmp_path, data, "prior", "--seeds", "0", "1", "2", "--dry-run")
    told = capfd.readouterr().out
    assert "question only: seed 0 done, seed 1 to do, seed 2 to do" in told
    assert "2 runs to do" in told
    assert "about 0:00:12 at the" in told  # three epochs of two seconds each


def test_the_public_layout_and_avqa_are_told_as_they_are(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    (tmp_path / "dataset").mkdir()
    shutil.copy(ROOT / "dataset/TextPrompt.xlsx", "dataset")
    told = dry("configs/music_avqa_public.yaml", tmp_path, capfd, "table1")
    assert "features_public/ToMe_feat/tome14: no such folder; it is published" in told
    assert "extract_visual" not in told
    told = dry("configs/avqa.yaml", tmp_path, capfd, "table7")
    assert "--segments 10 --clip ViT-L/14@336px --tokens 14" in told
    assert f"data/avqa/features/clip_token_14  {57_015 * 10 * (14 * 1024 * 2 + 577) / 1e9:.2f} GB" in told
    assert "data/avqa/annotations/train.json: no such file; fetch it by hand" in told


# With real training


@pytest.mark.slow
def test_the_language_prior_needs_text_features_alone(data, tmp_path):
    shutil.copytree(data.parent / "features/text", tmp_path / "features/text")
    options = ["--config", data, "--data.features", tmp_path / "features", "--runs", tmp_path / "runs"]
    run("-m", "scripts.reproduce", "prior", *options, "--seeds", 0, "--results", tmp_path / "results")
    table = pd.read_csv(tmp_path / "results/tspm/prior.csv", comment="#").set_index("row")
    (found,) = (read_json(path)["accuracy"]["All"] for path in (tmp_path / "runs").glob("tspm/*/test/metrics.json"))
    assert table.loc["question only", "All"] == pytest.approx(found, abs=1e-3)


@pytest.mark.slow
def test_cost_is_measured(data, tmp_path):
    where = ["--seeds", 0, "--train.epochs", 1, "--runs", tmp_path / "runs", "--results", tmp_path]
    run("-m", "scripts.reproduce", "table6", "--config", data, *where)
    cost = pd.read_csv(tmp_path / "tspm/table6.csv", comment="#").set_index(["row", "source"])
    ours = cost.loc[("TSPM", "this project")]
    assert ours["parameters"] > ours["trained"] > cost.loc[("question only", "this project"), "trained"] > 0
    assert ours["s/epoch"] > 0
    assert cost.loc[("TSPM", "TSPM paper"), "thop parameters"] == 6.22
