"""Who may import whom: data flow one way, from videos to tables, and so does knowledge among the rooms."""

import ast
from pathlib import Path

import pytest

from tests.small_run import ROOT

ROOMS = ("configs", "dataset", "feat_script", "nets", "scripts", "utils")
ENTRIES = ("train", "test")
OURS = {*ROOMS, *ENTRIES, "tests"}
MAY_IMPORT = {
    "utils": {"utils"},
    "nets": {"nets", "utils"},
    "dataset": {"dataset", "utils"},
    "feat_script": {"feat_script", "utils", "nets.token_merging", "dataset.text_prompt"},
    "configs.schema": {
        *("nets.NETWORKS", "nets.options", "nets.tspm.options"),
        *("dataset.DATASETS", "dataset.config"),
        "utils",
    },
    "configs": {"configs", "nets", "dataset", "utils"},
    "train": {"configs", "dataset", "nets", "utils"},
    "test": {"configs", "dataset", "nets", "utils"},
    "scripts": OURS - {"tests"},
    "tests": OURS,
}


def module_of(path: Path) -> str:
    """The dotted name of a file below the root: "nets.tspm", "utils", "train"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> set[str]:
    """Every dotted name that a file imports, wherever the import stands; `from a import b` may mean the module a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def strangers(module: str, source: str) -> set[str]:
    """What a module imports and must not. The closest entry of `MAY_IMPORT` rules; no entry means nothing of ours."""
    rules = [name for name in MAY_IMPORT if within(module, name)]
    allowed = MAY_IMPORT[max(rules, key=len)] if rules else set()
    ours = {name for name in imported(source) if name.split(".")[0] in OURS}
    return {name for name in ours if not any(within(name, room) for room in allowed)}


FILES = sorted(
    path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py")
) + [ROOT / f"{entry}.py" for entry in ENTRIES]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way(path):
    assert strangers(module_of(path), path.read_text()) == set()


def test_every_python_file_of_the_project_is_in_a_room():
    outside = {path.name for path in ROOT.glob("*.py")} - {f"{entry}.py" for entry in ENTRIES}
    assert outside == set()
    assert len(FILES) > 60


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("utils.files", "from nets.options import ModelOptions", {"nets.options.ModelOptions"}),
        ("utils.files", "def f():\n    import dataset.data as d", {"dataset.data"}),
        ("utils.files", "from utils.errors import UserError\nimport numpy.utils", set()),
        ("nets.tspm", "from dataset import config", {"dataset.config"}),
        ("dataset.data", "from feat_script.media import read_audio", {"feat_script.media.read_audio"}),
        ("feat_script.x", "from nets.token_merging import merge_tokens\nfrom dataset.text_prompt import ANY", set()),
        ("feat_script.x", "from nets import token_merging", set()),
        ("feat_script.x", "from nets import tspm, token_merging", {"nets.tspm"}),
        ("feat_script.x", "from dataset.annotations import describe", {"dataset.annotations.describe"}),
        ("configs.schema", "from nets.network import build", {"nets.network.build"}),
        ("configs.schema", "from dataset.config import DataConfig", set()),
        ("train", "import test", {"test"}),
        ("test", "from train import train", {"train.train"}),
        ("train", "from scripts.profile_model import main", {"scripts.profile_model.main"}),
        ("scripts.x", "from tests.small_run import run", {"tests.small_run.run"}),
        ("scripts.x", "from train import train", set()),
        ("scripts.x", "from feat_script import media\nfrom configs import schema", set()),
        ("elsewhere", "from utils import files", {"utils.files"}),
        ("datasets.x", "import datasets, testing", set()),
    ],
)
def test_a_stranger_is_found(module, source, found):
    assert strangers(module, source) == found
