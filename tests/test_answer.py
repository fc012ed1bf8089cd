"""Asking a trained model about a video: the numbers are those of test.py, and what cannot be asked is said."""

import numpy as np
import pytest

from configs.stored import open_run
from dataset.loader import Loader
from scripts.answer import Answerer
from tests.asking import make_asked_run
from utils.scoring.evaluation import answer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_asked_run(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def answerer(run):
    return Answerer(run, "cpu", encoders=[run.parent / "encoders"])


def test_probabilities_are_those_of_test_py(run, answerer):
    with open_run(run / "best.pt", "test", []) as opened:
        asked = opened.data.splits["test"]
        loader = Loader(opened.data, opened.runtime, "device", 1)
        batches = list(loader.by_video(asked, np.arange(len(asked)), 64))
        wanted = answer(opened.model, batches, "fp32", opened.runtime.device, looks=True)
        words = opened.data.vocabulary.words(wanted.classes)
    for row, question in enumerate(asked.questions.to_dict("records")):
        (found,) = answerer.ask(run.parent / f"videos/{question['video_id']}.mp4", [question["question"]])
        assert (found.template, found.prompt, found.answer) == (question["template"], question["prompt"], words[row])
        assert found.probability == pytest.approx(wanted.probability[row], abs=1e-5)
        assert found.selected == wanted.looked["selected"][row].tolist()
        np.testing.assert_allclose(found.segment_weights, wanted.looked["segment_weights"][row], atol=1e-5)
