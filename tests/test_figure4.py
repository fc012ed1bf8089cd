"""The picture of Figure 4 for examples of any size: nothing overlaps, and nothing is cut off."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from utils.scoring import figure4
from utils.scoring.figure4 import Example, draw
from utils.scoring.geometry import Look


def made_up(segments: int, selected: int, size: tuple[int, int], words: int, fit: str = "crop", **changed) -> Example:
    random = np.random.default_rng([segments, selected, *size])
    weights = random.dirichlet(np.full(segments, 0.3))
    chosen = np.sort(weights.argsort()[-selected:])
    image = random.integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    looks = [Look(int(s), image, random.dirichlet(np.ones(49)), fit, [(1, 1, 9, 9)]) for s in chosen]
    sentence = " ".join(["WWW instruments"] * words) + "?"
    made = dict.fromkeys(("heading", "question", "prompt", "prediction", "answer"), sentence)
    made |= {"correct": False, "weights": weights, "selected": chosen, "true": [0, 1], "looks": looks}
    return Example(**made | changed)


def shown_texts(figure) -> list[Text]:
    """The texts that can be seen; a tick has one even where no label is drawn."""
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [axes.title, *(axes.get_legend().get_texts() if axes.get_legend() else [])]
        if axes.axison:
            texts += [text for axis in (axes.xaxis, axes.yaxis) for text in (axis.label, *axis.get_ticklabels())]
    return [text for text in texts if text.get_visible() and text.get_text()]


@pytest.mark.parametrize(
    "blocks",
    [
        [[made_up(20, 5, (224, 224), 4)], [made_up(20, 10, (224, 224), 1, true=None)]],
        [[made_up(60, 10, (640, 360), 2)], [made_up(60, 40, (640, 360), 1)], [made_up(60, 3, (360, 640), 1, true=[])]],
        [[made_up(60, 60, (224, 224), 12, fit="squash")]],
        [[made_up(1, 1, (100, 20), 1, true=[0], correct=True)]],
        [
            [
                made_up(20, 5, (224, 224), 2, model="first"),
                made_up(20, 10, (224, 224), 2, model="the second, of a long name " * 4, prompt="another"),
            ],
            [made_up(60, 3, (360, 640), 12, model="first"), made_up(60, 40, (640, 360), 12, model="third")],
        ],
    ],
    ids=["bandstand", "music_avqa", "all", "least", "several models"],
)
def test_nothing_overlaps(blocks, monkeypatch):
    figures = []
    monkeypatch.setattr(figure4, "save_png", lambda figure, path, dpi: figures.append(figure))
    draw(blocks, "a_run_with_rather_a_long_name", "unused.png")
    (figure,) = figures
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = {text: text.get_window_extent(renderer).padded(-1) for text in shown_texts(figure)}
    for text, box in texts.items():
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text
    for (text, box), (other, its) in itertools.combinations(texts.items(), 2):
        assert not box.overlaps(its), (text, other)
    pictures = [axes.get_window_extent(renderer) for axes in figure.axes if axes.images]
    for a, b in itertools.combinations(pictures, 2):
        assert not a.overlaps(b)
    for (text, box), picture in itertools.product(texts.items(), pictures):
        assert not box.overlaps(picture), text
    assert sum(axes.get_title() != "" for axes in figure.axes) == sum(
        len(example.looks) for block in blocks for example in block
    )


def test_heat_that_is_all_on_class_tokens_is_none(tmp_path):
    example = made_up(4, 2, (20, 20), 1)
    example.looks = [replace(look, patches=np.zeros(49)) for look in example.looks]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw([[example]], "", tmp_path / "none.png")
