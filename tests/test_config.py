"""Options: every one documented, files that hold only differences, and what wins over what."""

import ast
import dataclasses
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import schema
from configs.schema import Config, TrainConfig
from dataset.config import DataConfig
from nets import NETWORKS
from nets.means import MeansOptions
from nets.tspm.options import TSPMOptions
from tests.options import MUSIC, flat, parse
from tests.small_run import ROOT

ROOMS = {"data.": DataConfig, "model.": TSPMOptions, "train.": TrainConfig}
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
ON_TOP = {"learned_": "models/tspm_learned.yaml", "tspm_learned_bandstand": "bandstand_study.yaml"}  # of other files


def refused(capsys, *arguments) -> str:
    """The one line that is said of a command line."""
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def described(room: type) -> dict[str, str]:
    """Each field of a dataclass with the string under it, its own or that of a class above, read from the source."""
    above = described(room.__base__) if dataclasses.is_dataclass(room.__base__) else {}
    body = ast.parse(textwrap.dedent(inspect.getsource(room))).body[0].body
    found = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            found[statement.target.id] = following.value.value if told else ""
    return above | {name: text or above.get(name, "") for name, text in found.items()}


def plain(text: str) -> str:
    return " ".join(text.split())


def own(path: Path) -> dict:
    """The options that a file itself holds."""
    return {name: value for name, value in yaml.safe_load(path.read_text()).items() if name != "include"}


def shown(capsys, *arguments) -> str:
    """What --help says, on one line."""
    with pytest.raises(SystemExit):
        parse(*arguments, "--help")
    return plain(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("room", "prefix", "network"),
    [
        (DataConfig, "data", "tspm"),
        (TrainConfig, "train", "means"),
        *((NETWORKS[name], "model", name) for name in NETWORKS),
    ],
)
def test_every_option_is_documented_where_it_is_and_in_help(monkeypatch, capsys, room, prefix, network):
    monkeypatch.setenv("COLUMNS", "250")
    said = shown(capsys, "--model.network", network)
    fields = described(room)
    assert list(fields) == [field.name for field in dataclasses.fields(room)]
    for name, text in fields.items():
        assert text.strip().endswith("."), f"{prefix}.{name} is not documented"
        assert f"--{prefix}.{name}" in said
        assert plain(text).rstrip(".") in said, f"--help does not describe {prefix}.{name}"
    assert f"[{', '.join(NETWORKS)}]" in said
    assert "[music_avqa, music_avqa_v2, music_avqa_r, avqa, own]" in said


def test_help_shows_the_options_of_the_network_that_is_chosen(capsys, tmp_path):
    (tmp_path / "means.yaml").write_text("model: {network: means}\n")
    assert "--model.means_of" in shown(capsys, "--config", tmp_path / "means.yaml")
    assert "--model.top_k" not in shown(capsys, "--model.network=means")
    assert "--model.top_k" in shown(capsys, "--config", tmp_path / "means.yaml", "--model.network", "tspm")


def test_help_needs_no_torch():
    """Importing it takes longer than a person waits for help."""
    code = "import runpy, sys; sys.argv = ['train.py', '--help']\ntry: runpy.run_path('train.py', run_name='__main__')"
    code += "\nexcept SystemExit: assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_hold_only_what_differs_from_the_defaults(path):
    text = path.read_text()
    assert text.startswith("# "), "a file says in its first line what it is for"
    held = flat(own(path))
    assert held or path.name == "music_avqa.yaml"
    config = parse("--config", path)
    defaults = flat(
        {"out": Config.out, "data": dataclasses.asdict(DataConfig()), "train": dataclasses.asdict(TrainConfig())}
        | {"model": dataclasses.asdict(type(config.model)()) | {"network": "tspm"}}
    )
    for name, below in ON_TOP.items():
        if path.stem.startswith(name):
            defaults = flat(parse("--config", ROOT / "configs" / below).to_dict())
    parsed = flat(config.to_dict())
    for name, value in held.items():
        assert parsed[name] == value
        assert value != defaults.get(name), f"{name} is {value!r} by default"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_name_their_run_or_are_ablations(path):
    """A data set's file names a run folder of its own, and no model; others leave the folder to the command."""
    held = own(path)
    assert ("out" in held) == (path.parent.name == "configs")
    assert not (path.parent.name == "configs" and "model" in held)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_ablation_goes_on_top_of_a_data_set(path):
    both = flat(parse("--config", MUSIC, "--config", path).to_dict())
    only = flat(own(path))
    assert both["out"] == "runs/music_avqa"
    assert only.items() <= both.items()
    base = flat(parse("--config", MUSIC).to_dict())
    changed = {name for name in base.keys() & both.keys() if base[name] != both[name]}
    assert changed <= set(only)


def test_a_file_includes_others_which_come_before_it(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/narrow.yaml").write_text("model: {hidden: 64, top_k: 3}\n")
    (tmp_path / "a.yaml").write_text("include: [models/narrow.yaml]\nmodel: {top_k: 4}\n")
    config = parse("--config", tmp_path / "a.yaml", "--model.hidden", 32)
    assert (config.model.hidden, config.model.top_k) == (32, 4)


def test_options_of_another_network_are_dropped_from_files_with_a_note(capsys):
    config = parse("--config", ROOT / "configs/bandstand.yaml", "--model.network", "means")
    assert config.model == MeansOptions(hidden=128, standardize=True)
    assert [note.partition("model.")[2] for note in config.notes] == [
        "top_k is an option of the network tspm, not of means: left out"
    ]
    assert parse("--config", ROOT / "configs/bandstand.yaml").notes == []
    assert "no option model.top_k; it is one of the network tspm" in refused(
        capsys, "--model.network", "means", "--model.top_k", 3
    )


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two files that agree on nothing but `top_k`, which both set."""
    (tmp_path / "a.yaml").write_text("out: a\nmodel: {top_k: 3, hidden: 64}\ntrain: {lr: 3e-4}\n")
    (tmp_path / "b.yaml").write_text("model: {top_k: 4, streams: [a_sel, v_spa]}\n")
    return [tmp_path / "a.yaml", tmp_path / "b.yaml"]


def test_files_compose_and_later_ones_win(files):
    a, b = files
    config = parse("--config", a, "--config", b)
    assert (config.out, config.model.hidden, config.train.lr) == ("a", 64, 3e-4)
    assert config.model.streams == ["a_sel", "v_spa"]
    assert config.model.top_k == 4
    assert parse("--config", b, f"--config={a}").model.top_k == 3


@settings(max_examples=10)
@given(st.permutations(["a", "b", "override", "other"]), st.booleans())
def test_the_command_line_wins_wherever_it_stands(tmp_path_factory, order, joined):
    folder = tmp_path_factory.mktemp("files")
    (folder / "a").write_text("model: {top_k: 3}\n")
    (folder / "b").write_text("model: {top_k: 4, heads: 2}\n")
    words = {name: [f"--config={folder / name}"] if joined else ["--config", folder / name] for name in "ab"}
    words |= {"override": ["--model.top_k=7"] if joined else ["--model.top_k", 7], "other": ["--train.seed", 5]}
    config = parse(*(word for name in order for word in words[name]))
    assert (config.model.top_k, config.model.heads, config.train.seed) == (7, 2, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config"], "--config="),
        (["--model.topk", "3"], "no option model.topk; did you mean model.top_k?"),
        (["--model.network", "tspn"], f"one of {', '.join(NETWORKS)}, is 'tspn'; did you mean 'tspm'?"),
        (["--data.dataset", "avqb"], "avqa, own, is 'avqb'; did you mean 'avqa'?"),
        (["--train.rates", "{deep: 0}"], "train.rates.deep must be more than 0"),
        (["--data.window", "5", "--train.questions_per_video", "2"], "take it with train.questions_per_video 1"),
        (["--data.window", "-1"], "data.window must be 0 or more"),
        (["--model.top_k", "0"], "model.top_k must be at least 1, is 0"),
        (["--model.top_k", "3.5"], "model.top_k"),
        (["--model.temporal", "some"], "model.temporal"),
        (["--model.streams", "[a_sel, v_nothing]"], "v_nothing"),
        (["--model.streams", "[a_sel, a_ctx]"], "must hold an audio and a visual stream"),
        (["--model.heads", "3"], "model.hidden 512 must be a multiple of model.heads 3"),
        (["--model.dropout", "1"], "model.dropout must be in [0, 1), is 1"),
        (["--model.tokens", "0"], "model.tokens must be at least 1, is 0"),
        (["--data.segments", "0"], "data.segments must be at least 1"),
        (["--data.layout", "zip"], "data.layout"),
        (["--train.lr", "fast"], "train.lr"),
        (["--train.betas", "[0.9]"], "train.betas must be two numbers in [0, 1), is [0.9]"),
        (["--train.betas", "[0.9, 1]"], "train.betas must be two numbers in [0, 1), is [0.9, 1.0]"),
        (["--train.seed", "-1"], "train.seed must be in [0, 2**32), is -1"),
        (["stray"], "stray"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(capsys, arguments, said):
    try:
        message = refused(capsys, *arguments)
    except schema.UserError as error:
        message = str(error)
    assert said in message


def test_an_unknown_key_or_a_malformed_file_is_named(capsys, tmp_path):
    path = tmp_path / "typo.yaml"
    wrong = {"model: {topk: 3}": "topk", "modle: {top_k: 3}": "modle", "model: {top_k: many}": "model.top_k"}
    for text, said in (
        wrong
        | {"model: [": "", "": "", "[3]": "[3]", "model: 3": "model must hold options", "include: 3": "include must be"}
    ).items():
        path.write_text(text)
        for arguments in (("--config", path, "--config", MUSIC), (f"--config={path}", "--model.top_k", 3)):
            message = refused(capsys, *arguments)
            assert message.startswith(f"error: --config={path}: ")
            assert said in message
    assert f"--config={tmp_path / 'nowhere.yaml'}: " in refused(capsys, "--config", tmp_path / "nowhere.yaml")


def test_files_need_not_be_whole_by_themselves(tmp_path):
    """What one room's options say about another's is settled when all files are read."""
    (tmp_path / "short.yaml").write_text("data: {segments: 5}\n")
    assert parse("--config", tmp_path / "short.yaml", "--model.top_k", 3).data.segments == 5
