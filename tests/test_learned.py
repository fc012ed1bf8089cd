"""TSPM that learns when and where: what each stage computes, and that every parameter of it is taught."""

import json

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

import train
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.learned import OTHERS, InTime, PairedPerception, QuestionFit, SoundInPicture, contrast
from nets.tspm.options import TSPMOptions
from nets.tspm.temporal import Evidence, PrintedSelection
from tests.processes import ended
from tests.small_run import assert_same_run, make_learnable_data, trained
from utils.errors import UserError

LEARNED = {
    "order": True,
    "sounds": True,
    "temporal": "learned",
    "spatial": "pairs",
    "streams": ["a_sel", "v_sel", "v_spa", "fit"],
    "fusion": "deep",
}
SIZES = FeatureSizes(8, {"audio": (8, 128), "frame": (8, 16), "token": (8, 4, 24)}, 16)
CONFIG = ["--model.order", "true", "--model.sounds", "true", "--model.temporal", "learned", "--model.spatial", "pairs"]
CONFIG += ["--model.streams", "[a_sel,v_sel,v_spa,fit]", "--model.fusion", "deep"]


def network(**options):
    torch.manual_seed(0)
    return build(TSPMOptions(**{"hidden": 16, "top_k": 3, "tokens": 4} | LEARNED | options), SIZES, 5)


def inputs(videos=10, seed=0):
    random = torch.Generator().manual_seed(seed)
    made = {kind: torch.randn(videos, *shape, generator=random) for kind, shape in SIZES.shapes.items()}
    rows = torch.arange(videos)
    text = torch.randn(2 * videos, 16, generator=random)
    return made | {"text": text, "video": rows, "asked": rows, "question": rows, "prompt": videos + rows}


WAYS = [{}, {"gate": "perturbed"}, {"sounds": False}, {"fusion": "product"}, {"streams": ["a_sel", "v_sel", "v_spa"]}]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_gradients_reach_every_parameter(options):
    model = network(**options).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    for _ in range(2):  # K of the selection starts at zero, which keeps the gradient from Q for a step
        seen = model(**inputs())
        loss = seen.logits.logsumexp(dim=-1).sum() + sum(term.weight * term.sum for term in seen.losses.values())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.01 * parameter.grad)
    silent = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.parametrize("segments", [3, 10, 20])
def test_any_number_of_segments_will_do(segments):
    shapes = {kind: (segments, *shape[1:]) for kind, shape in SIZES.shapes.items()}
    model = build(
        TSPMOptions(**{"hidden": 16, "top_k": 3, "tokens": 4} | LEARNED), FeatureSizes(segments, shapes, 16), 5
    )
    given = inputs() | {kind: torch.randn(10, *shape) for kind, shape in shapes.items()}
    seen = model.train()(**given)
    assert seen.segment_weights.shape == (10, segments)
    assert all(term.sum.isfinite() and term.sum > 0 for term in seen.losses.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast_selects_the_same_segments(dtype):
    model, given = network().eval(), inputs()
    with torch.no_grad():
        exact = model(**given)
        with torch.autocast("cpu", dtype):
            rough = model(**given)
    assert torch.equal(exact.selected, rough.selected)
    torch.testing.assert_close(exact.segment_weights, rough.segment_weights)


def test_eq_1_as_printed_has_one_projection_and_no_gradient():
    stage = PrintedSelection(6, 4, 2)
    prompt, frame, asked = torch.randn(3, 6), torch.randn(2, 5, 4), torch.tensor([0, 1, 0])
    weights, index, gate = stage(Evidence(prompt, frame, None, frame, frame, asked))
    for b in range(3):
        scores = torch.stack([prompt[b] @ (stage.key.weight @ frame[asked[b], t]) for t in range(5)]) / 6**0.5
        torch.testing.assert_close(weights[b], scores.softmax(0))
        assert index[b].tolist() == sorted(scores.topk(2).indices.tolist())
    assert not weights.requires_grad
    assert torch.equal(gate, torch.ones(3, 2, 1))
    options = {"temporal": "printed", "spatial": "printed", "streams": ["a_sel", "v_sel", "v_spa"]}
    model = build(TSPMOptions(hidden=16, top_k=3, tokens=4, **options), SIZES, 5)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["temporal.key.weight"]


def naive_contrast(scores, video):
    rows = range(len(video))
    total = 0.0
    for table in (scores, scores.T):
        for i in rows:
            others = [table[i, j] for j in rows if j == i or video[j] != video[i]]
            total += torch.stack(others).logsumexp(0) - table[i, i]
    return total / 2


@pytest.mark.parametrize("videos", [OTHERS, OTHERS + 1, OTHERS + 3])
def test_pairs_are_told_from_other_videos_and_from_enough_of_them(videos):
    video = torch.arange(2 * videos) % videos  # two seconds of each
    scores = torch.randn(len(video), len(video), generator=torch.Generator().manual_seed(videos))
    loss = contrast(scores, video, 0.3)
    if videos <= OTHERS:
        assert loss.sum == 0
        assert loss.count == 0
    else:
        torch.testing.assert_close(loss.sum, naive_contrast(scores, video))
        assert loss.count == len(video)


def test_a_selection_of_one_segment_cannot_learn():
    with pytest.raises(UserError, match="at least 2 for model"):
        TSPMOptions(temporal="learned", top_k=1)


def test_a_fit_is_the_mean_of_cosines():
    """The product with a mean of unit vectors, which is what is computed, is the mean of the products."""
    torch.manual_seed(0)
    stage = QuestionFit(6, 6, 2, 3, sounds=True)
    stage.out = torch.nn.Identity()
    question, seen, heard = torch.randn(2, 6), torch.randn(2, 5, 6), normalize(torch.randn(2, 5, 6), dim=-1)
    selected, gate = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[[0.5], [1.5]], [[1.0], [1.0]]])
    found = stage(question, seen, heard, torch.arange(2), selected, gate).view(2, 2, 4)
    words = stage.words(question).view(2, 2, 6)
    for b in range(2):
        for h in range(2):
            cosines = [cosine_similarity(words[b, h], x[b], dim=-1) for x in (seen, heard)]
            there = [(gate[b, :, 0] * c[selected[b]]).mean() for c in cosines]
            expected = torch.stack([cosines[0].mean(), cosines[1].mean(), *there])
            torch.testing.assert_close(found[b, h], 10 * expected)


def test_words_start_at_clip_s_space_where_there_is_one():
    one, two = (QuestionFit(width, 6, 1, 4, sounds=False).words.weight for width in (6, 9))
    assert (one - torch.eye(6)).abs().max() <= 6**-0.5  # the initial values of nn.Linear
    assert two.abs().max() <= 9**-0.5


@pytest.mark.parametrize("segments", [2, 3, 5, 9])
def test_a_sound_learns_from_the_picture_of_its_own_second(segments):
    torch.manual_seed(0)
    stage = SoundInPicture(8, 8, 0.3)
    stage.project = torch.nn.Identity()
    x, video = torch.randn(OTHERS + 2, segments, 8), torch.arange(OTHERS + 2)
    heard, losses = stage(x, x, video)
    torch.testing.assert_close(heard, normalize(x, dim=-1))
    same, other = losses["what"], stage(x, x.roll(1, dims=1), video)[1]["what"]
    assert same.count == other.count == len(x) * max(1, segments // 4)
    assert 4 * same.sum < other.sum
    assert not stage.eval()(x, x, video)[1]


def test_the_sound_attends_to_what_resembles_it():
    """Tokens that are the sound itself, among others, get the weight and become what is read."""
    identity = torch.nn.Linear(4, 4, bias=False)
    torch.nn.init.eye_(identity.weight)
    stage = PairedPerception(identity, identity, identity, 0.3).eval()
    audio = torch.eye(4)[None, :3]  # (1, K = 3, D)
    token = torch.eye(4).expand(1, 5, 4, 4)
    read, segments, weights, _, losses = stage(audio, audio, token, torch.tensor([0]), torch.tensor([[0, 2, 4]]))
    assert weights.argmax(dim=-1).tolist() == [[0, 1, 2]]
    assert segments.tolist() == [[0, 2, 4]]
    torch.testing.assert_close(read, weights)
    assert not losses


@pytest.mark.parametrize(("selected", "compared"), [(10, 10), (25, 9), (60, 10)])
def test_where_is_learned_from_ten_seconds_of_a_question_at_most(selected, compared):
    torch.manual_seed(0)
    stage = PairedPerception(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), 0.3)
    video, index = torch.arange(OTHERS + 1), torch.arange(selected).expand(OTHERS + 1, -1)
    audio, token = torch.randn(OTHERS + 1, selected, 4), torch.randn(OTHERS + 1, selected, 3, 4)
    loss = stage(audio, audio, token, video, index)[-1]["where"]
    assert loss.count == compared * (OTHERS + 1)
    some = torch.arange(0, selected, -(-selected // 10)).expand(OTHERS + 1, -1)
    alone = stage(audio[:, some[0]], audio[:, some[0]], token, video, some)[-1]["where"]
    torch.testing.assert_close(loss.sum, alone.sum)


def test_segments_know_their_place_and_their_neighbours():
    stage = InTime(4, 2)
    x = torch.randn(1, 4, 2)
    torch.testing.assert_close(stage(x), x + stage.place)
    with torch.no_grad():
        stage.neighbours.weight[:] = torch.tensor([-1.0, 1.0, 0.0])
    grown = stage(x) - x - stage.place
    torch.testing.assert_close(grown[:, 1:], x[:, 1:] - x[:, :-1])


def test_clips_of_two_widths_cannot_be_compared():
    sizes = FeatureSizes(8, SIZES.shapes, 12)
    with pytest.raises(UserError, match=r"compares text \(12\) with frames \(16\)"):
        build(TSPMOptions(**{"hidden": 16, "top_k": 3, "tokens": 4} | LEARNED), sizes, 5)
    build(TSPMOptions(**{"hidden": 16, "top_k": 3, "tokens": 4, "start": "random"} | LEARNED), sizes, 5)


def test_a_learned_run_can_be_resumed(tmp_path):
    path = make_learnable_data(tmp_path)
    arguments = ["--config", path, *CONFIG, "--model.dropout", "0.2", "--train.batch_size", "32"]
    reference, run = tmp_path / "whole", tmp_path / "parts"
    trained(*arguments, "--train.epochs", 2, "--out", reference)
    trained(*arguments, "--train.epochs", 1, "--out", run)
    trained(*arguments, "--train.epochs", 2, "--out", run, "--resume")
    assert_same_run(run, reference)


@pytest.mark.slow
def test_two_processes_teach_every_parameter_by_their_own_parts(tmp_path):
    """The losses for what and where are of a process's own part of the batch, and DDP misses no gradient."""
    path = make_learnable_data(tmp_path)
    arguments = [*CONFIG, "--train.batch_size", "32", "--train.epochs", "1", "--out", tmp_path / "two"]
    ended(train.main, "--config", path, *arguments, logs=tmp_path / "logs", processes=2)
    (epoch,) = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert epoch["losses"].keys() == {"what", "where"}
