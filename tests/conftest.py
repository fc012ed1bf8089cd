"""What several test files share."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.asking import answerer, asked_run  # noqa: F401  (fixtures)
from tests.scoring_run import learn, score, tested  # noqa: F401  (fixtures)

settings.register_profile("untimed", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("untimed")

SHARED = Path(__file__).parents[2] / "shared" / "data"  # real questions and clips; the project ships none of them


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: what a process of several takes last should not keep it alone at work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def shared():
    """The folder of real data, or a skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("real data is not at hand")
    return SHARED


@pytest.fixture(autouse=True)
def _signals():
    """Training takes Ctrl-C and SIGTERM for itself; in a process that goes on they are given back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
