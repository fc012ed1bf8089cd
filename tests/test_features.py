"""The feature store: three layouts, one answer; every fault found before training and told in a line."""

import errno
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import feature_pack
from dataset.feature_folder import Folder, all_finite
from dataset.feature_pack import write_pack
from dataset.features import KINDS, describe_faults, open_features
from scripts import check_features, pack_features
from tests.synthetic import write_features, write_public
from utils.errors import UserError
from utils.files import save_npy

VIDEOS = [f"{number:08d}" for number in range(7)]
SENTENCES = ["How many?", "Where is it?", "The cello sounds."]
SIZES = ["--segments", "6", "--tokens", "4"]


@pytest.fixture
def root(tmp_path):
    write_features(tmp_path, VIDEOS, SENTENCES)
    return tmp_path


def opened(root, layout="files", kinds=KINDS, segments=6, tokens=4, **options):
    return open_features(root, layout, kinds, segments, tokens, **options)


def pack(root, *options):
    pack_features.main(["--features", str(root), *SIZES, *options])


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# --- what is read is what was written ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["files", "packed", "public"])
def test_every_layout_reads_what_was_written(tmp_path, layout):
    questions = {5: (SENTENCES[0], SENTENCES[2]), 9: (SENTENCES[1], SENTENCES[2])}
    if layout == "public":
        made = write_public(tmp_path, VIDEOS, questions)
    else:
        made = write_features(tmp_path, VIDEOS, SENTENCES)
    if layout == "packed":
        pack(tmp_path)
    store = opened(tmp_path, layout)
    assert store.shapes == {"audio": (6, 128), "frame": (6, 16), "token": (6, 4, 24)}
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
    assert store.check(VIDEOS, deep=True) == {}

    text = store.read_text([5, 9, 5], *zip(*[questions[number] for number in (5, 9, 5)], strict=True))
    assert text.bank.dtype == np.float32
    assert text.question.dtype == text.prompt.dtype == np.int64
    assert len(text.bank) == 3  # each row once
    for number, question, prompt in zip((5, 9, 5), text.question, text.prompt, strict=True):
        np.testing.assert_array_equal(text.bank[question], made["text"][questions[number][0]])
        np.testing.assert_array_equal(text.bank[prompt], made["text"][questions[number][1]])


@given(order=st.lists(st.sampled_from(VIDEOS), max_size=100))
@settings(max_examples=20, deadline=None)
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


def test_a_store_travels_to_worker_processes_without_its_arrays(packed_root):
    store = opened(packed_root, "packed")
    before = store.read("token", VIDEOS)
    sent = pickle.dumps(store)
    assert len(sent) < before.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(sent).read("token", VIDEOS), before)


def test_another_program_may_pad_the_header_otherwise(root):
    path = root / "vggish" / f"{VIDEOS[0]}.npy"
    array = np.load(path)
    header = repr({"descr": "<f4", "fortran_order": False, "shape": array.shape}).ljust(16 * 20 - 11) + "\n"
    path.write_bytes(b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header.encode() + array.tobytes())
    store = opened(root)
    assert store.check(VIDEOS, deep=True) == {}
    np.testing.assert_array_equal(store.read("audio", VIDEOS[:1])[0], array)


# --- faulty files --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["audio", "token"])
def test_only_a_deep_check_reads_the_numbers(root, kind, value):
    path = root / {"audio": "vggish", "token": "clip_token_4"}[kind] / f"{VIDEOS[3]}.npy"
    array = np.load(path)
    array.flat[17] = value
    save_npy(path, array)
    store = opened(root)
    assert store.check(VIDEOS) == {}
    assert store.check(VIDEOS, deep=True) == {VIDEOS[3]: f"{kind}: holds NaN or infinite values"}


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40), half=st.booleans())
def test_finite_means_what_numpy_says(bits, half):
    array = np.array(bits, np.uint32).view(np.float16 if half else np.float32)
    assert all_finite(array) == np.isfinite(array).all()


def test_finite_tells_all_halves_apart():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert [all_finite(one) for one in every.reshape(-1, 1)] == np.isfinite(every).tolist()


@given(data=st.binary(max_size=300), spoil=st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=4))
@settings(max_examples=200, deadline=None)
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
    folder = Folder(tmp_path, (1 << 20, 1 << 18), np.dtype("float16"))
    with open(tmp_path / "huge.npy", "wb") as file:  # half a terabyte of hole
        file.write(folder.header)
        file.truncate(len(folder.header) + folder.nbytes)
    start = time.perf_counter()
    assert folder.check(["huge"]) == {}
    assert time.perf_counter() - start < 1


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


# --- checked once --------------------------------------------------------------------------------------------------


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


def test_what_passed_for_another_shape_is_read_again(root, reads):
    opened(root).verify(VIDEOS)
    for folder in ("clip_frame", "clip_token_4", "text"):
        edit_json(root / folder / "manifest.json", dtype="float32")
    faults = opened(root, kinds=["frame"], text=False).verify(VIDEOS)
    assert list(faults) == VIDEOS


def test_a_folder_that_cannot_be_written_is_checked_each_time(root, reads, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for _ in range(2):
        reads.clear()
        assert opened(root).verify(VIDEOS) == {}
        assert len(reads) == 3 * len(VIDEOS)
    assert not list(root.glob("*/.verified.json"))


# --- manifests -----------------------------------------------------------------------------------------------------


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


# --- text ----------------------------------------------------------------------------------------------------------


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


# --- the published layout ------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match=r"no file has the configured shape \(10, any\).*\(6, 128\)"):
        opened(tmp_path, "public", segments=10)
    with pytest.raises(UserError, match="tome14: no such folder"):
        opened(tmp_path, "public", tokens=14)


# --- packs ---------------------------------------------------------------------------------------------------------


def test_a_changed_file_makes_the_pack_stale_and_a_deleted_one_does_not(root):
    pack(root)
    path = root / "clip_token_4" / f"{VIDEOS[1]}.npy"
    expected = np.load(path)
    path.unlink()
    np.testing.assert_array_equal(opened(root, "packed").read("token", VIDEOS[1:2])[0], expected)
    save_npy(path, expected + 1)
    with pytest.raises(UserError, match=r"stale, 1 of .*--kinds token --segments 6 --tokens 4$"):
        opened(root, "packed")
    pack(root, "--kinds", "token")
    np.testing.assert_array_equal(opened(root, "packed").read("token", VIDEOS[1:2])[0], expected + 1)


def test_a_video_extracted_after_packing_is_a_fault_of_that_video_alone(root):
    pack(root)
    for folder in ("vggish", "clip_frame", "clip_token_4"):
        (root / folder / "late.npy").write_bytes((root / folder / f"{VIDEOS[0]}.npy").read_bytes())
    store = opened(root, "packed")
    assert store.verify(["late", VIDEOS[0]]) == {"late": "\n".join(f"{kind}: not in the pack" for kind in KINDS)}
    with pytest.raises(UserError, match="'late' is not in the pack"):
        store.read("audio", ["late"])


def test_a_pack_without_an_index_is_none(root):
    with pytest.raises(UserError, match=r"no whole pack.*pack_features\.py"):
        opened(root, "packed")
    pack(root)
    (root / "clip_frame/packed/index.json").unlink()
    with pytest.raises(UserError, match="no whole pack"):
        opened(root, "packed")


def test_a_pack_killed_at_any_write_is_never_taken_for_whole(root, monkeypatch):
    """Stop packing anew at each step that changes the folder: what is left is the old pack, the new one, or none."""
    pack(root)
    folder = opened(root).folders["frame"]
    manifest, steps = opened(root).manifests["frame"], 0

    class Killed(Exception):
        pass

    for stop in range(10):
        for video in VIDEOS:  # anew, so that the pack that stands is stale
            save_npy(folder.path / f"{video}.npy", np.full((6, 16), stop, np.float16))
        calls = iter(range(100))

        def killable(real):
            def wrapped(*args, **kwargs):
                if next(calls) == stop:  # noqa: B023
                    raise Killed
                return real(*args, **kwargs)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killable(os.replace))
            patch.setattr(Path, "unlink", killable(Path.unlink))
            patch.setattr(Folder, "_fill", killable(Folder._fill))
            try:
                write_pack(folder, manifest)
            except Killed:
                steps += 1
        try:
            values = opened(root, "packed", kinds=["frame"]).read("frame", VIDEOS)
        except UserError:
            continue
        assert (values == stop).all()  # never older numbers, never half
    assert steps > 5
    write_pack(folder, manifest)
    assert (opened(root, "packed", kinds=["frame"]).read("frame", VIDEOS) == 9).all()
    assert not list((folder.path / "packed").glob(".tmp-*"))


def test_a_pack_that_contradicts_its_manifest_or_index_is_refused(root):
    pack(root)
    path = root / "clip_frame/packed/features.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(UserError, match="truncated"):
        opened(root, "packed")
    save_npy(path, np.zeros((3, 6, 16), np.float16))
    with pytest.raises(UserError, match=r"\(3, 6, 16\), but its index and manifest say float16 \(7, 6, 16\)"):
        opened(root, "packed")
    path.write_bytes(whole)
    opened(root, "packed")
    edit_json(root / "clip_frame/manifest.json", fit="squash")
    with pytest.raises(UserError, match="'fit'"):
        opened(root, "packed")


def test_packing_refuses_faulty_videos_or_leaves_them_out(root, capsys):
    faulty = np.full((6, 16), np.nan, np.float16)
    save_npy(root / "clip_frame" / f"{VIDEOS[1]}.npy", faulty)
    for options in ([], ["--skip-faulty"]):
        if not options:
            with pytest.raises(SystemExit) as caught:
                pack(root)
            assert caught.value.code == 2
            assert f"1  holds NaN or infinite values: {VIDEOS[1]}" in capsys.readouterr().err
            assert not (root / "clip_frame/packed/index.json").exists()
            (root / "clip_frame" / f"{VIDEOS[2]}.npy").write_bytes(b"short")
        else:
            pack(root, *options)
            assert "left out, 2 faulty" in capsys.readouterr().out
    store = opened(root, "packed")
    assert store.check(VIDEOS, deep=True) == dict.fromkeys(VIDEOS[1:3], "frame: not in the pack")
    kept = [VIDEOS[0], *VIDEOS[3:]]
    np.testing.assert_array_equal(store.read("frame", kept), opened(root).read("frame", kept))


def test_packing_does_not_lose_videos_whose_files_are_gone(root):
    pack(root)
    (root / "vggish" / f"{VIDEOS[0]}.npy").unlink()
    with pytest.raises(UserError, match=f"1 of its videos .*{VIDEOS[0]}.*remove"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert opened(root, "packed").check(VIDEOS) == {}


def test_packing_is_refused_before_it_fills_the_disk(root, monkeypatch):
    full = shutil_usage(free=10)
    monkeypatch.setattr(feature_pack.shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"needs 0\.0 GB, but 0\.0 GB are free"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert not (root / "vggish/packed").exists()


def shutil_usage(free):
    return type(feature_pack.shutil.disk_usage("/"))(free, 0, free)


def test_a_disk_that_fills_while_packing_leaves_nothing_behind(root, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert list((root / "vggish/packed").iterdir()) == []


# --- the scripts ---------------------------------------------------------------------------------------------------


def test_check_features_counts_and_exits_with_1_on_faults(root, capsys):
    options = ["--features", str(root), *SIZES]
    assert check_features.main([*options, "--deep"]) == 0
    report = capsys.readouterr().out
    assert "token: 7 of 7 videos whole, 0 faulty" in report
    (root / "vggish" / f"{VIDEOS[6]}.npy").unlink()
    assert check_features.main(options) == 1  # the other kinds have it, so it is wanted
    assert f"1  no such file: {VIDEOS[6]}" in capsys.readouterr().out
    rows = [{"video_id": video, "anser": "one", "type": '["Audio", "Counting"]'} for video in VIDEOS[:2]]
    annotations = root / "annotations.json"
    annotations.write_text(json.dumps([*rows, {"video_id": 7}]))
    assert check_features.main([*options, "--annotations", str(annotations)]) == 0
    assert "audio: 2 of 2" in capsys.readouterr().out
    pack(root, "--kinds", "frame")
    assert check_features.main([*options, "--layout", "packed", "--kinds", "frame"]) == 0
    assert "frame: 7 of 7" in capsys.readouterr().out


def test_check_features_exits_with_2_on_a_contradiction(root, capsys):
    with pytest.raises(SystemExit) as caught:
        check_features.main(["--features", str(root), "--segments", "60", "--tokens", "4"])
    assert caught.value.code == 2
    assert "'shape' is [6, 128]" in capsys.readouterr().err
