"""Damage that neither a file's length nor its header shows is found, told with a remedy, and mended."""

import contextlib
import errno
import os
import signal
import threading
import zipfile

import numpy as np
import openpyxl
import pytest

import train
from dataset.bandstand.benchmark import PRESETS, Preset
from dataset.text_prompt import PROMPT, TEMPLATE, PromptTable
from feat_script import extract_text
from scripts import pack_features, render_bandstand
from scripts.reproduce.queue import Run
from tests.extraction import says, snapshot
from tests.small_run import assert_same_run, make_data, trained
from tests.synthetic import SENTENCES, VIDEOS, opened, write_features
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import array_sha256, seal, unseal, write_json
from utils.run_log import RunLog
from utils.status import STATUS
from utils.text_rows import text_rows

pytest_plugins = ["tests.extraction_fixtures"]


def flip(path, place=-3):
    """Change a bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def root(tmp_path):
    """Features with the digests that extraction notes."""
    made = write_features(tmp_path, VIDEOS, SENTENCES)
    for video in VIDEOS:
        digests = {"vggish": "audio", "clip_frame": "frame", "clip_token_4": "token"}
        noted = {folder: array_sha256(made[kind][video]) for folder, kind in digests.items()}
        for first in ("vggish", "clip_frame"):
            seal(tmp_path / first / STATUS / f"{video}.json", {"source": {}, "features": noted})
    text_rows(tmp_path / "text").note_digest(list(made["text"]))
    return tmp_path


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_extraction_makes_again_what_holds_other_data_than_it_noted(script, request, tmp_path):
    run, kind = request.getfixturevalue(script), {"audio": "vggish", "visual": "clip_token_14"}[script]
    assert run() == 0
    path = tmp_path / "features" / kind / "whole.npy"
    expected = path.read_bytes()
    flip(path)
    assert run() == 0
    assert path.read_bytes() == expected
    os.utime(path)  # a copy
    before = snapshot(tmp_path / "features" / kind)
    assert run() == 0
    assert {name: data for name, (_, data) in snapshot(tmp_path / "features" / kind).items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_a_status_with_another_letter_is_made_again(audio, tmp_path):
    assert audio() == 0
    path = tmp_path / "features/vggish" / STATUS / "whole.json"
    expected = path.read_bytes()
    path.write_bytes(expected.replace(b"whole.mp4", b"whoke.mp4"))
    assert audio() == 0
    assert path.read_bytes() == expected


def test_features_that_are_not_as_noted_are_named(root):
    assert opened(root).verify(VIDEOS) == {}
    flip(root / "clip_token_4" / f"{VIDEOS[2]}.npy")
    wanted = {VIDEOS[2]: "token: holds other data than were extracted; delete it and extract it again"}
    assert opened(root).verify(VIDEOS) == wanted
    with pytest.raises(SystemExit):
        pack_features.main(["--features", str(root), "--segments", "6", "--tokens", "4"])


def test_a_lost_file_is_no_reason_for_a_smaller_pack(root, capfd):
    (root / "vggish" / f"{VIDEOS[0]}.npy").unlink()
    line = says(capfd, pack_features.main, ["--features", str(root), "--segments", "6", "--tokens", "4"])
    assert "1 videos are faulty" in line


def test_a_pack_that_is_not_as_packed_is_named_and_a_copy_read_once(root):
    pack_features.main(["--features", str(root), "--segments", "6", "--tokens", "4"])
    path = root / "vggish/packed/features.npy"
    os.utime(path, (1e9, 1e9))
    before = (root / "vggish/packed/index.json").read_bytes()
    assert opened(root, "packed").verify(VIDEOS) == {}
    assert (root / "vggish/packed/index.json").read_bytes() != before  # noted
    flip(path)
    (fault,) = opened(root, "packed").verify(VIDEOS).values()
    assert "holds other data in the pack than were packed; pack with" in fault


def test_text_that_is_not_as_noted_is_named(root):
    opened(root)
    flip(root / "text/features.npy")
    with pytest.raises(UserError, match=r"text: sentences\.json and features\.npy are not as .* encode again with"):
        opened(root)


@pytest.mark.parametrize("old", [False, True])
def test_damaged_text_is_encoded_again_even_if_that_is_killed(tmp_path, weights, monkeypatch, old):
    book = openpyxl.Workbook()
    for row in [(TEMPLATE, PROMPT), ("Where is it?", "It is seen.")]:
        book.active.append(row)
    book.save(tmp_path / "prompts.xlsx")
    write_json(tmp_path / "a.json", [{"question_content": "Where is it?", "templ_values": "[]"}])
    options = ["--annotations", tmp_path / "a.json", "--prompts", tmp_path / "prompts.xlsx", "--sheet", "Sheet"]
    options += ["--clip", weights["clip"], "--out", tmp_path, "--device", "cpu"]
    options = [str(option) for option in options]
    assert extract_text.main(options) == 0
    path = tmp_path / "text/features.npy"
    expected = path.read_bytes()
    flip(path)
    if old:  # of a release that noted no digest, where length alone tells
        (tmp_path / "text/digest.json").unlink()
        path.write_bytes(expected[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(extract_text, "encode_sentences", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_text.main(options)  # ends while the rows are zeros
    assert extract_text.main(options) == 0
    assert path.read_bytes() == expected


def test_a_checkpoint_with_another_bit_is_refused(tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"weights": np.ones(1000).tolist()})
    flip(tmp_path / "best.pt", 900)
    with pytest.raises(UserError, match=r"best\.pt: not a readable checkpoint .* train again with another --out"):
        load_checkpoint(tmp_path / "best.pt")


def test_a_resumed_run_mends_its_metrics_and_wants_its_best_checkpoint(tmp_path, capfd):
    data = make_data(tmp_path / "data")
    options = ["--config", str(data), "--out", str(tmp_path / "run"), "--resume", "--train.epochs"]
    whole = trained("--config", data, "--out", tmp_path / "whole", "--train.epochs", 2)
    train.main([*options, "1"])
    metrics, best = tmp_path / "run/metrics.jsonl", tmp_path / "run/best.pt"
    metrics.write_bytes(b"\xff{" + metrics.read_bytes())
    good = best.read_bytes()
    best.write_bytes(good[:5000])
    assert "best.pt: not a readable checkpoint" in says(capfd, train.main, [*options, "2"])
    best.write_bytes(good)
    (tmp_path / "run/config.yaml").unlink()
    train.main([*options, "2"])
    assert_same_run(tmp_path / "run", whole)
    (tmp_path / "run/config.yaml").unlink()
    train.main([*options, "2"])
    assert (tmp_path / "run/config.yaml").exists()


def test_damaged_results_of_a_run_are_named(tmp_path):
    run, test = Run("a", (), None, tmp_path), tmp_path / "test"
    seal(test / "metrics.json", {"accuracy": {}, "predictions_sha256": "other"})
    (test / "predictions.csv").write_text("question_id\n")
    again = r"delete .*metrics\.json and repeat"
    with pytest.raises(UserError, match=rf"predictions\.csv: holds something else .*{again}"):
        _ = run.predictions
    write_json(test / "metrics.json", unseal(test / "metrics.json") | {"digest": "other"})
    with pytest.raises(UserError, match=rf"metrics\.json: holds something else .*{again}"):
        _ = run.results
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.jsonl: is damaged"):
        _ = run.epochs


def test_a_damaged_video_is_rendered_again_even_if_that_is_killed(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(PRESETS, "demo", Preset(videos=2, seconds=11))
    render_bandstand.main(["--out", str(tmp_path), "--workers", "1"])
    before = {path: data for path, (_, data) in snapshot(tmp_path).items()}
    flip(tmp_path / "videos/00000001.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(render_bandstand, "render", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert "run again" in says(capfd, render_bandstand.main, ["--out", str(tmp_path), "--workers", "1"])
    render_bandstand.main(["--out", str(tmp_path), "--workers", "1"])
    assert {path: data for path, (_, data) in snapshot(tmp_path).items()} == before


def test_no_damage_of_a_sheet_is_more_than_a_line(tmp_path):
    book = openpyxl.Workbook()
    for row in [(TEMPLATE, PROMPT), *((f"Where is {n}?", f"{n} is seen.") for n in range(50))]:
        book.active.append(row)
    book.save(path := tmp_path / "a.xlsx")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("xl/worksheets/sheet1.xml").header_offset
    for place in range(begin, begin + 600, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            PromptTable.read(path, "Sheet")


def test_a_full_disk_under_tensorboard_is_no_traceback(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    RunLog(tmp_path, [], 0, 0)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    thread = threading.Thread(target=full)
    thread.start()
    thread.join()
    assert told == []
