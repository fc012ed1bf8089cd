"""ST-AVQA against a plain network with the published names, its matching loss, and what it must not depend on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import test
from nets.network import build
from nets.st_avqa import Match, STAVQAOptions
from tests.public_peers import ST_AVQA_ATTENTIONS, ST_AVQA_LAYERS, PublicSTAVQA, renamed, with_biases
from tests.small_run import losses, make_data, trained
from tests.test_model import FULL, SMALL, inputs, small
from utils.errors import UserError
from utils.files import read_json

OWN = {"network": "st_avqa", "tokens": 9, "seconds": 6, "top_k": 3}
PROJECTIONS = ("frame", "token", "question")  # in place of the published ResNet and LSTM


def both(seconds: int | None, top_k: int, sizes=SMALL, hidden: int = 16):
    """Our network and the plain one, with the same weights."""
    torch.manual_seed(0)
    public = with_biases(PublicSTAVQA(sizes.width("audio"), hidden))
    options = STAVQAOptions(hidden=hidden, tokens=sizes.shapes["token"][1], seconds=seconds, top_k=top_k)
    model = build(options, sizes, 42).eval()
    weights, unused = renamed(public, ST_AVQA_LAYERS, ST_AVQA_ATTENTIONS)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unused
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {*PROJECTIONS}
    return model, public


@pytest.mark.parametrize(
    ("sizes", "hidden", "seconds", "looked"),
    [(SMALL, 16, 6, range(0, 12, 2)), (SMALL, 16, None, range(12)), (FULL, 512, 10, range(0, 60, 6))],
)
@torch.no_grad()
def test_mapped_weights_give_the_logits_and_weights_of_the_plain_network(sizes, hidden, seconds, looked):
    model, public = both(seconds, 3, sizes, hidden)
    given, looked = inputs(4, sizes), list(looked)
    seen = model(**given)
    for row in range(4):
        maps, pooled = model.token(given["token"][row, looked]), model.frame(given["frame"][row, looked])
        question = model.question(given["text"][row])
        logits, weights, cells = public(given["audio"][row, looked], maps, pooled, question)
        torch.testing.assert_close(seen.logits[row], logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(seen.segment_weights[row, looked], weights)
        selected = sorted(looked[at] for at in weights.argsort()[-3:].tolist())
        assert seen.selected[row].tolist() == seen.token_segments[row].tolist() == selected
        torch.testing.assert_close(seen.token_weights[row], cells[[looked.index(at) for at in selected]])
    assert (seen.logits.std() > 0.05).all()
    assert torch.allclose(seen.segment_weights.sum(dim=1), torch.ones(4))
    assert torch.equal(seen.token_source, torch.arange(sizes.shapes["token"][1]).expand(4, 3, -1))


def test_the_matching_loss_is_that_of_the_plain_network():
    """Of two videos with a second each, what is drawn is certain: the other's."""
    model, public = both(1, 1)
    given = inputs(2)
    loss = model.train()(**given).losses["match"]
    sounds, maps, pooled = (
        public.hear(given["audio"][:, 0]),
        model.token(given["token"][:, 0]),
        model.frame(given["frame"][:, 0]),
    )
    pairs = [(own, other) for own in (0, 1) for other in (0, 1)]
    logits = [public.match(sounds[a], public.ground(sounds[a], maps[v], pooled[v])[0]) for a, v in pairs]
    expected = F.cross_entropy(torch.stack(logits), torch.tensor([1, 0, 0, 1]), reduction="sum")
    torch.testing.assert_close(loss.sum, expected)
    assert (loss.weight, loss.count) == (0.5, 4)


def test_strange_pictures_are_of_any_second_of_any_other_video():
    torch.manual_seed(0)
    videos = torch.tensor([7, 3, 7, 5])  # of each two seconds
    match, pairs = Match(4), []
    match.head = nn.Module()
    match.head.forward = lambda x: pairs.append(x) or x.new_zeros(len(x), 2)
    number = torch.arange(8.0)[:, None].expand(-1, 4)  # a picture is its place

    def spatial(sound, pooled, cells):
        assert torch.equal(pooled, cells[:, 0])
        return pooled, None

    for _ in range(50):
        match(spatial, number, number, number, number[:, None], videos)
    own, strange = torch.cat([x[:8] for x in pairs]), torch.cat([x[8:] for x in pairs])
    assert torch.equal(own[:, 0], own[:, 4])
    drawn = {(int(sound), int(picture)) for sound, picture in strange[:, [0, 4]].tolist()}
    assert drawn == {(a, v) for a in range(8) for v in range(8) if videos[a // 2] != videos[v // 2]}


def test_one_video_alone_has_nothing_to_match():
    model = small(**OWN).train()
    loss = model(**inputs(5) | {"video": torch.full((5,), 2)}).losses["match"]
    assert (loss.sum, loss.count) == (0, 0)


def test_draws_follow_the_seed_and_there_are_none_in_evaluation():
    model, given = small(**OWN, dropout=0.0), inputs()
    before = torch.get_rng_state()
    assert not model.eval()(**given).losses
    assert torch.equal(torch.get_rng_state(), before)
    sums = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        sums.append(model.train()(**given).losses["match"].sum)
    assert sums[0] == sums[1] != sums[2]


def test_it_has_the_parameters_of_the_published_network_but_for_what_makes_its_inputs():
    """7,916,716 are used there; embedding, LSTM and the Linear after it are 2,673,664 of them."""
    lstm = sum(p.numel() for p in nn.LSTM(512, 512).parameters()) + 93 * 512 + 1024 * 512 + 512
    model = build(STAVQAOptions(), FULL, 42)
    inputs_of_ours = sum(p.numel() for name in PROJECTIONS for p in getattr(model, name).parameters())
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) - inputs_of_ours + lstm == 7_916_716
    assert sum(p.numel() for p in PublicSTAVQA().parameters()) == 7_916_716 - lstm == 5_243_052


@pytest.mark.parametrize("own", [{}, {"standardize": True}, {"seconds": None}])
def test_all_parameters_learn(own):
    model = small(**OWN | own).train()
    seen = model(**inputs())
    (F.cross_entropy(seen.logits, torch.arange(5)) + 0.5 * seen.losses["match"].sum).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name


def test_answers_do_not_depend_on_the_rest_of_the_batch_and_questions_share_a_video():
    model, given = small(**OWN).eval(), inputs()
    rows = torch.tensor([3, 1])
    indices = {"asked": torch.tensor([0, 0, 1]), "question": torch.tensor([2, 3, 4]), "prompt": torch.arange(3)}
    shared = model(**given | {"video": rows} | indices)
    for row, video in enumerate([3, 3, 1]):
        one = {"video": torch.tensor([video]), "asked": torch.arange(1), "question": indices["question"][row][None]}
        alone = model(**given | one | {"prompt": torch.arange(1)})
        for name in ("logits", "segment_weights", "token_weights"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(shared, name)[row])


def test_a_training_step_compiles_to_one_graph():
    model, given = small(**OWN), inputs()
    torch.compile(model, backend="eager", fullgraph=True)(**given)  # raises where the graph breaks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 18}, "multiple of 4 and of model.heads 4"),
        ({"seconds": 13}, "at most the 12 segments"),
        ({"top_k": 7}, "model.top_k 7 must be at most model.seconds 6"),
        ({"tokens": 5}, r"model.tokens 5 is not the 9 stored \(data.tokens\)"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"heads": 0}, "model.heads must be at least 1"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small(**OWN | options)


def test_it_trains_and_answers_like_any_network(tmp_path):
    data = make_data(tmp_path)
    own = ("--config", data, "--model.network", "st_avqa", "--model.seconds", 3)
    run = trained(*own, "--train.rates.deep", 0.5, "--train.epochs", 2, "--out", tmp_path / "run")
    first, last = (loss for _, loss, _ in losses(run))
    assert last < first
    test.main(["--run", str(run)])
    assert read_json(run / "test/metrics.json")["questions"] == 18
