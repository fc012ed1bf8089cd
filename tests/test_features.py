"""The feature store: three layouts, one answer; manifests and text are checked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.kinds import KINDS
from scripts import pack_features
from tests.synthetic import SENTENCES, VIDEOS, edit_json, opened, write_features, write_public
from utils.errors import UserError
from utils.files import save_npy

SIZES = ["--segments", "6", "--tokens", "4"]


def pack(root, *options):
    pack_features.main(["--features", str(root), *SIZES, *options])


@pytest.fixture
def root(tmp_path):
    write_features(tmp_path, VIDEOS, SENTENCES)
    return tmp_path


@pytest.mark.parametrize("layout", ["files", "packed", "public"])
def test_every_layout_reads_what_was_written(tmp_path, layout):
    questions = {5: (SENTENCES[2], SENTENCES[0]), 9: (SENTENCES[1], SENTENCES[0])}
    if layout == "public":
        made = write_public(tmp_path, VIDEOS, questions)
    else:
        made = write_features(tmp_path, VIDEOS, SENTENCES)
    if layout == "packed":
        pack(tmp_path)
    store = opened(tmp_path, layout)
    assert store.shapes == {"audio": (6, 128), "frame": (6, 16), "token": (6, 4, 24)}
    assert store.dtypes == {kind: made[kind][VIDEOS[0]].dtype for kind in KINDS}
    assert store.text_width == 16
    assert set(store.manifests) == (set() if layout == "public" else {*KINDS, "text"})
    wanted = [VIDEOS[4], VIDEOS[0], VIDEOS[4]]
    for kind in KINDS:
        expected = np.stack([made[kind][video] for video in wanted])
        out = np.empty_like(expected)
        assert store.read(kind, wanted, out) is out
        for read in (store.read(kind, wanted), out):
            assert read.dtype == expected.dtype
            assert read.flags.c_contiguous
            assert read.flags.writeable
            np.testing.assert_array_equal(read, expected)
        assert store.read(kind, []).shape == (0, *store.shapes[kind])
    assert store.video_bytes == sum(made[kind][VIDEOS[0]].nbytes for kind in KINDS)
    assert store.verify(VIDEOS) == {}

    text = store.read_text([5, 9, 5], *zip(*[questions[number] for number in (5, 9, 5)], strict=True))
    assert text.bank.dtype == np.float32
    assert text.question.dtype == text.prompt.dtype == np.int64
    assert len(text.bank) == 3  # each row once
    for number, question, prompt in zip((5, 9, 5), text.question, text.prompt, strict=True):
        np.testing.assert_array_equal(text.bank[question], made["text"][questions[number][0]])
        np.testing.assert_array_equal(text.bank[prompt], made["text"][questions[number][1]])


@given(order=st.lists(st.sampled_from(VIDEOS), max_size=100))
@settings(max_examples=20)
def test_packed_equals_files_in_any_order(packed_root, order):
    for kind in KINDS:
        files, packed = (opened(packed_root, layout).read(kind, order) for layout in ("files", "packed"))
        np.testing.assert_array_equal(packed, files)


@pytest.fixture(scope="module")
def packed_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    write_features(root, VIDEOS, SENTENCES)
    pack(root)
    return root


def test_only_the_wanted_kinds_are_asked_for(root):
    for folder in ("vggish", "clip_token_4"):
        (root / folder).rename(root / f"no_{folder}")
    assert list(opened(root, kinds=["frame"]).shapes) == ["frame"]
    assert opened(root, kinds=()).text_width == 16


def test_another_program_may_pad_the_header_otherwise(root):
    path = root / "vggish" / f"{VIDEOS[0]}.npy"
    array = np.load(path)
    header = repr({"descr": "<f4", "fortran_order": False, "shape": array.shape}).ljust(16 * 20 - 11) + "\n"
    path.write_bytes(b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode() + array.tobytes())
    store = opened(root)
    assert store.verify(VIDEOS) == {}
    np.testing.assert_array_equal(store.read("audio", VIDEOS[:1])[0], array)


@pytest.mark.parametrize(
    ("folder", "field", "value"),
    [
        ("vggish", "shape", [10, 128]),
        ("clip_frame", "shape", [6]),
        ("clip_token_4", "shape", [6, 5, 24]),
        ("clip_token_4", "shape", [6, 4, 0]),
        ("text", "shape", "16"),
        ("vggish", "version", 2),
        ("clip_frame", "kind", "audio"),
        ("clip_frame", "dtype", "int8"),
        ("clip_frame", "weights_sha256", "another CLIP"),
        ("clip_token_4", "weights_sha256", None),
        ("text", "weights_sha256", "another CLIP"),
    ],
)
def test_a_manifest_that_contradicts_is_refused_by_file_and_field(root, folder, field, value):
    edit_json(root / folder / "manifest.json", **{field: value})
    with pytest.raises(UserError, match=field) as caught:
        opened(root)
    assert "manifest.json" in str(caught.value)
    assert repr(value) in str(caught.value)


def test_audio_may_come_from_another_network(root):
    edit_json(root / "vggish" / "manifest.json", weights_sha256="other weights")
    opened(root)


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("vggish", "extract_audio"),
        ("clip_frame", "extract_visual"),
        ("clip_token_4", "extract_visual --tokens 4"),
        ("text", "extract_text"),
    ],
)
def test_a_missing_folder_is_named_with_the_command_that_makes_it(root, folder, command):
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(UserError, match=f"{folder}: no such folder.*{command}"):
        opened(root)


def test_tokens_of_another_number_are_pointed_at(root):
    with pytest.raises(UserError, match=r"clip_token_14: no such folder \(there is clip_token_4\)"):
        opened(root, tokens=14)


def test_a_sentence_that_is_not_encoded_names_the_command(root):
    with pytest.raises(UserError, match=r"2 of 3 sentences .*'new\?'.*python -m feat_script\.extract_text"):
        opened(root).read_text([1, 2], ["How many?", "new?"], ["newer", "newer"])


def test_surplus_rows_are_ignored_and_lacking_ones_refused(root):
    path, rows = root / "text" / "features.npy", np.load(root / "text" / "features.npy")
    save_npy(path, np.concatenate([rows, np.full((2, 16), np.nan, np.float32)]))
    np.testing.assert_array_equal(opened(root).read_text([1], SENTENCES[:1], SENTENCES[2:]).bank, rows[[0, 2]])
    save_npy(path, rows[:2])
    with pytest.raises(UserError, match="3 or more"):
        opened(root)


def test_text_that_is_not_finite_is_refused(root):
    rows = np.load(root / "text" / "features.npy")
    rows[1, 3] = np.inf
    save_npy(root / "text" / "features.npy", rows)
    opened(root).read_text([1], SENTENCES[:1], SENTENCES[2:])  # the row is not in use
    with pytest.raises(UserError, match="NaN or infinite"):
        opened(root).read_text([1], SENTENCES[1:2], SENTENCES[2:])


def test_the_published_layout_lists_its_short_token_files(tmp_path):
    write_public(tmp_path, VIDEOS, {1: ("a", "b"), 2: ("a", "c")})
    for video in VIDEOS[:2]:  # the first files too: they do not decide what is right
        save_npy(tmp_path / "ToMe_feat/tome4" / f"{video}.npy", np.zeros((2, 4, 24), np.float32))
    store = opened(tmp_path, "public")
    reason = "token: is float32 (2, 4, 24), not float32 (6, 4, 24)"
    assert store.check(VIDEOS) == dict.fromkeys(VIDEOS[:2], reason)
    (tmp_path / "clip_feats/qaPrompt_ViT-L14@336px/2.npy").unlink()
    with pytest.raises(UserError, match=r"1 questions are faulty\n +1  no such file: 2"):
        store.read_text([1, 2], ["a", "a"], ["b", "c"])
    with pytest.raises(UserError, match=r"no file is float16 or float32 \(10, any\).*\(6, 128\)"):
        opened(tmp_path, "public", segments=10)
    with pytest.raises(UserError, match="tome14: no such folder"):
        opened(tmp_path, "public", tokens=14)
