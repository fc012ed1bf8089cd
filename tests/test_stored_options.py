"""Options that a run stores: read back as they were, overridden, and compared before the run goes on."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import schema
from configs.schema import Config, TrainConfig
from dataset.config import DataConfig
from nets.tspm.options import TSPMOptions
from tests.options import MUSIC, flat, parse
from tests.small_run import make_data, run
from utils.checkpoint import load_checkpoint

WORDS = st.from_regex(r"[A-Za-zé/][\w/. -]{0,12}", fullmatch=True)  # paths; "1e-4" or "~" would be read as YAML
CONFIGS = st.builds(
    Config,
    out=WORDS,
    data=st.builds(
        DataConfig,
        train=WORDS,
        truth=st.none() | WORDS,
        features=WORDS,
        layout=st.sampled_from(["files", "packed", "public"]),
        segments=st.integers(20, 90),
        tokens=st.none() | st.integers(14, 577),
    ),
    model=st.builds(
        TSPMOptions,
        dropout=st.floats(0, 0.99),
        top_k=st.integers(1, 20),
        tokens=st.integers(1, 14),
        streams=st.permutations(["a_grd", "v_sel", "v_spa"]),
    ),
    train=st.builds(TrainConfig, lr=st.floats(1e-12, 1e3), seed=st.integers(0, 2**32 - 1)),
)


@settings(max_examples=40)
@given(CONFIGS)
def test_a_stored_config_is_read_back_as_it_was(config):
    assert schema.from_dict(config.to_dict()) == config


@settings(max_examples=40)
@given(CONFIGS)
def test_a_printed_config_is_a_file_that_gives_the_same(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("printed") / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
    assert parse("--config", path) == config


def test_stored_options_may_be_overridden(tmp_path):
    stored = parse("--config", MUSIC, "--model.top_k", 20).to_dict()
    (tmp_path / "elsewhere.yaml").write_text("data: {features: elsewhere}\n")
    words = ["--train.device", "cpu", "--config", str(tmp_path / "elsewhere.yaml")]
    config = schema.from_dict(stored, words)
    assert (config.model.top_k, config.data.features, config.train.device) == (20, "elsewhere", "cpu")
    before = flat(stored)
    changed = {name for name, value in flat(config.to_dict()).items() if value != before[name]}
    assert changed == {"data.features", "train.device"}


def test_tokens_are_as_many_as_the_model_merges_to_unless_more_are_stored():
    assert parse().data.tokens == parse().model.tokens == 14
    assert parse("--model.tokens", 8).data.tokens == 8
    assert parse("--model.tokens", 8, "--data.tokens", 27).data.tokens == 27


@pytest.mark.parametrize(("given", "stored", "overridden"), [((), None, 8), (("--data.tokens", 14), 14, 14)])
def test_stored_tokens_follow_an_override_unless_their_number_was_given(tmp_path, given, stored, overridden):
    values = parse(*given).to_dict()
    assert values["data"]["tokens"] == stored
    assert schema.from_dict(values, ["--model.tokens", "8"]).data.tokens == overridden
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert parse("--config", tmp_path / "config.yaml", "--model.tokens", 8).data.tokens == overridden


def test_a_number_of_stored_tokens_and_null_for_the_same_are_one_run():
    """Null was once stored as the number that it stands for."""
    stored = parse("--data.tokens", 14).to_dict()
    schema.require_same_training(parse(), stored, Path("last.pt"))
    with pytest.raises(schema.UserError, match=r"data\.tokens is 14 there, but 27 now"):
        schema.require_same_training(parse("--data.tokens", 27), stored, Path("last.pt"))


@pytest.mark.parametrize(
    ("option", "value", "refused"),
    [("model.top_k", 3, True), ("data.sheet", "AVQA", True), ("train.precision", "bf16", True),
     ("train.seed", 1, True), ("train.lr", 0.5, True), ("train.batch_size", 8, True), ("train.lr_step", 8, True),
     ("data.train", "the/same.json", False), ("data.features", "elsewhere", False), ("train.epochs", 40, False),
     ("out", "moved", False)],
)  # fmt: skip
def test_a_run_goes_on_only_with_the_options_that_it_began_with(option, value, refused):
    stored = parse("--config", MUSIC).to_dict()
    config = schema.from_dict(stored, [f"--{option}", str(value)])
    if not refused:
        schema.require_same_training(config, stored, Path("last.pt"))
        return
    with pytest.raises(schema.UserError, match=rf"last\.pt: {option} is .* there, but '?{value}'? now"):
        schema.require_same_training(config, stored, Path("last.pt"))


def test_what_is_printed_at_the_start_is_what_is_stored(tmp_path):
    data = make_data(tmp_path)
    printed = run("train.py", "--config", data, "--out", tmp_path / "run", "--train.epochs", 1, "--train.lr", 2e-5)
    announced = printed.split("\n\n")[0]
    stored = (tmp_path / "run/config.yaml").read_text()
    assert announced.strip() == stored.strip()
    values = yaml.safe_load(stored)
    assert values == load_checkpoint(tmp_path / "run/best.pt")["config"]
    assert values["train"]["lr"] == 2e-5
    assert values["data"]["tokens"] is None
    assert parse("--config", tmp_path / "run/config.yaml").to_dict() == values
