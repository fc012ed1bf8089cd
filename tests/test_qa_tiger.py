"""QA-TIGER against its published implementation written plainly, and what its own questions see."""

import sys

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

import test
from configs import schema
from nets.layers import QueryAttention
from nets.network import build
from nets.options import FeatureSizes
from nets.qa_tiger import QATigerOptions
from scripts.convert_public import convert, main
from scripts.profile_model import WIDTHS, feature_sizes
from tests.public_qa_tiger import PublicQATiger, public_state_dict
from tests.small_run import make_data, trained
from tests.synthetic import write_words
from utils.checkpoint import load_checkpoint, load_run
from utils.errors import UserError

REAL = feature_sizes(QATigerOptions.kinds, 60, 14, WIDTHS["ViT-L/14"])
KINDS = {"audio": (6, 8), "frame": (6, 10), "token": (6, 5, 12), "words": (77, 9)}
SMALL = FeatureSizes(6, KINDS, 11)
OPTIONS = {"hidden": 32, "tokens": 5, "top_k": 3}


def small(**options):
    torch.manual_seed(0)
    return build(QATigerOptions(**OPTIONS | options), SMALL, 42)


def inputs(batch=5, sizes=SMALL):
    """Random features of `batch` videos, a question about each."""
    made = torch.Generator().manual_seed(0)
    features = {kind: torch.randn(batch, *shape, generator=made) for kind, shape in sizes.shapes.items()}
    row = torch.arange(batch)
    text = torch.randn(batch, sizes.text, generator=made)
    return features | {"text": text, "video": row, "asked": row, "question": row, "prompt": row}


def part(given, rows):
    """The inputs of some of the questions."""
    row = torch.arange(len(rows))
    return {name: row if name in ("video", "asked", "question", "prompt") else x[rows] for name, x in given.items()}


def public(mixed, sizes, **options):
    """The published network with biases that are not zero, so that a wrong one shows, and Gaussians of all widths."""
    torch.manual_seed(1)
    widths = [sizes.width(kind) for kind in ("audio", "frame", "token", "words")]
    network = PublicQATiger(mixed, *widths, sizes.text, **options).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=3 if "gauss_pred" in name else 0.1)
    return network


@pytest.mark.parametrize("ranking", ["own", "mixed"])
@pytest.mark.parametrize(
    ("sizes", "options", "theirs"),
    [
        (SMALL, OPTIONS, {"dim": 32}),
        (SMALL, OPTIONS | {"active": 3, "experts": 5, "heads": 4}, {"dim": 32, "top": 3, "experts": 5, "heads": 4}),
        pytest.param(REAL, {}, {}, marks=pytest.mark.slow),
    ],
    ids=["small", "three of five experts", "real sizes"],
)
def test_converted_weights_give_what_the_published_network_gives(sizes, options, theirs, ranking):
    network = public(ranking == "mixed", sizes, **theirs)
    weights, unused = convert(public_state_dict(network), "qa_tiger")
    assert unused == []
    model = build(QATigerOptions(**options, ranking=ranking), sizes, 42).eval()
    model.load_state_dict(weights)
    given = inputs(3, sizes)
    with torch.no_grad():
        seen = model(**given)
        logits, when, where = network(*(given[kind] for kind in (*KINDS, "text")))
    torch.testing.assert_close(seen.logits, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.segment_weights, when / when.sum(dim=1, keepdim=True))
    assert torch.equal(seen.selected, when.topk(model.top_k).indices.sort(dim=1).values)
    assert torch.equal(seen.token_segments, seen.selected)
    torch.testing.assert_close(
        seen.token_weights, where.gather(1, seen.selected[..., None].expand_as(seen.token_weights))
    )
    assert seen.logits.std(dim=0).mean() > 0.05


def test_it_has_the_parameters_of_the_published_network():
    assert sum(p.numel() for p in PublicQATiger(mixed=True).parameters()) == 14_960_212
    with torch.device("meta"):
        model = build(QATigerOptions(), REAL, 42)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 14_960_212


def test_an_answer_depends_on_the_rest_of_the_batch_as_published_and_on_nothing_else_when_mended():
    given = inputs()
    for options in ({}, {"active": 2}):
        model = small(**options).eval()
        together = model(**given)
        for rows in ([0], [3, 1], [4, 3, 2, 1, 0]):
            alone = model(**part(given, rows))
            torch.testing.assert_close(alone.logits, together.logits[rows], atol=1e-6, rtol=0)
            assert torch.equal(alone.selected, together.selected[rows])
        mixed = small(**options, ranking="mixed").eval()
        assert torch.equal(mixed(**part(given, [0])).logits, model(**part(given, [0])).logits)  # alone both agree
        assert not torch.allclose(mixed(**part(given, [0, 1])).logits[0], together.logits[0], atol=1e-3)


def test_questions_about_a_video_share_it():
    given, model = inputs(), small().eval()
    shared = given | {"video": torch.tensor([3, 1]), "asked": torch.tensor([1, 0, 0, 1, 1])}
    apart = given | {"video": torch.tensor([1, 3, 3, 1, 1])}
    for one, other in zip(model(**shared)[:5], model(**apart)[:5], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ranking", ["own", "mixed"])
def test_gradients_reach_every_parameter(ranking):
    model = small(ranking=ranking, standardize=True).train()
    F.cross_entropy(model(**inputs()).logits, torch.arange(5)).backward()
    assert [name for name, p in model.named_parameters() if not (p.requires_grad and p.grad.any())] == []
    deep = set(model.rate_groups()["deep"])
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p not in deep} == {
        *KINDS,
        "question",
        "head",
    }


def test_a_process_without_a_part_of_the_last_batch_answers_nothing():
    for ranking in ("own", "mixed"):
        assert small(ranking=ranking)(**inputs(0)).logits.shape == (0, 42)


@pytest.mark.slow
def test_a_training_step_compiles_to_one_graph():
    model, given = small(), inputs()
    whole = torch.compile(model, backend="eager", fullgraph=True)  # raises where the graph breaks
    assert not torch.equal(whole(**given).logits, whole(**given).logits)


def test_gaussians_are_not_rounded(monkeypatch):
    model, given, found = small().eval(), inputs(), torch.randn(5, 1, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**given).logits.isfinite().all()
        monkeypatch.setattr(QueryAttention, "forward", lambda self, query, keys: (found, None))
        rounded = model.heard.weigh(found[:, 0], torch.zeros(5, 6, 32))
    assert torch.equal(rounded, model.heard.weigh(found[:, 0], torch.zeros(5, 6, 32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": 0}, "model.experts must be at least 1"),
        ({"hidden": 24}, "model.hidden 24 must be even, and a multiple of model.heads 8"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"active": 8}, "model.active 8 is more than the 7 experts"),
        ({"top_k": 7}, "model.top_k 7 is more than the 6 segments"),
        ({"tokens": 4}, "model.tokens 4 is not the 5 stored"),
    ],
)
def test_options_that_cannot_be_built_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)


def test_a_checkpoint_becomes_a_run_folder(tmp_path, monkeypatch, capsys):
    network = PublicQATiger(True, dim=16)
    torch.save(public_state_dict(network), tmp_path / "public.pt")
    arguments = ["--network", "qa_tiger", tmp_path / "public.pt", "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["convert_public", *map(str, arguments)])
    main()
    assert "never reach the output (0)" in capsys.readouterr().out
    stored = load_run(tmp_path / "run/best.pt")
    config = schema.from_dict(stored["config"])
    assert (config.model.network, config.model.hidden, config.model.ranking) == ("qa_tiger", 16, "mixed")
    assert config.data.spelling == "published"
    model = build(config.model, FeatureSizes(**stored["sizes"]), len(stored["answers"]))
    model.load_state_dict(stored["model"])


def test_a_network_that_nobody_published_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert_public", "--network", "tiger", "x.pt"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: --network must be one of tspm, qa_tiger, is 'tiger'\n"


def test_it_trains_and_is_tested_like_any_other(tmp_path):
    data = make_data(tmp_path)
    write_words(tmp_path / "features")
    options = ["--config", data, "--model.network", "qa_tiger", "--train.rates.deep", 0.5, "--train.epochs", 1]
    run = trained(*options, "--train.betas", "[0.95, 0.999]", "--out", tmp_path / "run")
    held = yaml.safe_load((run / "config.yaml").read_text())
    assert held["train"]["betas"] == [0.95, 0.999]
    assert load_run(run / "best.pt")["sizes"]["shapes"]["words"] == (77, 24)
    groups = load_checkpoint(run / "last.pt")["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == [1e-3, 5e-4]
    assert all(list(group["betas"]) == [0.95, 0.999] for group in groups)
    answers = {}
    for residency in ("device", "disk"):
        test.main(["--run", str(run), "--out", str(tmp_path / residency), "--data.residency", residency])
        (told,) = (tmp_path / residency).rglob("predictions.csv")
        answers[residency] = told.read_text()
    assert answers["device"] == answers["disk"]
