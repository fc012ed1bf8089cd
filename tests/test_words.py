"""Words of the questions: what CLIP's text transformer leaves of them, stored, and given to networks that name them."""

import json

import numpy as np
import openpyxl
import pytest
import torch

from dataset.data import open_data
from dataset.kinds import KINDS, WORDS
from dataset.loader import Loader
from dataset.text_prompt import PROMPT, TEMPLATE
from feat_script import extract_text
from feat_script.clip_vision import clip, encode_words, load_clip
from scripts.pack_features import main as pack_features
from tests.small_encoders import save_small_clip
from tests.small_run import data_config, make_data
from tests.synthetic import SENTENCES, VIDEOS, opened, write_features, write_words
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json
from utils.runtime import Runtime
from utils.text_rows import word_rows

ROWS = [
    {"question_content": "Is there a <Object> sound?", "templ_values": '["acoustic_guitar"]'},
    {"question_content": "Is there a <Object> sound？ ", "templ_values": '["acoustic_guitar"]'},
    {"question_content": "Where is the performance?", "templ_values": "[]"},
]
QUESTIONS = ["Is there a acoustic guitar sound?", "Where is the performance?"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small_clip(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture
def extract(tmp_path, weights):
    """Run the script on rows of annotations; returns the folder of the text."""
    book = openpyxl.Workbook()
    for row in [(TEMPLATE, PROMPT), ("*", "The sounds of the video.")]:
        book.active.append(row)
    book.save(tmp_path / "prompts.xlsx")

    def run(*options, rows=ROWS):
        (tmp_path / "a.json").write_text(json.dumps(rows))
        base = ["--annotations", tmp_path / "a.json", "--prompts", tmp_path / "prompts.xlsx", "--sheet", "Sheet"]
        base += ["--clip", weights, "--out", tmp_path, "--device", "cpu", *options]
        assert extract_text.main([str(option) for option in base]) == 0
        return tmp_path / "text"

    return run


def stored(folder):
    return read_json(folder / "words.json"), np.load(folder / "words.npy")


def test_words_are_what_clip_projects(extract, weights):
    sentences, words = stored(extract("--words"))
    assert sentences == QUESTIONS  # no prompt is among them
    assert (words.shape, words.dtype) == ((2, 77, 64), np.float16)
    model, _, _ = load_clip(str(weights), "cpu")
    states = []
    model.ln_final.register_forward_hook(lambda module, given, made: states.append(made))
    ids = clip.tokenize(sentences)
    text = model.encode_text(ids)
    np.testing.assert_allclose(words, states[0], atol=2e-3)  # half precision: three digits
    ends = torch.from_numpy(words)[torch.arange(2), ids.argmax(dim=1)].float()
    torch.testing.assert_close(ends @ model.text_projection, text, atol=2e-2, rtol=0)


def test_nothing_is_extracted_that_was_not_asked_for(extract):
    folder = extract()
    assert not list(folder.glob("words*"))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    extract("--words")
    assert before == {path: path.stat().st_mtime_ns for path in before}  # text that is there stays


def test_only_new_questions_are_encoded_and_a_killed_run_goes_on(extract, monkeypatch):
    _, before = stored(extract("--words"))
    rows = [*ROWS, *({"question_content": f"Who plays {n}?"} for n in range(5))]
    monkeypatch.setattr(extract_text, "BLOCK", 2)
    encoded = []

    def encode(model, some, truncate):
        if len(encoded) == 4:
            raise KeyboardInterrupt
        encoded.extend(some)
        return encode_words(model, some, truncate)

    with monkeypatch.context() as patch:
        patch.setattr(extract_text, "encode_words", encode)
        with pytest.raises(SystemExit):
            extract("--words", rows=rows)
    assert encoded == [f"Who plays {n}?" for n in range(4)]
    sentences, words = stored(extract("--words", rows=rows))
    assert sentences == QUESTIONS + [f"Who plays {n}?" for n in range(5)]
    np.testing.assert_array_equal(words[:2], before)
    assert np.abs(words).max(axis=(1, 2)).all()


def test_questions_as_published_are_rows_of_their_own(extract):
    extract("--words")
    folder = extract("--words", "--spelling", "published")
    spelt = ["Is there a acoustic_guitar sound", "Where is the performance"]
    assert stored(folder)[0] == QUESTIONS + spelt
    assert set(spelt) < set(read_json(folder / "sentences.json"))


@pytest.fixture
def root(tmp_path):
    """Features and words; asks for the kinds by `opened`."""
    write_features(tmp_path, VIDEOS, SENTENCES)
    return tmp_path


@pytest.mark.parametrize("layout", ["files", "packed"])
def test_a_question_has_its_words(root, layout):
    made = write_words(root)
    if layout == "packed":
        pack_features(["--features", str(root), "--segments", "6", "--tokens", "4"])
    store = opened(root, layout, (*KINDS, WORDS))
    assert store.shapes[WORDS] == (77, 24)
    asked = [SENTENCES[2], SENTENCES[0], SENTENCES[2]]
    text = store.read_text([1, 2, 3], asked, [SENTENCES[1]] * 3)
    assert text.words.shape == (2, 77, 24)  # of what is asked; a prompt has none
    for sentence, row in zip(asked, text.question, strict=True):
        np.testing.assert_array_equal(text.words[row], made[sentence])


def test_words_are_read_for_those_who_name_them_alone(root):
    write_words(root)
    (root / "text/words.npy").write_bytes(b"spoilt")
    store = opened(root)
    assert WORDS not in store.shapes
    assert store.read_text([1], SENTENCES[:1], SENTENCES[1:2]).words is None
    with pytest.raises(UserError, match=r"words\.npy: not a whole .*; encode again with: .*extract_text --words"):
        opened(root, kinds=(WORDS,))


AGAIN = r"python -m feat_script\.extract_text --words"


def shorten(files):
    save_npy(files.features, np.load(files.features)[:2])


def widen(files):
    save_npy(files.features, np.load(files.features).astype(np.float32))


def flip(files):
    files.note_digest(read_json(files.sentences))
    held = bytearray(files.features.read_bytes())
    held[-3] ^= 1
    files.features.write_bytes(held)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda files: files.sentences.unlink(), rf"words\.json: no such file; encode again with: {AGAIN}"),
        (shorten, rf"words\.npy: is float16 \(2, 77, 24\), but words\.json .* \(3 or more, any, any\); .*{AGAIN}"),
        (widen, rf"words\.npy: is float32 .*{AGAIN}"),
        (flip, rf"words\.json and words\.npy are not as words_digest\.json noted them; .*{AGAIN}"),
    ],
    ids=["lost", "short", "wide", "damaged"],
)
def test_words_that_are_not_whole_are_refused(root, harm, message):
    write_words(root)
    harm(word_rows(root / "text"))
    with pytest.raises(UserError, match=message):
        opened(root, kinds=(WORDS,))


def test_words_that_lack_a_question_or_are_not_finite_are_refused(root):
    files, made = word_rows(root / "text"), write_words(root)
    write_json(files.sentences, SENTENCES[:2])  # the last row is surplus
    store = opened(root, kinds=(WORDS,))
    assert store.read_text([1], SENTENCES[:1], SENTENCES[2:]).words is not None
    with pytest.raises(UserError, match=rf"words\.json: 1 of 1 sentences are not encoded, .* with: {AGAIN} \(only"):
        store.read_text([1], SENTENCES[2:], SENTENCES[:1])
    made[SENTENCES[1]][3, 4] = np.inf
    save_npy(files.features, np.stack([*made.values()]))
    with pytest.raises(UserError, match="words hold NaN or infinite values"):
        opened(root, kinds=(WORDS,)).read_text([1], SENTENCES[1:2], SENTENCES[:1])


def test_the_public_layout_has_none(root):
    with pytest.raises(UserError, match="the public layout has no words of the questions"):
        opened(root, "public", (WORDS,))


@pytest.mark.parametrize("residency", ["device", "disk"])
def test_a_batch_holds_words_of_its_questions(tmp_path, residency):
    path = make_data(tmp_path)
    made = write_words(tmp_path / "features")
    data = open_data(data_config(path), ("frame", WORDS), ["train", "val"])
    split = data.splits["val"]
    loader = Loader(data, Runtime(torch.device("cpu")), residency, workers=1)
    (batch,) = loader.by_video(split, np.arange(9), 9)
    assert set(batch.inputs) == {"frame", "words", "text", "video", "asked", "question", "prompt"}
    assert any(batch.inputs["words"] is kept for kept in loader.resident)
    for row, words in zip(batch.rows, batch.inputs["words"][batch.inputs["question"]], strict=True):
        np.testing.assert_array_equal(words, made[split.questions["question"][row]])
