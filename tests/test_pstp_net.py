"""PSTP-Net against a plain network with the published names, both of its fusions, and what it must not depend on."""

import pytest
import torch
from torch.nn import functional as F

import test
from nets.network import build
from nets.options import FeatureSizes
from nets.pstp_net import PSTPNetOptions
from tests.public_peers import (
    PSTP_ATTENTIONS,
    PSTP_LAYERS,
    PSTP_SELECTIONS,
    PublicPSTPNet,
    renamed,
    with_biases,
)
from tests.small_run import losses, make_data, trained
from tests.synthetic import write_words
from tests.test_model import inputs, sizes_of, small
from utils.errors import UserError
from utils.files import read_json


def with_words(sizes: FeatureSizes, words: int, width: int) -> FeatureSizes:
    return sizes._replace(shapes=sizes.shapes | {"words": (words, width)})


SMALL = with_words(sizes_of(12, 8, 10, tokens=9, token=14, text=10), 7, 6)
FULL = with_words(sizes_of(60, 128, 512, tokens=49, token=512, text=512), 77, 512)  # as its authors project them
OWN = {"network": "pstp_net", "sizes": SMALL, "tokens": 9, "spans": 4, "top_spans": 2}
FUSED = ("perceived", "projections")


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize(("sizes", "hidden", "spans", "kept"), [(SMALL, 16, 4, 4), (FULL, 512, 12, 20)])
@torch.no_grad()
def test_mapped_weights_give_the_logits_and_weights_of_the_plain_network(sizes, hidden, spans, kept, fused):
    torch.manual_seed(0)
    widths = [sizes.width(kind) for kind in ("audio", "frame", "token")]
    public = with_biases(PublicPSTPNet(*widths, sizes.text, sizes.width("words"), hidden, spans, kept=kept))
    weights, unused = renamed(public, PSTP_LAYERS, PSTP_ATTENTIONS, PSTP_SELECTIONS)
    options = PSTPNetOptions(hidden=hidden, spans=spans, tokens=sizes.shapes["token"][1], fused=fused)
    model = build(options, sizes, 42).eval()
    reached = {name: value for name, value in weights.items() if fused == "perceived" or "perceive." not in name}
    model.load_state_dict(reached)
    given = inputs(3, sizes)
    seen = model(**given)
    logits, selected, heard = public(
        given["audio"], given["frame"], given["token"], given["text"][:3], given["words"][:3], fused
    )
    torch.testing.assert_close(seen.logits, logits, atol=1e-5, rtol=0)
    assert (seen.logits.std() > 0.05).all()
    assert torch.equal(seen.selected, selected)
    if fused == "perceived":
        torch.testing.assert_close(seen.token_weights, heard)
        assert torch.equal(seen.token_segments, selected)
        assert ((heard > 0).sum(dim=2) == kept).all()
    else:
        assert seen.token_weights is None
    # Everything else never reaches the logits, whatever is fused.
    never = ("fc_spat_q", "audio_fusion", "visual_fusion", "SM_fusion", "fc_av_fusion", "GlobalLocal_Module.norm")
    in_modules = ("TempSegsSelect_Module.", "SpatRegsSelect_Module.", "GlobalSelf_Module.norm2", "GlobalSelf_Module.")
    assert all(key.startswith(never + in_modules) for key in unused)


def test_it_has_the_parameters_of_the_published_network():
    public = PublicPSTPNet()
    assert sum(p.numel() for p in public.parameters()) == 16_383_018
    small_inputs = inputs(1, FULL)
    logits, _, _ = public(
        *(small_inputs[kind] for kind in ("audio", "frame", "token")),
        small_inputs["text"][:1],
        small_inputs["words"],
        "projections",
    )
    logits.sum().backward()
    assert sum(p.numel() for p in public.parameters() if p.grad is not None) == 2_453_546
    published = build(PSTPNetOptions(tokens=49, fused="projections"), FULL, 42)
    assert sum(p.numel() for p in published.parameters() if p.requires_grad) == 2_453_546
    # Ours holds what can reach an answer: of each selection's attention the query's and the keys' matrix, no norms of
    # layers whose outputs are not normalised again, no feed-forward network after weights.
    ours = build(PSTPNetOptions(tokens=49), FULL, 42)
    weights, unused = renamed(public, PSTP_LAYERS, PSTP_ATTENTIONS, PSTP_SELECTIONS)
    assert sum(p.numel() for p in ours.parameters()) == sum(map(torch.numel, weights.values()))
    dead = sum(public.get_parameter(name).numel() for name in unused)
    cut = 2 * (2 * 512 * 512 + 3 * 512)  # of two selections: values and output, their biases, and that of the keys
    assert sum(p.numel() for p in ours.parameters()) + dead + cut == 16_383_018


@pytest.mark.parametrize("own", [{}, {"fused": "projections"}, {"standardize": True}])
def test_all_learn_but_what_selects(own):
    model = small(**OWN | own)
    F.cross_entropy(model.train()(**inputs(5, SMALL)).logits, torch.arange(5)).backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    selecting = [".query.weight", ".query.bias", ".key.weight"]
    stages = ["temporal.attend"] + (["perceive.attend"] if "fused" not in own else [])
    span = {"temporal.span.weight", "temporal.span.bias"}
    assert frozen == {stage + part for stage in stages for part in selecting} | span
    for name, parameter in model.named_parameters():
        if name.endswith("in_proj_bias"):
            query, key, value = parameter.grad.chunk(3)
            assert query.any()
            assert value.any()
            assert not key.any()  # the same for every key: softmax cancels it
        elif name not in frozen:
            assert parameter.grad.any(), name


def test_a_spans_weight_is_shared_by_its_seconds():
    seen = small(**OWN).eval()(**inputs(5, SMALL))
    assert torch.allclose(seen.segment_weights.sum(dim=1), torch.ones(5))
    spans = seen.segment_weights.unflatten(1, (4, 3))
    assert torch.equal(spans, spans[..., :1].expand(-1, -1, 3))
    for weights, selected in zip(spans[..., 0], seen.selected, strict=True):
        best = sorted(weights.argsort()[-2:].tolist())
        assert selected.tolist() == [3 * span + second for span in best for second in range(3)]


def test_selection_is_the_same_in_training():
    model, given = small(**OWN, dropout=0.9), inputs(5, SMALL)
    expected = model.eval()(**given)
    for _ in range(3):
        seen = model.train()(**given)
        assert torch.equal(seen.selected, expected.selected)
        assert torch.equal(seen.token_weights > 0, expected.token_weights > 0)


@pytest.mark.parametrize("fused", FUSED)
def test_what_is_not_selected_is_seen_in_the_context_alone(fused):
    model, given = small(**OWN, fused=fused).eval(), inputs(5, SMALL)
    seen = model(**given)
    outside = torch.ones(5, 12, dtype=torch.bool).scatter(1, seen.selected, False)
    token = given["token"].clone()
    token[outside] = torch.nan
    assert torch.equal(model(**given | {"token": token}).logits, seen.logits)
    token[~outside] += 1
    changed = not torch.equal(model(**given | {"token": token}).logits, seen.logits)
    assert changed == (fused == "perceived")  # as published, no token reaches an answer


def test_answers_do_not_depend_on_the_rest_of_the_batch_and_questions_share_a_video():
    model, given = small(**OWN).eval(), inputs(5, SMALL)
    asked = {"asked": torch.tensor([0, 0, 1]), "question": torch.tensor([2, 3, 4]), "prompt": torch.arange(3)}
    shared = model(**given | {"video": torch.tensor([3, 1])} | asked)
    for row, video in enumerate([3, 3, 1]):
        one = {"video": torch.tensor([video]), "asked": torch.arange(1), "question": asked["question"][row][None]}
        alone = model(**given | one | {"prompt": torch.arange(1)})
        for name in ("logits", "segment_weights", "token_weights"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(shared, name)[row])


@pytest.mark.parametrize("fused", FUSED)
def test_a_training_step_compiles_to_one_graph(fused):
    model, given = small(**OWN, fused=fused), inputs(5, SMALL)
    torch.compile(model, backend="eager", fullgraph=True)(**given)  # raises where the graph breaks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spans": 5}, "model.spans 5 must divide the 12 segments"),
        ({"top_spans": 5}, "model.top_spans 5 is more than model.spans 4"),
        ({"tokens": 5}, r"model.tokens 5 is not the 9 stored \(data.tokens\)"),
        ({"token_share": 0.0}, "model.token_share"),
        ({"hidden": 18}, "multiple of model.heads"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"spans": 0}, "model.spans must be at least 1"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small(**OWN | options)


@pytest.mark.parametrize("fused", FUSED)
def test_it_trains_and_answers_like_any_network(fused, tmp_path):
    data = make_data(tmp_path)
    write_words(tmp_path / "features")
    own = ("--config", data, "--model.network", "pstp_net", "--model.spans", 3, "--model.fused", fused)
    run = trained(*own, "--train.rates.deep", 0.5, "--train.epochs", 2, "--out", tmp_path / "run")
    first, last = (loss for _, loss, _ in losses(run))
    assert last < first
    test.main(["--run", str(run)])
    assert read_json(run / "test/metrics.json")["questions"] == 18
