"""Batches: what they hold, in which order, and where the features stay between them."""

import dataclasses
import threading
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataset import loader
from dataset.config import DataConfig
from dataset.data import open_data
from dataset.feature_pack import write_pack
from dataset.features import KINDS, open_features
from dataset.loader import Loader, epoch_order
from tests.small_run import TOKENS, data_config, make_data
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json
from utils.runtime import Runtime

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture
def music(tmp_path) -> DataConfig:
    return data_config(make_data(tmp_path))


def as_read(features: Path) -> dict[str, dict[str, np.ndarray]]:
    """{kind: {video or sentence: array}}, read by numpy alone."""
    made = {
        kind: {file.stem: np.load(file) for file in (features / folder).glob("*.npy")}
        for kind, folder in (("audio", "vggish"), ("frame", "clip_frame"), ("token", f"clip_token_{TOKENS}"))
    }
    rows = np.load(features / "text/features.npy")
    return made | {"text": dict(zip(read_json(features / "text/sentences.json"), rows, strict=True))}


def publish(config: DataConfig, made: dict[str, dict[str, np.ndarray]], tables) -> DataConfig:
    """Write the same features once more, in the published layout."""
    root = Path(config.features).with_name("public")
    clip = root / "clip_feats"
    folders = {"audio": "vggish", "frame": "clip_feats/frame_1fps_ViT-L14@336px", "token": f"ToMe_feat/tome{TOKENS}"}
    for kind, folder in folders.items():
        for video, array in made[kind].items():
            save_npy(root / folder / f"{video}.npy", array.astype(np.float32))
    for _, row in pd.concat(tables).iterrows():
        save_npy(clip / f"qst_ViT-L14@336px/{row['question_id']}.npy", made["text"][row["question"]][None])
        save_npy(clip / f"qaPrompt_ViT-L14@336px/{row['question_id']}.npy", made["text"][row["prompt"]][None])
    return dataclasses.replace(config, features=str(root), layout="public")


def pack(config: DataConfig) -> DataConfig:
    store = open_features(config.features, "files", KINDS, config.segments, TOKENS, text=False)
    for kind, folder in store.folders.items():
        write_pack(folder, store.manifests[kind])
    return dataclasses.replace(config, layout="packed")


@pytest.fixture(scope="module", params=["music_avqa", "avqa"])
def laid_out(request, tmp_path_factory) -> tuple[dict[str, DataConfig], dict]:
    """The same data set in three layouts, and its features by name."""
    config = data_config(make_data(tmp_path_factory.mktemp("data"), dataset=request.param))
    write_json(config.val, read_json(config.val)[::-1])  # its sentences in another order than those of train
    made = as_read(Path(config.features))
    tables = [split.questions for split in open_data(config, KINDS, ["train", "val"]).splits.values()]
    return {"files": config, "packed": pack(config), "public": publish(config, made, tables)}, made


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=NEEDS_GPU)], ids=str)
@pytest.mark.parametrize("layout", ["files", "packed", "public"])
@pytest.mark.parametrize("residency", ["device", "disk"])
def test_batches_hold_what_is_on_disk_whatever_the_layout_and_residency(laid_out, layout, residency, device):
    configs, made = laid_out
    data = open_data(configs[layout], KINDS, ["train", "val"])
    batches = Loader(data, Runtime(device), residency, workers=2)
    for split in data.splits.values():
        order = epoch_order(split.video, 10, seed=3, epoch=1, window=0)
        made_batches = list(batches.batches(split, order))
        assert len(made_batches) == len(order)
        for batch, rows in zip(made_batches, order, strict=True):
            assert batch.inputs["audio"].device == batch.inputs["text"].device == batch.answer.device == device
            assert_batch(batch, rows, split, data, made)


def assert_batch(batch, rows, split, data, made) -> None:
    """Compare a batch with the arrays of its questions' videos and sentences."""
    asked = split.questions.iloc[rows]
    np.testing.assert_array_equal(batch.rows, rows)
    for kind in KINDS:
        held = batch.inputs[kind][batch.inputs["video"]].cpu().numpy()
        np.testing.assert_array_equal(held, np.stack([made[kind][video] for video in asked["video_id"]]))
    for field in ("question", "prompt"):
        held = batch.inputs["text"][batch.inputs[field]].cpu().numpy()
        np.testing.assert_array_equal(held, np.stack([made["text"][sentence] for sentence in asked[field]]))
    assert [data.vocabulary.answers[i] for i in batch.answer] == list(asked["answer"])
    if "choices" in asked:
        words = [[data.vocabulary.answers[i] for i in offered] for offered in batch.choices.tolist()]
        assert words == list(asked["choices"])
    else:
        assert batch.choices is None


def test_a_batch_gathers_each_video_once_into_arrays_of_one_size(music, monkeypatch):
    """A compiled step would be compiled anew for every number of videos."""
    data = open_data(music, KINDS, ["train"])
    split, asked, read = data.splits["train"], [], data.store.read
    monkeypatch.setattr(data.store, "read", lambda kind, videos, out: asked.append(videos) or read(kind, videos, out))
    orders = [np.arange(0, 18), np.arange(0, 54, 3)]  # nine questions a video: two of them, then six
    for batch in Loader(data, Runtime(CPU), "disk", workers=1).batches(split, orders):
        assert [len(batch.inputs[kind]) for kind in KINDS] == [18] * 3
        assert batch.inputs["token"].dtype == torch.float16
    assert [len(videos) for videos in asked] == [len(set(videos)) for videos in asked] == [2] * 3 + [6] * 3


def test_the_disk_is_asked_for_each_batch_before_it_is_read(music, monkeypatch):
    data = open_data(music, KINDS, ["train"])
    split, read = data.splits["train"], data.store.read
    asked: defaultdict[tuple, threading.Event] = defaultdict(threading.Event)
    in_time = []

    def wait_and_read(kind, videos, out):
        in_time.append(asked[kind, *videos].wait(20))
        read(kind, videos, out)

    monkeypatch.setattr(data.store, "prefetch", lambda kind, videos: asked[kind, *videos].set())
    monkeypatch.setattr(data.store, "read", wait_and_read)
    disk = Loader(data, Runtime(CPU), "disk", workers=1)
    assert not asked
    assert len(list(disk.batches(split, [np.arange(0, 18), np.arange(0, 54, 3)]))) == 2
    assert in_time == [True] * 6


@pytest.mark.parametrize("residency", ["device", "disk"])
def test_resident_tensors_are_those_that_every_batch_holds(music, residency):
    data = open_data(music, KINDS, ["train"])
    loader = Loader(data, Runtime(CPU), residency, workers=1)
    first, second = (batch.inputs for batch in loader.batches(data.splits["train"], [np.arange(9), np.arange(9)]))
    kept = [tensor for tensor in first.values() if any(tensor is other for other in second.values())]
    assert sorted(map(id, kept)) == sorted(map(id, loader.resident))
    assert len(kept) == (4 if residency == "device" else 1)


@pytest.mark.parametrize("residency", ["device", "disk"])
def test_a_batch_holds_the_kinds_that_were_opened_whatever_they_are(music, residency):
    data = open_data(music, ("frame",), ["train"])
    data.store = SimpleNamespace(
        shapes={"motion": data.store.shapes["frame"]},
        dtypes={"motion": data.store.dtypes["frame"]},
        video_bytes=data.store.video_bytes,
        prefetch=lambda kind, videos: None,
        read=partial(lambda read, kind, *given: read("frame", *given), data.store.read),
    )
    nobody = np.arange(0)  # of the last batch, which may be short, a process may have no part
    full, empty = Loader(data, Runtime(CPU), residency, workers=1).batches(data.splits["train"], [np.arange(3), nobody])
    assert set(full.inputs) == set(empty.inputs) == {"motion", "text", "video", "asked", "question", "prompt"}
    assert len(empty.answer) == len(empty.inputs["video"]) == len(empty.rows) == 0


def test_a_file_that_is_lost_in_mid_epoch_is_named(music):
    data = open_data(music, KINDS, ["train"])
    batches = Loader(data, Runtime(CPU), "disk", workers=2).batches(data.splits["train"], np.arange(63)[:, None])
    next(batches)
    (Path(music.features) / "vggish/00000006.npy").unlink()
    with pytest.raises(UserError, match=r"00000006\.npy: no such file"):
        list(batches)


VIDEOS = st.lists(st.integers(0, 30), min_size=1, max_size=200).map(np.array)


@given(VIDEOS, st.integers(1, 70), st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_an_epoch_asks_every_question_once_in_an_order_of_its_own(video, batch_size, seed, epoch, window):
    order = epoch_order(video, batch_size, seed, epoch, window)
    assert sorted(np.concatenate(order)) == list(range(len(video)))
    assert all(len(rows) == batch_size for rows in order[:-1])
    assert len(order[-1]) == (len(video) - 1) % batch_size + 1
    again = epoch_order(video, batch_size, seed, epoch, window)
    assert all(np.array_equal(a, b) for a, b in zip(order, again, strict=True))


@pytest.mark.parametrize("window", [0, 3])
def test_another_seed_or_epoch_is_another_order(window):
    video = np.arange(100) % 7
    orders = [np.concatenate(epoch_order(video, 7, *which, window)) for which in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({order.tobytes() for order in orders}) == 4


@given(VIDEOS, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_window_asks_about_few_videos_at_a_time(video, window, seed):
    """So many videos have been asked about and will be again; with no more than that in all, it is a plain shuffle."""
    order = np.concatenate(epoch_order(video, 7, seed, epoch=0, window=window))
    asked = video[order].tolist()
    last = {at: i for i, at in enumerate(asked)}
    first = {at: i for i, at in reversed(list(enumerate(asked)))}
    assert max(sum(first[at] <= i <= last[at] for at in first) for i in range(len(asked))) <= window + 1
    if window > video.max():
        assert np.array_equal(order, np.concatenate(epoch_order(video, 7, seed, epoch=0, window=0)))


def test_a_window_moves_on_steadily_and_mixes_what_is_in_it():
    """Ten questions about each of 1,000 videos, in a window of 50: every batch of 100 brings about ten new videos."""
    video = np.arange(10_000) % 1_000
    asked = [video[rows] for rows in epoch_order(video, 100, seed=0, epoch=0, window=50)]
    known: set[int] = set()
    new = []
    for part in asked:
        new.append(len(set(part) - known))
        known.update(part)
    assert max(new[5:]) <= 20
    assert sum(new) == 1_000
    assert all(len(set(part)) > 40 for part in asked[5:-5])
    later = epoch_order(video, 100, seed=0, epoch=1, window=50)
    assert len(set(asked[50]) & set(video[later[50]])) < 20


FITS_NOT = "data.residency device: the features take 10.0 GB, 7.0 GB are free for them; take disk, best with packed"


@pytest.mark.parametrize(
    ("device", "room", "wanted", "chosen"),
    [
        (CPU, {"host": 100}, "auto", "device"),
        (CPU, {"host": 10}, "auto", "disk"),
        (CPU, {"host": 100}, "disk", "disk"),
        (CPU, {"host": 10}, "device", FITS_NOT),
        (GPU, {"host": 10, "gpu": 100}, "auto", "device"),
        (GPU, {"host": 100, "gpu": 10}, "auto", "disk"),
        (GPU, {"host": 100, "gpu": 10}, "device", FITS_NOT),
    ],
)
def test_features_stay_where_they_fit(monkeypatch, device, room, wanted, chosen):
    """10 GB of features; a share of the free memory is left to the model."""
    monkeypatch.setattr(loader, "available_memory", lambda: room["host"] * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room["gpu"] * 10**9, 10**12))
    if chosen == FITS_NOT:
        with pytest.raises(UserError, match=FITS_NOT):
            loader._settle(wanted, 10 * 10**9, Runtime(device))
    else:
        assert loader._settle(wanted, 10 * 10**9, Runtime(device)) == chosen


def test_processes_share_the_memory_of_a_machine_and_go_by_the_one_with_the_least(monkeypatch):
    monkeypatch.setattr(loader, "available_memory", lambda: 20 * 10**9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [loader._settle("auto", size * 10**9, Runtime(CPU)) for size in (3, 4)] == ["device", "disk"]
    monkeypatch.setattr(Runtime, "gather", lambda self, part: [part, 10**9])
    assert loader._settle("auto", 3 * 10**9, Runtime(CPU, 0, 2)) == "disk"


def shares(video: np.ndarray, rows: np.ndarray, world: int) -> list[np.ndarray]:
    """What each process answers of a batch."""
    one, parts = object.__new__(Loader), []
    for rank in range(world):
        one.runtime = Runtime(CPU, rank, world)
        parts.append(one.share(SimpleNamespace(video=video), rows))
    return parts


@given(VIDEOS, st.integers(1, 5))
def test_processes_share_a_batch_by_video_without_gap_or_overlap(video, world):
    rows = np.random.default_rng(len(video)).permutation(len(video))
    parts = shares(video, rows, world)
    assert sorted(np.concatenate(parts)) == list(range(len(video)))
    assert len({len(part) for part in parts}) <= 2
    assert sum(len(set(video[part])) for part in parts) <= len(set(video)) + world - 1
    assert np.array_equal(shares(video, rows, 1)[0], rows)


def test_most_videos_are_read_by_one_process():
    """At MUSIC-AVQA's counts four machines read a video 1.3 times in all, where dealing rows in turn makes it 2.5."""
    video = np.arange(31_927) % 9_288
    order = epoch_order(video, 64, seed=0, epoch=0, window=512)
    read: list[set[int]] = [set() for _ in range(4)]
    dealt: list[set[int]] = [set() for _ in range(4)]
    for rows in order:
        for rank, part in enumerate(shares(video, rows, 4)):
            read[rank].update(video[part])
            dealt[rank].update(video[rows[rank::4]])
    assert sum(map(len, read)) / 9_288 == pytest.approx(1.3, abs=0.15)
    assert sum(map(len, dealt)) / 9_288 == pytest.approx(2.5, abs=0.15)


def test_a_loader_refuses_what_does_not_fit(music, monkeypatch):
    data = open_data(music, KINDS, ["train"])
    monkeypatch.setattr(loader, "available_memory", lambda: 1000)
    with pytest.raises(UserError, match="take disk"):
        Loader(data, Runtime(CPU), "device", workers=1)
    assert Loader(data, Runtime(CPU), "auto", workers=1).residency == "disk"
