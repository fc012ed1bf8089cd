"""What depends on a video, or on a segment of it, is computed and read once, and answers and gradients stay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.data import open_data
from dataset.loader import Loader, epoch_order
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from nets.tspm.spatial import distinct
from scripts import pack_features
from tests.small_run import TOKENS, assert_same_run, data_config, make_learnable_data, trained
from utils.runtime import Runtime
from utils.scoring.evaluation import answer

CPU = Runtime(torch.device("cpu"))
VARIANTS = [{}, {"spm_frames": "first_k"}, {"temporal": "even"}, {"spatial": "frames"}, {"tokens": 3}]
LEARNED = {"temporal": "learned", "spatial": "pairs", "order": True, "sounds": True, "fusion": "deep"}
VARIANTS.append(LEARNED | {"streams": ["a_sel", "v_sel", "v_spa", "fit"]})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = make_learnable_data(tmp_path_factory.mktemp("data"))
    root = path.parent / "features"
    pack_features.main(["--features", str(root), "--segments", "6", "--tokens", str(TOKENS)])
    return path


def network(data, **options):
    torch.manual_seed(0)
    options = TSPMOptions(**{"hidden": 16, "top_k": 3, "tokens": TOKENS} | options)
    return build(options, FeatureSizes(6, data.store.shapes, data.store.text_width), len(data.vocabulary)).eval()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_sharing_changes_no_answer_and_nothing_that_is_looked_at(path, options):
    kinds = TSPMOptions(**options).kinds
    data = open_data(data_config(path), kinds, ["test"])
    asked, model, loader = data.splits["test"], network(data, **options), Loader(data, CPU, "device", 1)
    rows = np.random.default_rng(0).permutation(len(asked))
    shared = answer(model, loader.by_video(asked, rows, 7), "fp32", CPU.device, looks=True)
    alone = answer(
        model, loader.batches(asked, [np.array([row]) for row in range(len(asked))]), "fp32", CPU.device, True
    )
    assert shared.classes == alone.classes
    np.testing.assert_allclose(shared.probability, alone.probability, rtol=1e-5)
    assert shared.looked.keys() == alone.looked.keys()
    for name, held in alone.looked.items():
        np.testing.assert_allclose(shared.looked[name], held, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("layout", ["files", "packed"])
def test_from_disk_only_the_tokens_that_are_looked_at_are_read(path, layout, monkeypatch):
    data = open_data(data_config(path, layout=layout), ("audio", "frame", "token"), ["test"])
    asked, model = data.splits["test"], network(data, top_k=2)
    device, disk = (Loader(data, CPU, residency, 1) for residency in ("device", "disk"))
    expected = answer(model, device.by_video(asked, np.arange(len(asked)), 9), "fp32", CPU.device, looks=True)
    read = []
    whole, some = data.store.read, data.store.read_segments
    monkeypatch.setattr(data.store, "read", lambda kind, *rest: read.append(kind) or whole(kind, *rest))

    def note(kind, videos, segments):
        read.append((kind, list(zip(videos, segments, strict=True))))
        return some(kind, videos, segments)

    monkeypatch.setattr(data.store, "read_segments", note)
    found = answer(model, disk.by_video(asked, np.arange(len(asked)), 9), "fp32", CPU.device, looks=True)
    assert found.classes == expected.classes
    np.testing.assert_array_equal(found.looked["token_weights"], expected.looked["token_weights"])
    batches = -(-len(asked) // 9)
    assert sorted(kind for kind in read if isinstance(kind, str)) == ["audio"] * batches + ["frame"] * batches
    places = [place for kind, places in (each for each in read if isinstance(each, tuple)) for place in places]
    looked = {
        (video, segment)
        for video, segments in zip(asked.questions["video_id"], expected.looked["selected"], strict=True)
        for segment in segments
    }
    assert set(places) == looked
    assert len(places) <= len(looked) + 2 * batches  # once, but for a video that two batches share


def test_distinct_columns_are_found_with_their_first_places():
    pairs = torch.tensor([[1, 0, 1, 0, 1], [2, 3, 2, 3, 0]])
    first, of = distinct(pairs, training=False)
    assert torch.equal(pairs[:, first][:, of], pairs)
    assert sorted(first.tolist()) == [0, 1, 4]


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 30), st.integers(2, 9), st.integers(0, 3))
def test_questions_about_a_video_stay_together_in_groups(questions, videos, group, epoch):
    video = np.random.default_rng(questions).integers(videos, size=questions)
    order = np.concatenate(epoch_order(video, 7, 5, epoch, 0, group))
    assert sorted(order) == list(range(questions))
    ends = np.flatnonzero(np.diff(video[order])) + 1
    runs = np.split(video[order], ends)
    wanted = sum(-(-count // group) for count in np.bincount(video))  # of a video one group may be short
    assert len(runs) <= wanted
    if len(runs) == wanted:  # none of a video's groups follow each other
        assert max(map(len, runs)) <= group
    assert np.array_equal(order, np.concatenate(epoch_order(video, 7, 5, epoch, 0, group)))


def test_groups_are_shuffled_and_so_are_the_questions_in_them():
    video = np.repeat(np.arange(200), 8)
    first, second = (np.concatenate(epoch_order(video, 64, 0, epoch, 0, 4)) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    groups = [{tuple(sorted(group)) for group in order.reshape(-1, 4).tolist()} for order in (first, second)]
    assert len(groups[0] & groups[1]) < 40  # of 400
    assert abs(np.corrcoef(video[first], np.arange(len(first)))[0, 1]) < 0.1


@pytest.mark.parametrize("residency", ["device", "disk"])
def test_sharing_videos_in_training_changes_no_gradient(path, residency):
    """Without dropout, which questions about one video then share."""
    data = open_data(data_config(path), ("audio", "frame", "token"), ["train"])
    asked, loader = data.splits["train"], Loader(data, CPU, residency, 1)
    (rows, *_) = epoch_order(asked.video, 24, 0, 0, 0, 4)
    assert len(np.unique(asked.video[rows])) < 12
    found = []
    for once in (False, True):
        model = network(data, dropout=0.0).train()
        (batch,) = loader.batches(asked, [rows], once)
        assert len(batch.inputs["video"]) == (len(np.unique(asked.video[rows])) if once else len(rows))
        torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.answer).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_run_with_groups_can_be_resumed(path, tmp_path):
    arguments = ("--config", path, "--train.questions_per_video", 4, "--out")
    whole = trained(*arguments, tmp_path / "whole", "--train.epochs", 3)
    trained(*arguments, tmp_path / "run", "--train.epochs", 2)
    assert_same_run(trained(*arguments, tmp_path / "run", "--train.epochs", 3, "--resume"), whole)
