"""Packed features: whole or refused, never stale, never lost."""

import ctypes
import errno
import mmap
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from dataset.feature_folder import Folder
from dataset.feature_pack import Pack, write_pack
from dataset.kinds import KINDS
from scripts import pack_features
from tests.synthetic import SENTENCES, VIDEOS, edit_json, opened, write_features
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json

SIZES = ["--segments", "6", "--tokens", "4"]


def pack(root, *options):
    pack_features.main(["--features", str(root), *SIZES, *options])


@pytest.fixture
def root(tmp_path):
    write_features(tmp_path, VIDEOS, SENTENCES)
    return tmp_path


def test_a_changed_file_makes_the_pack_stale_and_a_deleted_one_does_not(root):
    pack(root)
    path = root / "clip_token_4" / f"{VIDEOS[1]}.npy"
    expected = np.load(path)
    path.unlink()
    np.testing.assert_array_equal(opened(root, "packed").read("token", VIDEOS[1:2])[0], expected)
    save_npy(path, expected + 1)
    (fault,) = opened(root, "packed").verify(VIDEOS).values()
    assert fault.startswith("token: stale")
    assert fault.endswith("--kinds token --segments 6 --tokens 4")
    pack(root, "--kinds", "token")
    np.testing.assert_array_equal(opened(root, "packed").read("token", VIDEOS[1:2])[0], expected + 1)


def test_a_copy_with_other_times_is_not_stale(root, monkeypatch):
    """As tar, cp and zip leave it: whole seconds, or the time of copying."""
    pack(root)
    reads, fill = [], Folder._fill
    monkeypatch.setattr(Folder, "_fill", lambda self, *args: reads.append(args) or fill(self, *args))
    for video in VIDEOS[:3]:
        os.utime(root / "vggish" / f"{video}.npy", (1e9, 1e9))
    for count in (3, 0):  # once noted, they are not read again
        reads.clear()
        assert opened(root, "packed").verify(VIDEOS) == {}
        assert len(reads) == count
    os.utime(root / "vggish" / f"{VIDEOS[0]}.npy", (2e9, 2e9))
    with monkeypatch.context() as patch:  # a copy on a disk that is only read
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
        assert opened(root, "packed").verify(VIDEOS) == {}
    array = np.load(root / "vggish" / f"{VIDEOS[0]}.npy")
    array[0, 0] += 1
    save_npy(root / "vggish" / f"{VIDEOS[0]}.npy", array)
    (fault,) = opened(root, "packed").verify(VIDEOS).values()
    assert fault.startswith("audio: stale")


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_broken_index_is_said(root, content):
    pack(root)
    (root / "clip_frame/packed/index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json: (is no index|cannot be read)"):
        opened(root, "packed")


def test_a_video_extracted_after_packing_is_a_fault_of_that_video_alone(root):
    pack(root)
    for folder in ("vggish", "clip_frame", "clip_token_4"):
        (root / folder / "late.npy").write_bytes((root / folder / f"{VIDEOS[0]}.npy").read_bytes())
    store = opened(root, "packed")
    assert store.verify(["late", VIDEOS[0]]) == {"late": "\n".join(f"{kind}: not in the pack" for kind in KINDS)}
    with pytest.raises(UserError, match="'late' is not in the pack"):
        store.read("audio", ["late"])


def cached(path: Path, start: int, size: int) -> np.ndarray:
    """Of each page of these bytes of a file, whether the system holds it in memory."""
    held = np.memmap(path, np.uint8, "r")
    first, pages = start // mmap.PAGESIZE * mmap.PAGESIZE, (ctypes.c_ubyte * (size // mmap.PAGESIZE + 2))()
    address = ctypes.c_void_p(held.ctypes.data + first)
    assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(start + size - first), pages) == 0
    return np.ctypeslib.as_array(pages)[: -(-(start + size - first) // mmap.PAGESIZE)] & 1 == 1


@pytest.mark.parametrize("layout", ["files", "packed"])
def test_what_is_prefetched_comes_into_memory_whole_and_alone(tmp_path, layout):
    kept = Folder(tmp_path / "token", (512, 1024), np.dtype("float16"))  # 1 MiB a video, 128 bytes off its pages
    arrays = {name: np.full(kept.shape, n, np.float16) for n, name in enumerate("abc")}
    for name, array in arrays.items():
        save_npy(kept.path / f"{name}.npy", array)
    write_pack(kept, {"kind": "token"})
    pack = kept.path / "packed/features.npy"
    places = {name: (kept.path / f"{name}.npy", 128) for name in arrays}
    if layout == "packed":
        kept = Pack(kept, {"kind": "token"})
        places = {name: (pack, 128 + n * kept.nbytes) for n, name in enumerate(arrays)}
    for path in {path for path, _ in places.values()}:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # only what the disk has can be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(cached(*place, kept.nbytes).any() for place in places.values()):
        pytest.skip("the system does not let go of these files, as on a file system in memory")
    kept.prefetch(["b"])
    deadline = time.monotonic() + 20
    while not cached(*places["b"], kept.nbytes).all() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cached(*places["b"], kept.nbytes).all()
    assert max(cached(*places[name], kept.nbytes).sum() for name in "ac") <= 1  # a page may be shared
    np.testing.assert_array_equal(kept.read(["b"])[0], arrays["b"])


def test_a_pack_without_an_index_is_none(root):
    with pytest.raises(UserError, match=r"index\.json: no such file; pack with: python -m scripts\.pack_features"):
        opened(root, "packed")
    pack(root)
    (root / "clip_frame/packed/index.json").unlink()
    with pytest.raises(UserError, match=r"index\.json: no such file"):
        opened(root, "packed")


def test_a_pack_killed_at_any_write_is_never_taken_for_whole(root, monkeypatch):
    """Stop packing anew at each step that changes the folder: what is left is the old pack, the new one, or none."""
    pack(root)
    folder = opened(root).folders["frame"]
    manifest, steps = opened(root).manifests["frame"], 0

    class Killed(Exception):
        pass

    for stop in range(25):
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
            store = opened(root, "packed", kinds=["frame"])
        except UserError:
            continue
        values = store.read("frame", VIDEOS)
        assert store.verify(VIDEOS) or (values == stop).all()  # never older numbers, never half
    assert steps > 15
    write_pack(folder, manifest)
    assert (opened(root, "packed", kinds=["frame"]).read("frame", VIDEOS) == 24).all()
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
    assert store.verify(VIDEOS) == dict.fromkeys(VIDEOS[1:3], "frame: not in the pack")
    kept = [VIDEOS[0], *VIDEOS[3:]]
    np.testing.assert_array_equal(store.read("frame", kept), opened(root).read("frame", kept))


def test_packing_does_not_lose_videos_whose_files_are_gone(root):
    pack(root)
    (root / "vggish" / f"{VIDEOS[0]}.npy").unlink()
    with pytest.raises(UserError, match=f"1 of its videos .*{VIDEOS[0]}.*remove"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert opened(root, "packed").check(VIDEOS) == {}


def test_packing_is_refused_before_it_fills_the_disk(root, monkeypatch):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(UserError, match=r"needs 0\.0 GB, but 0\.0 GB are free"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert not (root / "vggish/packed").exists()


def test_a_disk_that_fills_while_packing_leaves_nothing_behind(root, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_pack(opened(root).folders["audio"], opened(root).manifests["audio"])
    assert list((root / "vggish/packed").iterdir()) == []


def test_a_pack_of_the_first_release_serves_while_no_file_contradicts_it(root):
    """Its index tells times of files and no digests."""
    expected = opened(root).read("audio", VIDEOS)
    digests, _ = opened(root).folders["audio"].examine(VIDEOS)
    pack(root)
    path = root / "vggish/packed/index.json"
    write_json(path, {"manifest": read_json(path)["manifest"], "videos": dict.fromkeys(VIDEOS, (1, 1))})
    assert "stale" in opened(root, "packed").verify(VIDEOS[:1])[VIDEOS[0]]
    for video in VIDEOS:
        (root / "vggish" / f"{video}.npy").unlink()
    store = opened(root, "packed")
    assert store.verify(VIDEOS) == {}
    np.testing.assert_array_equal(store.read("audio", VIDEOS), expected)
    assert store.folders["audio"].examine(VIDEOS)[0] == digests
