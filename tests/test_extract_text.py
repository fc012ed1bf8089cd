"""Text features: every distinct sentence once, only new ones encoded, killed runs repaired."""

import errno
import json
import os
import shutil

import numpy as np
import openpyxl
import pytest

from dataset.text_prompt import PROMPT, TEMPLATE, PromptTable
from feat_script import extract_text
from feat_script.clip_vision import encode_sentences, load_clip
from feat_script.extract_text import read_sentences
from tests.small_encoders import save_small_clip

ROWS = [
    {"question_content": "Is there a <Object> sound?", "templ_values": '["acoustic_guitar"]'},
    {"question_content": "Is there a <Object> sound?", "templ_values": '["violin"]'},
    {"question_content": "Is there a <Object> sound？ ", "templ_values": '["violin"]'},
    {"question_content": "Where is the performance?", "templ_values": "[]"},
]
PROMPTS = {"Is there a <Object> sound?": "The <Object> is sounding.", "Where is the performance?": "A place is seen."}
SENTENCES = [
    *("Is there a acoustic guitar sound?", "The acoustic guitar is sounding."),
    *("Is there a violin sound?", "The violin is sounding."),
    *("Where is the performance?", "A place is seen."),
]


def write_sheet(path, prompts):
    book = openpyxl.Workbook()
    book.active.title = "S"
    for row in [(TEMPLATE, PROMPT), *prompts.items()]:
        book.active.append(row)
    book.save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small_clip(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture
def run(tmp_path, weights, monkeypatch):
    """Run the script; return the sentences that it encoded."""
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    write_sheet(tmp_path / "prompts.xlsx", PROMPTS)

    def run(*options):
        encoded = []
        monkeypatch.setattr(
            extract_text,
            "encode_sentences",
            lambda model, sentences, truncate: (
                encoded.extend(sentences) or encode_sentences(model, sentences, truncate)
            ),
        )
        base = ["--annotations", tmp_path / "a.json", "--prompts", tmp_path / "prompts.xlsx", "--sheet", "S"]
        base += ["--clip", weights, "--out", tmp_path / "out", "--device", "cpu", *options]
        assert extract_text.main([str(option) for option in base]) == 0
        return encoded

    return run


def stored(tmp_path):
    folder = tmp_path / "out" / "text"
    return json.loads((folder / "sentences.json").read_text()), np.load(folder / "features.npy")


def test_every_distinct_sentence_once(run, tmp_path, weights):
    assert run() == SENTENCES
    sentences, features = stored(tmp_path)
    assert sentences == SENTENCES
    assert (features.shape, features.dtype) == ((6, 64), np.float32)
    model, name, digest = load_clip(str(weights), "cpu")
    for sentence, row in zip(sentences, features, strict=True):
        np.testing.assert_allclose(encode_sentences(model, [sentence])[0], row, atol=1e-6)
    assert json.loads((tmp_path / "out" / "text" / "manifest.json").read_text()) == {
        **{"version": 1, "kind": "text", "encoder": name, "weights_sha256": digest},
        **{"shape": [64], "dtype": "float32"},
    }


def test_an_edited_spreadsheet_encodes_only_what_is_new(run, tmp_path):
    run()
    _, before = stored(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "text").iterdir()}
    assert run() == []
    assert files == {path: path.stat().st_mtime_ns for path in files}
    write_sheet(tmp_path / "prompts.xlsx", PROMPTS | {"Where is the performance?": "The place shows."})
    assert run() == ["The place shows."]
    sentences, features = stored(tmp_path)
    assert sentences == [*SENTENCES, "The place shows."]
    assert np.array_equal(features[:6], before)


def test_killed_between_the_two_files(run, tmp_path):
    """Features are replaced first: their surplus rows are ignored, and replaced the next time."""
    run()
    folder = tmp_path / "out" / "text"
    np.save(folder / "features.npy", np.concatenate([stored(tmp_path)[1], np.full((3, 64), 7, np.float32)]))
    assert run() == []
    write_sheet(tmp_path / "prompts.xlsx", PROMPTS | {"Where is the performance?": "The place shows."})
    assert run() == ["The place shows."]
    assert stored(tmp_path)[1].shape == (7, 64)
    assert (stored(tmp_path)[1] != 7).all()


@pytest.mark.parametrize("harm", ["lost", "cut", "short"])
def test_harmed_features_are_encoded_again(run, tmp_path, harm):
    run()
    path = tmp_path / "out" / "text" / "features.npy"
    before = path.read_bytes()
    if harm == "lost":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(before[:-10])
    else:
        np.save(path, np.load(path)[:3])
    assert run() == SENTENCES
    assert path.read_bytes() == before


def test_killed_after_a_block_it_goes_on_with_the_next(run, tmp_path, monkeypatch):
    run()
    sentences, features = stored(tmp_path)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(extract_text, "BLOCK", 2)

    def killed(model, some, truncate, encode=encode_sentences):
        if some != sentences[:2]:
            raise KeyboardInterrupt
        return encode(model, some, truncate)

    with monkeypatch.context() as patch:
        patch.setattr("tests.test_extract_text.encode_sentences", killed)
        with pytest.raises(SystemExit):
            run()
    held, rows = stored(tmp_path)
    assert held == sentences[:2]
    np.testing.assert_array_equal(rows[:2], features[:2])
    assert rows.shape == features.shape  # the rest is room
    assert run() == sentences[2:]
    assert stored(tmp_path)[0] == sentences
    np.testing.assert_array_equal(stored(tmp_path)[1], features)


def test_a_disk_that_is_full_keeps_the_blocks_before(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(extract_text, "BLOCK", 2)
    calls = iter(range(9))

    def full(descriptor):
        if next(calls) == 2:  # the first is the manifest's
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SystemExit):
            run()
    assert "features.npy: cannot be written (No space left on device)" in capfd.readouterr().err
    assert stored(tmp_path)[0] == SENTENCES[:2]
    assert run() == SENTENCES[2:]


def test_rows_too_long_for_clip_are_named_all_before_any_is_encoded(run, tmp_path, capfd):
    long = [{"question_id": n, "question_content": f"Is it {'very ' * 80}loud {n}?"} for n in (11, 12)]
    (tmp_path / "b.json").write_text(json.dumps([*ROWS, *long]))
    (tmp_path / "c.json").write_text(json.dumps([long[0] | {"question_id": "x"}]))
    files = ["--annotations", tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"]
    write_sheet(tmp_path / "prompts.xlsx", PROMPTS | {"*": "The sounds of the video."})
    with pytest.raises(SystemExit):
        run(*files)
    said = capfd.readouterr().err
    assert "3 questions, or their prompts, have" in said
    assert "77 tokens" in said
    assert "b.json: question 11, 12\n" in said
    assert "c.json: question x\n" in said
    assert not (tmp_path / "out/text/sentences.json").exists()
    assert len(run(*files, "--truncate")) == len(SENTENCES) + 3


def test_an_out_that_cannot_be_made_is_said(run, tmp_path, capfd):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        run("--out", tmp_path / "file/x")
    assert end.value.code == 2
    assert "file/x/text/manifest.json: cannot be written (Not a directory)" in capfd.readouterr().err


def test_annotations_with_a_byte_order_mark(run, tmp_path):
    (tmp_path / "marked.json").write_text(json.dumps(ROWS), encoding="utf-8-sig")
    assert run("--annotations", tmp_path / "marked.json") == SENTENCES


def test_bad_rows_are_counted_and_left_out(run, tmp_path, capfd):
    (tmp_path / "b.json").write_text(json.dumps([{"question_content": "Is it?", "templ_values": "?"}, *ROWS]))
    assert run("--annotations", tmp_path / "a.json", tmp_path / "b.json") == SENTENCES
    err = capfd.readouterr().err
    assert "1 rows of the annotations left out" in err
    assert "b.json, row 1: field 'templ_values'" in err


def test_a_question_without_a_prompt_stops(run, tmp_path, capfd):
    write_sheet(tmp_path / "prompts.xlsx", {"Where is the performance?": "A place is seen."})
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert "no row for 2 templates of" in error
    assert "a.json: 'Is there a <Object> sound?' (2 questions)" in error
    assert not (tmp_path / "out").exists()


def test_another_clip_is_refused(run, tmp_path, capfd):
    run()
    other = save_small_clip(tmp_path / "other.pt", seed=1)
    with pytest.raises(SystemExit):
        run("--clip", other)
    assert "text/manifest.json: field 'encoder' is 'small'" in capfd.readouterr().err


def test_real_questions(shared):
    table = PromptTable.read("dataset/TextPrompt.xlsx", "MUSIC-AVQA")
    paths = [str(shared / "music_avqa" / name) for name in ("val.json", "test.json")]
    sentences, questions, faults = read_sentences(paths, table)
    assert faults == []
    assert len(set(sentences)) == len(sentences)
    assert 1000 < len(sentences) < 10_000
    assert set(questions) < set(sentences)
    assert not any(mark in sentence for sentence in sentences for mark in "<>_[")
