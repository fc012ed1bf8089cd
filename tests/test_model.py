"""The model: parity with the published network, every ablation, gradients, and what it must not depend on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets import NETWORKS
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from scripts.convert_public import convert
from tests.public_network import PublicNetwork, public_state_dict
from utils.errors import UserError


def sizes_of(segments: int, audio: int, frame: int, tokens: int, token: int, text: int) -> FeatureSizes:
    shapes = {"audio": (segments, audio), "frame": (segments, frame), "token": (segments, tokens, token)}
    return FeatureSizes(segments, shapes, text)


SMALL = sizes_of(12, 8, 10, tokens=9, token=14, text=10)
FULL = sizes_of(60, 128, 768, tokens=14, token=1024, text=768)
VARIANTS = {
    "TSPM": {},
    "w/o all": {"network": "means"},
    "audio only": {"network": "means", "means_of": ["audio"]},
    "visual only": {"network": "means", "means_of": ["frame"]},
    "question only": {"network": "means", "means_of": []},
    "w/o TPM": {"temporal": "even"},
    "w/o TPC": {"temporal": "all"},
    "w/o SPM": {"spatial": "frames"},
    "merging in SPM": {"tokens": 5},
    "merging in three blocks": {"tokens": 5, "spm_blocks": 3},
    "top_k 2": {"top_k": 2},
    "top_k T": {"top_k": 12},
    "first k": {"spm_frames": "first_k"},
    "Eq. 6": {"streams": ["a_sel", "v_sel", "v_spa"]},
    "tokens alone": {"streams": ["a_sel", "v_spa"]},
    "context alone": {"streams": ["a_ctx", "v_ctx"]},
    "standardised": {"standardize": True},
}


def small(answers: int = 42, sizes: FeatureSizes = SMALL, **options) -> nn.Module:
    torch.manual_seed(0)
    own = {"top_k": 4, "tokens": 9} if options.get("network", "tspm") == "tspm" else {}
    return build(NETWORKS[options.get("network", "tspm")](**{"hidden": 16} | own | options), sizes, answers)


def inputs(batch: int = 5, sizes: FeatureSizes = SMALL) -> dict[str, torch.Tensor]:
    """Random features of `batch` videos and 2 x batch sentences."""
    made = torch.Generator().manual_seed(0)
    features = {kind: torch.randn(batch, *shape, generator=made) for kind, shape in sizes.shapes.items()}
    return features | {
        "text": torch.randn(2 * batch, sizes.text, generator=made),
        "video": torch.arange(batch),
        "asked": torch.arange(batch),
        "question": torch.arange(batch),
        "prompt": torch.arange(batch) + batch,
    }


@pytest.mark.parametrize("sizes", [FULL, sizes_of(12, 128, 512, 8, 768, 512)])
def test_converted_weights_give_the_logits_and_selections_of_the_published_network(sizes):
    torch.manual_seed(0)
    public = PublicNetwork(*(sizes.width(kind) for kind in ("audio", "frame", "token")), sizes.text).eval()
    for name, parameter in public.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)  # initially zero, so that a wrong bias would not show
    weights, unused = convert(public_state_dict(public), "tspm")
    model = build(TSPMOptions(spm_frames="first_k", tokens=sizes.shapes["token"][1]), sizes, 42).eval()
    model.load_state_dict(weights)
    given = inputs(4, sizes)
    with torch.no_grad():
        ours = model(**given)
        theirs, selected = public(
            given["audio"], given["frame"], given["token"], given["text"][:4], given["text"][4:]
        )  # fmt: skip
    assert torch.equal(ours.selected, selected)
    torch.testing.assert_close(ours.logits, theirs, atol=1e-5, rtol=0)
    assert (ours.logits.std() > 0.05).all()
    # Everything that is left unused is named by the description: 14 keys that never reach the logits.
    assert all(key.startswith(("TemporalPerception.", "AV_Attn.norm")) for key in unused)


def test_the_published_network_has_its_parameters_and_its_dead_ones():
    public = PublicNetwork()
    assert sum(p.numel() for p in public.parameters()) == 12_306_474
    given = inputs(2, FULL)
    logits, _ = public(given["audio"], given["frame"], given["token"], given["text"][:2], given["text"][2:])
    logits.sum().backward()
    dead = [p.numel() for p in public.parameters() if p.grad is None]
    assert (sum(dead), len(dead)) == (1_972_736, 16)


def test_a_public_checkpoint_that_lacks_a_key_is_refused():
    state = public_state_dict(PublicNetwork(dim=8))
    del state["module.av_fusion_fc.bias"]
    with pytest.raises(UserError, match=r"av_fusion_fc\.bias"):
        convert(state, "tspm")


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_answers_and_learns_with_all_its_trained_parameters(options):
    model = small(**options)
    given = inputs()
    seen = model.eval()(**given)
    assert seen.logits.shape == (5, 42)
    model.train()
    F.cross_entropy(model(**given).logits, torch.arange(5)).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            # Hard selection: only indices leave TPM, so what feeds nothing else cannot learn.
            assert name.startswith(("temporal.", "frame.") if options == VARIANTS["tokens alone"] else "temporal.")
            assert parameter.grad is None
        elif name.endswith("in_proj_bias"):
            query, key, value = parameter.grad.chunk(3)
            assert query.any()
            assert value.any()
            assert not key.any()  # the same for every key: softmax cancels it
        else:
            assert parameter.grad.any(), name


def test_only_tpm_is_frozen_in_the_default():
    frozen = {name for name, parameter in small().named_parameters() if not parameter.requires_grad}
    parts = ("prompt.weight", "prompt.bias", "query.weight", "query.bias", "key.weight")
    assert frozen == {f"temporal.{part}" for part in parts}


@pytest.mark.parametrize("top_k", [1, 4, 12])
def test_selection_takes_the_largest_weights_in_time_order(top_k):
    seen = small(top_k=top_k).eval()(**inputs())
    assert torch.allclose(seen.segment_weights.sum(dim=1), torch.ones(5))
    for weights, selected in zip(seen.segment_weights, seen.selected, strict=True):
        assert selected.tolist() == sorted(weights.argsort(descending=True)[:top_k].tolist())


def test_selection_is_the_same_in_training():
    """Its weights are taken without dropout."""
    model, given = small(dropout=0.9), inputs()
    expected = model.eval()(**given)
    for _ in range(3):
        seen = model.train()(**given)
        assert torch.equal(seen.segment_weights, expected.segment_weights)
        assert torch.equal(seen.selected, expected.selected)


def test_selection_and_answers_do_not_depend_on_the_rest_of_the_batch():
    model, given = small().eval(), inputs()
    together = model(**given)
    for row in range(5):
        one = {name: given[name][row : row + 1] for name in ("video", "question", "prompt")}
        alone = model(**given | one | {"asked": torch.arange(1)})
        torch.testing.assert_close(alone.logits[0], together.logits[row])
        assert torch.equal(alone.selected[0], together.selected[row])


def test_questions_about_one_video_share_its_features():
    model, given = small().eval(), inputs()
    rows = torch.tensor([3, 3, 1])
    shared = model(**given | {"video": rows} | dict.fromkeys(("asked", "question", "prompt"), torch.arange(3)))
    copied = {name: given[name][rows] for name in ("audio", "frame", "token")}
    indices = {name: torch.arange(3) for name in ("video", "asked", "question", "prompt")}
    torch.testing.assert_close(shared.logits, model(**given | copied | indices).logits)


def test_only_tokens_of_selected_segments_are_looked_at():
    model, given = small().eval(), inputs()
    before = model(**given)
    outside = torch.ones(5, 12, dtype=torch.bool).scatter(1, before.selected, False)
    changed = given["token"].clone()
    changed[outside] = torch.nan
    assert torch.equal(model(**given | {"token": changed}).logits, before.logits)
    first = small(spm_frames="first_k").eval()
    changed = given["token"].clone()
    changed[:, 4:] = torch.nan
    assert first(**given | {"token": changed}).logits.isfinite().all()


@pytest.mark.parametrize(
    ("means_of", "blind_to"),
    [(["audio"], ["frame", "token"]), (["frame"], ["audio", "token"]), ([], ["audio", "frame", "token"])],
)
def test_single_modality_baselines_read_nothing_else(means_of, blind_to):
    model, given = small(network="means", means_of=means_of), inputs()
    expected = model(**given).logits
    assert torch.equal(model(**given | dict.fromkeys(blind_to)).logits, expected)


def test_even_segments_are_spread_over_the_video():
    assert small(temporal="even", top_k=3).eval()(**inputs()).selected[0].tolist() == [2, 6, 10]
    assert small(temporal="all").eval()(**inputs()).selected[0].tolist() == list(range(12))


def test_merging_in_spm_follows_every_token():
    seen = small(tokens=5, spm_blocks=2).eval()(**inputs())
    assert seen.token_weights.shape == (5, 4, 5)
    assert seen.token_source.shape == (5, 4, 9)
    for source in seen.token_source.flatten(0, 1):
        assert set(source.tolist()) == set(range(5))
        assert source[0] == 0  # the class token


def test_one_batch_with_all_answers_is_overfitted():
    sizes = sizes_of(6, 8, 10, 4, 14, 10)
    model = small(sizes=sizes, hidden=64, tokens=4, dropout=0.0)
    given, answers = inputs(64, sizes), torch.arange(64) % 42
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(300):
        logits = model(**given).logits
        optimizer.zero_grad()
        F.cross_entropy(logits, answers).backward()
        optimizer.step()
    assert (model.eval()(**given).logits.argmax(dim=1) == answers).all()


@pytest.mark.parametrize("variant", ["TSPM", "merging in SPM"])
def test_a_training_step_compiles_to_one_graph_and_drops(variant):
    model, given = small(dropout=0.5, **VARIANTS[variant]), inputs()
    whole = torch.compile(model, backend="eager", fullgraph=True)  # raises where the graph breaks
    assert not torch.equal(whole(**given).logits, whole(**given).logits)


def test_features_may_be_stored_in_half_precision():
    model, given = small().eval(), inputs()
    kinds = ("audio", "frame", "token")
    halved = {kind: given[kind].half() for kind in kinds}
    rounded = {kind: halved[kind].float() for kind in kinds}
    assert torch.equal(model(**given | halved).logits, model(**given | rounded).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "model.top_k must be at least 1"),
        ({"hidden": 18}, "multiple of model.heads"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"streams": ["a_sel"]}, "an audio and a visual stream"),
        ({"streams": ["a_sel", "v_sel", "a_sel"]}, "names a stream twice"),
        ({"top_k": 13}, "more than the 12 segments"),
        ({"tokens": 4}, "4 of 9 tokens cannot be reached in 1 blocks; these can: 5-8"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)
