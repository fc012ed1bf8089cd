"""What a dry run tells: the runs, what they cost, and what is missing with the command that makes it."""

import shutil

import pytest

from scripts.reproduce import plan
from tests.small_run import ROOT, make_data
from tests.small_tables import pretend, reproduce_in
from tests.synthetic import edit_json
from utils.files import read_json, write_json


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The YAML of a small data set in MUSIC-AVQA's format, split by video."""
    return make_data(tmp_path_factory.mktemp("data"), videos=20)


@pytest.fixture
def copied(data, tmp_path):
    """The same in a folder of the test's own."""
    shutil.copytree(data.parent, tmp_path / "data")
    path = tmp_path / "data/small.yaml"
    path.write_text(path.read_text().replace(str(data.parent), str(path.parent)))
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A working folder with the project's configurations and prompts alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    (tmp_path / "dataset").mkdir()
    shutil.copy(ROOT / "dataset/TextPrompt.xlsx", "dataset")


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def dry(tmp_path, capfd):
    """Runs a dry run, which writes nothing at all, and returns what it printed."""

    def ask(data, *options, expect=1):
        before = files_in(tmp_path)
        reproduce_in(tmp_path, data, *options, "--dry-run", "--train.device", "cpu", expect=expect)
        assert files_in(tmp_path) == before
        return "".join(capfd.readouterr())

    return ask


def test_without_anything_the_annotations_come_first(bare, dry):
    told = dry("configs/music_avqa.yaml", "table3", "table4", "table5")
    path = "data/music_avqa/annotations/train.json"
    assert f"{path}: no such file; python -m scripts.download makes it or says where it is" in told
    assert "      python train.py --config configs/music_avqa.yaml --train.device cpu --model.temporal even" in told
    assert f"{3 * (6 + 5 + 1)} runs to do" in told  # Tables 4 and 5 share TSPM with Table 3; w/o Merge is not known yet
    assert "w/o Merge: cannot be run: data/music_avqa/features: how many tokens" in told
    assert "python -m scripts.download" in dry("configs/avqa.yaml", "table7")


def test_each_missing_folder_is_named_with_its_command(copied, dry):
    assert "nothing is missing" in dry(copied, "table1", expect=0)
    features = copied.parent / "features"
    shutil.rmtree(features / "clip_token_4")
    told = dry(copied, "table1")
    assert f"{features}/clip_token_4: no such folder; make it with: python -m feat_script.extract_visual --to" in told
    assert "audio only: seed 0 to do, seed 1 to do, seed 2 to do" in told
    assert "TSPM: waits, see below" in told
    shutil.rmtree(features / "vggish")
    told = dry(copied, "table1")
    assert f"{features}/vggish: no such folder; make it with: python -m feat_script.extract_audio" in told
    shutil.rmtree(features / "text")
    assert f"{features}/text: no such folder; make it with: python -m feat_script.extract_text" in dry(copied, "prior")


def test_broken_videos_are_counted(copied, dry):
    (copied.parent / "features/vggish/00000003.npy").unlink()
    told = dry(copied, "table1")
    assert "1 of 20 videos lack whole features" in told
    assert "audio: no such file: 00000003" in told


def test_the_public_layout_is_told_as_it_is(tmp_path, dry):
    data = make_data(tmp_path / "data", layout="public")
    assert "nothing is missing" in dry(data, "table1", expect=0)
    shutil.rmtree(tmp_path / "data/features/ToMe_feat")
    told = dry(data, "table1")
    assert "ToMe_feat/tome4: no such folder; put the .npy files there" in told
    assert "feat_script" not in told


def test_without_merge_wants_as_many_tokens_as_there_were(copied, dry):
    features = copied.parent / "features"
    shutil.copytree(features / "clip_token_4", features / "clip_token_4_source")
    edit_json(features / "clip_token_4_source/manifest.json", shape=[6, 50])
    assert "clip_token_50: no such folder (there is clip_token_4); make it with" in dry(copied, "table3")


def test_a_row_that_cannot_be_is_told_apart(data, dry):
    told = dry(data, "table4", "--model.top_k", "3")
    assert "top_k 40, 14 tokens: cannot be run: model.top_k 40 is more than the 6 segments of a video" in told
    assert "nothing is missing" not in told


def test_rates_of_a_group_that_no_network_has_are_found_before_training(data, dry):
    told = dry(data, "table1", "--train.rates.dep", "0.1")
    assert "train.rates.dep: the groups here are deep; --train.rates {} scales none" in told


def test_what_is_done_is_not_counted_again(data, tmp_path, capfd, monkeypatch):
    pretend(monkeypatch)
    monkeypatch.setattr(plan, "find_workers", lambda device: [{}])
    reproduce_in(tmp_path, data, "prior", "--seeds", "0")
    reproduce_in(tmp_path, data, "prior", "--seeds", "0", "1", "2", "--dry-run")
    told = capfd.readouterr().out
    assert "question only: seed 0 done, seed 1 to do, seed 2 to do" in told
    assert "2 runs to do" in told


def shared_videos(data):
    """Put a question about a training video into the test."""
    rows = [read_json(data.parent / f"{split}.json") for split in ("train", "test")]
    write_json(data.parent / "test.json", [*rows[1], rows[0][0] | {"question_id": 9999}])


def test_a_split_that_shares_videos_is_refused_with_the_one_that_does_not(copied, dry):
    shared_videos(copied)
    told = dry(copied, "table2", expect=2)
    assert "table2 is of a split by video, but 00000000 is in train and test; for MUSIC-AVQA there is --config" in told
