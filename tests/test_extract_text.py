"""Text features: every distinct sentence once, only new ones encoded, killed runs repaired."""

import json

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
            lambda model, sentences: encoded.extend(sentences) or encode_sentences(model, sentences),
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
    assert "no row for 2 templates: 'Is there a <Object> sound?' (2 questions)" in capfd.readouterr().err
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
    sentences, faults = read_sentences(paths, table)
    assert faults == []
    assert len(set(sentences)) == len(sentences)
    assert 1000 < len(sentences) < 10_000
    assert not any(mark in sentence for sentence in sentences for mark in "<>_[")
