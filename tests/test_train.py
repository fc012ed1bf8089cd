"""Training on data that can be learnt: rates, order, best epoch, seeds, resuming, terms of the loss."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional as F
from torch.utils.tensorboard.writer import FileWriter

import test
import train
from configs import schema
from configs.schema import TrainConfig
from dataset.data import open_data
from dataset.loader import Loader
from nets import means
from nets.network import Loss, Perception, build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from tests.small_run import TOKENS, assert_same_run, losses, make_learnable_data, trained, weights
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.losses import Losses
from utils.numerics import seed
from utils.runtime import Runtime
from utils.scoring.evaluation import predict
from utils.scoring.metrics import accuracy_row, judge
from utils.scoring.paper import TABLE1_COLUMNS

EPOCHS = 4
RECIPE = ("--train.epochs", EPOCHS, "--train.lr", 6e-3, "--train.seed", 2, "--train.lr_step", 3)  # validation peaks
CPU = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The YAML of the data set: 117 training questions, so the last batch of 16 holds 5."""
    return make_learnable_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    return trained("--config", data, "--out", tmp_path_factory.mktemp("plain") / "run", *RECIPE)


def config_of(data: Path, *options: str | Path | float) -> schema.Config:
    return schema.from_dict({}, ["--config", str(data), *map(str, options)])


def open_all(data: Path, config: schema.Config):
    opened = open_data(config.data, config.model.kinds, ("train", "val"))
    return opened, Loader(opened, CPU, "device", 1), FeatureSizes(6, opened.store.shapes, opened.store.text_width)


def test_a_run_leaves_its_record(plain):
    assert {file.name for file in plain.iterdir()} > {"config.yaml", "metrics.jsonl", "last.pt", "best.pt"}
    lines = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]
    assert {"A-Count", "Temp", "All"} <= lines[0]["val"].keys()
    assert load_checkpoint(plain / "last.pt")["config"] == yaml.safe_load((plain / "config.yaml").read_text())


def test_the_best_epoch_is_kept_and_it_is_not_the_last(data, plain):
    accuracy = [row["All"] for _, _, row in losses(plain)]
    best = int(np.argmax(accuracy)) + 1
    assert best < EPOCHS, accuracy  # else the fixture is none
    assert accuracy[best - 1] > 60
    stored, last = load_checkpoint(plain / "best.pt"), load_checkpoint(plain / "last.pt")
    assert (stored["at"]["epoch"], stored["at"]["best_epoch"], stored["at"]["best"]) == (best, best, max(accuracy))
    assert (last["at"]["epoch"], last["at"]["best_epoch"]) == (EPOCHS, best)
    config = config_of(data)
    opened, loader, sizes = open_all(data, config)
    model = build(config.model, sizes, len(opened.vocabulary))
    model.load_state_dict(stored["model"])
    asked = opened.splits["val"]
    rows = predict(model, loader.by_video(asked, np.arange(len(asked)), 5), len(asked), "fp32", CPU)
    scored = accuracy_row(judge(asked.questions, opened.vocabulary.words(rows)), TABLE1_COLUMNS)
    assert scored == losses(plain)[best - 1][2]  # validation has no dropout, and depends on no batch


def test_of_equal_epochs_the_first_is_the_best(data, tmp_path):
    folder = trained("--config", data, "--out", tmp_path / "run", *RECIPE, "--train.lr_gamma", 1e-9)
    accuracy = [row["All"] for _, _, row in losses(folder)]  # from epoch 4 on nothing is learnt
    assert accuracy[3] == accuracy[2]
    folder = trained("--config", data, "--out", tmp_path / "flat", *RECIPE, "--train.lr", 1e-12)
    assert len({row["All"] for _, _, row in losses(folder)}) == load_checkpoint(folder / "best.pt")["at"]["epoch"] == 1


def test_test_py_scores_the_best_epoch_s_validation_row(plain, tmp_path):
    test.main(["--run", str(plain), "--split", "val", "--out", str(tmp_path)])
    scored = json.loads((tmp_path / "metrics.json").read_text())
    assert scored["accuracy"] == max((row for _, _, row in losses(plain)), key=lambda row: row["All"])


def test_the_rate_drops_by_lr_gamma_every_lr_step_epochs(data, tmp_path):
    options = ("--train.epochs", 5, "--train.lr", 1e-3, "--train.lr_step", 2, "--train.lr_gamma", 0.5)
    folder = trained("--config", data, "--out", tmp_path / "run", *options)
    rates = [json.loads(line)["rate"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])


def test_the_defaults_are_the_paper_s():
    """Section 4.2: Adam, 1e-4, a tenth every 10 epochs, batches of 64, 30 epochs; Table 4: top_k 10, 14 tokens."""
    options = asdict(TrainConfig())
    expected = {"epochs": 30, "batch_size": 64, "lr": 1e-4, "lr_step": 10, "lr_gamma": 0.1, "rates": {}}
    assert {name: options[name] for name in expected} == expected
    model = TSPMOptions()
    assert (model.top_k, model.tokens, model.hidden, model.heads, model.dropout) == (10, 14, 512, 4, 0.1)
    assert model.streams == ["a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_spa"]
    assert (model.temporal, model.spatial, model.spm_frames, model.spm_blocks) == ("top_k", "tokens", "selected", 1)
    data = schema.Config().data
    assert (data.segments, data.tokens, data.query, data.shuffle, data.window) == (60, 14, "prompt", None, 0)


def test_rates_slow_what_lies_between_projections_and_classifier(data, tmp_path):
    after = {}
    for factor in (1, 0.1):  # one step from the same weights with the same gradients; Adam's first is as long as lr
        options = ("--train.epochs", 1, "--train.batch_size", 117, "--train.lr", 1e-3, "--train.rates.deep", factor)
        after[factor] = weights(trained("--config", data, "--out", tmp_path / str(factor), *options) / "last.pt")
    apart = {name: np.abs(after[1][name] - after[0.1][name]).max() for name in after[1]}
    edges = {name for name in apart if name.startswith(("audio", "frame", "question", "spatial.token", "fusion.class"))}
    frozen = {name for name in apart if name.startswith("temporal")}
    assert all(apart[name] == 0 for name in edges | frozen)
    moved = [apart[name] for name in apart.keys() - edges - frozen]
    assert moved == pytest.approx([0.9e-3] * len(moved), rel=1e-2)


@pytest.mark.parametrize("ablation", sorted(Path("configs/ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ablation_takes_the_demo_s_rates(ablation):
    config = schema.from_dict(
        {}, ["--config", "configs/bandstand.yaml", "--config", str(ablation), "--data.segments", "60"]
    )
    shapes = {"audio": (60, 128), "frame": (60, 128), "token": (60, config.data.tokens or 14, 128)}
    sizes = FeatureSizes(60, {kind: shapes[kind] for kind in config.model.kinds if kind in shapes}, 128)
    groups = train.rate_groups(build(config.model, sizes, 42), config.train)
    assert sum(len(group["params"]) for group in groups) > 0


def test_the_same_seed_gives_the_same_run_and_another_does_not(data, plain, tmp_path):
    assert_same_run(trained("--config", data, "--out", tmp_path / "same", *RECIPE), plain)
    other = trained("--config", data, "--out", tmp_path / "other", *RECIPE, "--train.epochs", 1, "--train.seed", 1)
    assert losses(other)[0][1] != losses(plain)[0][1]


def test_going_on_after_fewer_epochs_equals_one_run(data, plain, tmp_path):
    arguments = ("--config", data, "--out", tmp_path / "run", *RECIPE)
    trained(*arguments, "--train.epochs", 2)
    trained(*arguments, "--resume")
    assert_same_run(tmp_path / "run", plain)


def test_an_interrupted_run_goes_on_to_the_same_numbers(data, plain, tmp_path, monkeypatch):
    arguments = ("--config", data, "--out", tmp_path / "run", *RECIPE)
    with monkeypatch.context() as patch:  # after the first step, and again after one more
        patch.setattr(train, "Interrupt", lambda: SimpleNamespace(asked=True))
        for _ in range(2):
            with pytest.raises(SystemExit) as stop:
                trained(*arguments, "--resume")
            assert stop.value.code == 130
    assert load_checkpoint(tmp_path / "run/last.pt")["at"]["step"] == 2
    trained(*arguments, "--resume")
    assert_same_run(tmp_path / "run", plain)


def test_residencies_and_precision_give_the_same_run(data, plain, tmp_path):
    assert_same_run(trained("--config", data, "--out", tmp_path / "disk", *RECIPE, "--data.residency", "disk"), plain)
    rough = trained("--config", data, "--out", tmp_path / "bf16", *RECIPE, "--train.precision", "bf16")
    np.testing.assert_allclose(*([loss for _, loss, _ in losses(folder)] for folder in (rough, plain)), rtol=0.02)


def test_the_window_of_the_order_is_the_run_s_own(data, plain, tmp_path):
    """Numbers depend on the option alone, not on where features are."""
    options = ("--config", data, *RECIPE, "--data.window", 2)
    windowed = trained(*options, "--out", tmp_path / "disk", "--data.residency", "disk")
    assert losses(windowed) != losses(plain)
    assert_same_run(trained(*options, "--out", tmp_path / "device", "--data.residency", "device"), windowed)


def test_features_are_standardised_by_those_of_the_training_videos(data, tmp_path):
    options = ("--model.standardize", "true", "--train.epochs", 1)
    stored = weights(trained("--config", data, "--out", tmp_path / "run", *options) / "last.pt")
    videos = {row["video_id"] for row in json.loads((data.parent / "train.json").read_text())}
    for layer, folder in (("audio", "vggish"), ("frame", "clip_frame"), ("spatial.token", f"clip_token_{TOKENS}")):
        rows = np.concatenate([np.load(data.parent / "features" / folder / f"{video}.npy") for video in videos])
        rows = rows.reshape(-1, rows.shape[-1]).astype(float)
        np.testing.assert_allclose(stored[f"{layer}.mean"], rows.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(stored[f"{layer}.deviation"], rows.std(axis=0), rtol=1e-5)


def gradients(data: Path, rows: np.ndarray, questions: int, runtime: Runtime = CPU) -> dict[str, torch.Tensor]:
    """The raw gradients of one training step over these questions, by `make_step`, before the optimizer moves.

    `runtime` is the step's; the data and the network are those of one process.
    """
    config = config_of(data, "--model.dropout", 0)
    opened, loader, _ = open_all(data, config)
    state = train.set_up(config, opened, CPU, None)
    state.optimizer.step = lambda: None
    learn = train.make_step(config, state, loader, runtime)
    (batch,) = loader.batches(opened.splits["train"], [rows])
    learn(questions, answer=batch.answer, **batch.inputs)
    return {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}


def test_the_gradient_is_that_of_the_mean_over_the_true_batch(data):
    """Adam hides a wrong scale, so the gradients themselves are compared, of a short batch too."""
    config = config_of(data, "--model.dropout", 0)
    opened, loader, sizes = open_all(data, config)
    for rows in (np.arange(16), np.arange(5)):
        seed(config.train.seed)
        model = build(config.model, sizes, len(opened.vocabulary))
        (batch,) = loader.batches(opened.splits["train"], [rows])
        F.cross_entropy(model(**batch.inputs).logits, batch.answer).backward()
        found = gradients(data, rows, len(rows))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_part_of_a_batch_weighs_by_its_share(data):
    """Of 16 questions, this process has 5: what it sums is divided by 16."""
    whole, part = (gradients(data, np.arange(5), questions) for questions in (5, 16))
    for name in whole:
        torch.testing.assert_close(part[name] * 16 / 5, whole[name], rtol=1e-4, atol=1e-6)


class WithTerm(means.Means):
    """A network with a term of its own: the mean square of the logits."""

    def forward(self, **inputs):
        logits = super().forward(**inputs).logits
        return Perception(
            logits, losses={"size": Loss(0.5, logits.square().sum(), logits.new_full((), logits.numel()))}
        )


def test_a_network_s_own_loss_is_added_and_logged(data, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(means, "Means", lambda *parts: made.append(WithTerm(*parts)) or made[-1])
    scalars = []
    monkeypatch.setattr(FileWriter, "add_summary", lambda self, summary, *rest: scalars.append((summary, rest)))
    options = ("--model.network", "means", "--train.epochs", 2, "--train.lr", 1e-2)
    folder = trained("--config", data, "--out", tmp_path / "run", *options)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["losses"].keys() == {"size"} for line in lines)
    assert lines[0]["losses"]["size"] > 0
    tags = {value.tag for summary, _ in scalars for value in summary.value}
    assert {"step_loss/answer", "step_loss/size", "rate/0", "train_loss/size", "val/All"} <= tags

    config = config_of(data, "--model.network", "means")
    opened, loader, _ = open_all(data, config)
    state = train.set_up(config, opened, CPU, None)
    state.optimizer.step = lambda: None
    (batch,) = loader.batches(opened.splits["train"], [np.arange(16)])
    totals = train.make_step(config, state, loader, CPU)(16, answer=batch.answer, **batch.inputs)
    logits = state.model(**batch.inputs).logits
    assert totals["size"].tolist() == pytest.approx([logits.square().sum().item(), logits.numel()], rel=1e-5)
    wanted = F.cross_entropy(logits, batch.answer) + 0.5 * logits.square().mean()
    expected = torch.autograd.grad(wanted, [*state.model.parameters()])
    for parameter, gradient in zip(state.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


def test_losses_are_means_over_steps_of_unequal_size():
    ids = SimpleNamespace(iloc=["7", "8", "9"])
    held = Losses({"answer": [3.0, 2]}, ids, CPU)
    held.add({"answer": torch.tensor([4.0, 2])}, np.array([0]))
    held.add({"answer": torch.tensor([1.0, 1])}, np.array([1]))
    assert held.look() == {"answer": pytest.approx(5 / 3)}
    assert held.sums() == {"answer": [8.0, 5.0]}
    assert held.means() == {"answer": pytest.approx(1.6)}
    held.add({"answer": torch.tensor([2.0, 4])}, np.array([2]))
    assert held.look() == {"answer": 0.5}  # of the steps since the last look


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_names_its_questions(value):
    held = Losses({}, pd.Series(["7", "8", "9"]), CPU)
    held.add({"answer": torch.tensor([4.0, 1])}, np.array([0]))
    held.add({"answer": torch.tensor([value, 2])}, np.array([1, 2]))
    with pytest.raises(UserError, match="not finite; the batch held the questions 8, 9"):
        held.look()


def test_a_run_can_be_copied_with_its_data_and_goes_on(data, plain, tmp_path):
    """Contents are compared, not the spelling of paths."""
    moved = shutil.copytree(data.parent, tmp_path / "elsewhere")
    (moved / "small.yaml").write_text(data.read_text().replace(str(data.parent), str(moved)))
    run = trained("--config", data, "--out", tmp_path / "run", *RECIPE, "--train.epochs", 2)
    trained("--config", moved / "small.yaml", "--out", run, *RECIPE, "--resume")
    assert losses(run) == losses(plain)
