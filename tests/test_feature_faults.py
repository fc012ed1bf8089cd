"""Every faulty feature file is found before training, told in a line, and looked for once."""

import errno
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.feature_folder import Folder, all_finite, describe_faults
from scripts import pack_features
from tests.synthetic import SENTENCES, VIDEOS, edit_json, opened, write_features
from utils.errors import UserError
from utils.files import save_npy

SIZES = ["--segments", "6", "--tokens", "4"]


def pack(root, *options):
    pack_features.main(["--features", str(root), *SIZES, *options])


@pytest.fixture
def root(tmp_path):
    write_features(tmp_path, VIDEOS, SENTENCES)
    return tmp_path


def test_every_fault_of_a_file_is_named(root):
    folder = root / "clip_token_4"
    whole = np.load(folder / f"{VIDEOS[0]}.npy")
    paths = [folder / f"{video}.npy" for video in VIDEOS]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    save_npy(paths[2], whole[:2])
    save_npy(paths[3], whole.astype(np.float32))
    np.save(paths[4], np.array([{"a": "pickle"}], object), allow_pickle=True)
    paths[5].write_bytes(b"")
    np.save(paths[6], np.asfortranarray(whole))
    faults = opened(root).check(VIDEOS)
    assert list(faults) == VIDEOS
    for video, words in zip(
        VIDEOS,
        ["no such file", "truncated", "(2, 4, 24), not float16 (6, 4, 24)", "is float32", "pickled", "EOF", "column"],
        strict=True,
    ):
        assert faults[video].startswith("token: ")
        assert words in faults[video]
        assert str(root) not in faults[video]  # so that equal reasons can be told as one
        with pytest.raises(UserError, match=video):
            opened(root).read("token", [video])


def test_a_file_with_more_than_its_array_is_faulty(root):
    path = root / "clip_token_4" / f"{VIDEOS[2]}.npy"
    path.write_bytes(path.read_bytes() + b"more")
    assert list(opened(root).check(VIDEOS)) == [VIDEOS[2]]
    with pytest.raises(UserError, match="truncated or overlong"):
        opened(root).read("token", [VIDEOS[2]])


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["audio", "token"])
def test_verifying_reads_the_numbers_and_checking_does_not(root, kind, value):
    path = root / {"audio": "vggish", "token": "clip_token_4"}[kind] / f"{VIDEOS[3]}.npy"
    array = np.load(path)
    array.flat[17] = value
    save_npy(path, array)
    store = opened(root)
    assert store.check(VIDEOS) == {}
    assert store.verify(VIDEOS) == {VIDEOS[3]: f"{kind}: holds NaN or infinite values"}


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), half=st.booleans())
def test_finite_means_what_numpy_says(bits, half):
    array = np.array(bits, np.uint32).view(np.float16 if half else np.float32)
    assert all_finite(array) == np.isfinite(array).all()


def test_finite_tells_all_halves_apart():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert [all_finite(one) for one in every.reshape(-1, 1)] == np.isfinite(every).tolist()


@given(data=st.binary(max_size=300), spoil=st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=4))
@settings(max_examples=200)
def test_no_content_of_a_file_is_more_than_a_fault(tmp_path_factory, data, spoil):
    folder = Folder(tmp_path_factory.getbasetemp(), (3, 8), np.dtype("float16"))
    path = folder.path / "fuzzed.npy"
    path.write_bytes(data)
    assert folder.fault("fuzzed") is not None
    array = np.ones((3, 8), np.float16)
    whole = bytearray(folder.header + array.tobytes())
    for place, byte in spoil:
        whole[place] = byte
    path.write_bytes(whole)
    if folder.fault("fuzzed") is None:  # then the header still says the same
        np.testing.assert_array_equal(folder.read(["fuzzed"])[0], np.load(path))


def test_a_header_check_touches_headers_only(tmp_path):
    folder = Folder(tmp_path, (1 << 23, 1 << 18), np.dtype("float16"))
    with open(tmp_path / "huge.npy", "wb") as file:  # four terabytes of hole: to read them takes many minutes
        file.write(folder.header)
        file.truncate(len(folder.header) + folder.nbytes)
    start = time.perf_counter()
    assert folder.check(["huge"]) == {}
    assert time.perf_counter() - start < 60


def test_faults_are_told_by_reason_with_counts(root):
    for video in VIDEOS[:5]:
        (root / "vggish" / f"{video}.npy").unlink()
    for number, video in enumerate(VIDEOS[:2]):
        path = root / "clip_frame" / f"{video}.npy"
        path.write_bytes(path.read_bytes()[: 150 + number])
    faults = opened(root).check(VIDEOS)
    assert faults[VIDEOS[0]].splitlines()[0] == "audio: no such file"  # and its other fault in a line of its own
    first, second = describe_faults(faults).splitlines()
    assert first == f"     5  audio: no such file: {', '.join(VIDEOS[:3])}, ..."
    assert second.startswith("     2  frame: truncated")
    assert describe_faults({}) == ""


@pytest.fixture
def reads(monkeypatch):
    """The videos whose numbers are read."""
    seen, fill = [], Folder._fill

    def counted(self, video, out):
        seen.append((self.path.name, video))
        fill(self, video, out)

    monkeypatch.setattr(Folder, "_fill", counted)
    return seen


def test_what_passed_is_read_again_only_when_it_changed(root, reads):
    assert opened(root).verify(VIDEOS) == {}
    assert len(reads) == 3 * len(VIDEOS)
    reads.clear()
    assert opened(root).verify(VIDEOS) == {}
    assert reads == []
    path = root / "vggish" / f"{VIDEOS[2]}.npy"
    os.utime(path, ns=(1, 1))
    assert opened(root).verify(VIDEOS) == {}
    assert reads == [("vggish", VIDEOS[2])]
    save_npy(path, np.full((6, 128), np.nan, np.float32))
    (root / "clip_frame" / f"{VIDEOS[1]}.npy").unlink()
    expected = {VIDEOS[2]: "audio: holds NaN or infinite values", VIDEOS[1]: "frame: no such file"}
    for _ in range(2):  # a fault is never recorded as passed
        assert opened(root).verify(VIDEOS) == expected
    assert opened(root).verify([VIDEOS[0]]) == {}  # asking for fewer forgets nobody
    reads.clear()
    assert opened(root).verify(VIDEOS) == expected
    assert len(reads) == 2


def test_what_passed_for_another_shape_is_read_again(root):
    opened(root).verify(VIDEOS)
    for folder in ("clip_frame", "clip_token_4", "text"):
        edit_json(root / folder / "manifest.json", dtype="float32")
    faults = opened(root, kinds=["frame"], text=False).verify(VIDEOS)
    assert list(faults) == VIDEOS


def test_a_folder_that_cannot_be_written_is_checked_each_time(root, reads, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    for _ in range(2):
        reads.clear()
        assert opened(root).verify(VIDEOS) == {}
        assert len(reads) == 3 * len(VIDEOS)
    assert not list(root.glob("*/.verified.json"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"whole": 3, "made_for": {"shape": [6, 16], "dtype": "float16"}}']
)
def test_a_broken_record_of_what_passed_counts_as_none(root, reads, content):
    (root / "clip_frame/.verified.json").write_text(content)
    for count in (3 * len(VIDEOS), 0):
        reads.clear()
        assert opened(root).verify(VIDEOS) == {}
        assert len(reads) == count


@pytest.mark.parametrize("video", ["../clip_frame/00000001", "/etc/passwd", "a/b", "", "nul\0", "half\ud800"])
def test_an_id_never_leaves_its_folder(root, video):
    store = opened(root)
    assert "must be a file name" in store.check([video])[video]
    for ask in (store.read, store.prefetch):
        with pytest.raises(UserError, match="must be a file name"):
            ask("audio", [video])
