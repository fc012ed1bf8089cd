import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from utils.errors import UserError
from utils.scoring import plots
from utils.scoring.intervals import intervals_of
from utils.scoring.metrics import Columns, accuracy_row, judge
from utils.scoring.paper import TABLE1, TABLE1_COLUMNS, TABLE1_ORDER, TABLE7


@pytest.fixture
def drawn(monkeypatch):
    """Collects the figures instead of writing them, laid out, so that what they show can be looked up."""
    figures = []
    monkeypatch.setattr(plots, "save_png", lambda figure, path: figures.append(figure))
    return figures


def music_predictions():
    n, rng = 3000, np.random.default_rng(0)
    kinds = np.array(list(TABLE1_COLUMNS.types.values()))[rng.integers(9, size=n)]
    answer = np.concatenate([MUSIC_AVQA_ANSWERS, rng.choice(MUSIC_AVQA_ANSWERS, n - 42)])
    table = pd.DataFrame({"question_id": np.arange(n).astype(str), "video_id": rng.integers(500, size=n).astype(str)})
    table = table.assign(modality=kinds[:, 0], type=kinds[:, 1], answer=answer)
    return judge(table, np.where(rng.random(n) < 0.7, answer, rng.choice(MUSIC_AVQA_ANSWERS, n)))


def small(pairs, modality="Both", kind="Where"):
    table = pd.DataFrame(pairs, columns=["answer", "prediction"]).assign(modality=modality, type=kind, video_id="v")
    table["question_id"] = [str(i) for i in range(len(table))]
    return judge(table, table["prediction"])


def cells(axes):
    return {tuple(map(int, text.get_position()))[::-1]: int(text.get_text()) for text in axes.texts}


def tick_texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def overlapping(figure, labels):
    """Pairs of texts whose boxes overlap as drawn."""
    figure.draw_without_rendering()
    shown = [label for label in labels if label.get_text().strip()]
    x0, y0, x1, y1 = np.array([label.get_window_extent().padded(-1).extents for label in shown]).T
    meet = (x0 <= x1[:, None]) & (x1 >= x0[:, None]) & (y0 <= y1[:, None]) & (y1 >= y0[:, None])
    return [(shown[i], shown[j]) for i, j in np.argwhere(np.triu(meet, 1))]


def test_confusion_matrix_by_hand(drawn):
    pairs = [("violin", "violin"), ("two", "one"), ("violin", "electric_bass"), ("yes", "yes"), ("two", "one")]
    plots.confusion_matrix(small(pairs, "Audio", "Counting"), "unused")
    axes = drawn[0].axes[0]
    assert tick_texts(axes.xaxis) == ["yes", "one", "two", "electric bass", "violin"]
    assert tick_texts(axes.yaxis) == ["yes (1)", "one (0)", "two (2)", "electric bass (0)", "violin (2)"]
    assert cells(axes) == {(0, 0): 1, (2, 1): 2, (4, 3): 1, (4, 4): 1}
    shares = axes.images[0].get_array().filled(0)
    assert shares[4].tolist() == [0, 0, 0, 50, 50]
    assert shares[1].tolist() == [0] * 5  # predicted, never the answer


def test_confusion_matrix_pools_rare_answers(drawn):
    pairs = [("Field", "field")] * 3 + [("sea", "moon"), ("Sea", "field"), ("sky", "sea"), ("sun", "sun")]
    plots.confusion_matrix(small(pairs), "unused", largest=2)
    axes = drawn[0].axes[0]
    assert tick_texts(axes.xaxis) == ["field", "sea", "other"]
    assert tick_texts(axes.yaxis) == ["field (3)", "sea (2)"]
    assert cells(axes) == {(0, 0): 3, (1, 0): 1, (1, 2): 1}
    assert axes.get_title() == "5 questions of 7: the 2 most frequent of 4 annotated answers"


def test_confusion_matrix_of_all_42_answers_is_legible(drawn):
    frequent = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")] * 1500  # four digits side by side
    predictions = pd.concat([music_predictions(), small(frequent, "Audio", "Comparative")])
    plots.confusion_matrix(predictions, "unused")
    axes = drawn[0].axes[0]
    assert sum(cells(axes).values()) == len(predictions)
    assert len(tick_texts(axes.xaxis)) == len(tick_texts(axes.yaxis)) == 42
    for axis in (axes.xaxis, axes.yaxis):
        assert not overlapping(drawn[0], axis.get_ticklabels())
    assert not overlapping(drawn[0], axes.texts)
    assert min(text.get_fontsize() for text in axes.texts) >= 7


def test_bars_show_the_row_its_intervals_and_the_papers_marks(drawn):
    predictions = music_predictions()
    plots.accuracy_bars(predictions, TABLE1_COLUMNS, "unused", TABLE1["TSPM"])
    axes = drawn[0].axes[0]
    row = accuracy_row(predictions, TABLE1_COLUMNS)
    intervals = intervals_of([predictions], TABLE1_COLUMNS)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([row[c] for c in TABLE1_ORDER])
    ends = [segment[:, 1] for segment in axes.collections[0].get_segments()]
    assert np.array(ends) == pytest.approx(np.array([intervals[c] for c in TABLE1_ORDER]))
    marks = next(line for line in axes.lines if line.get_label() == "TSPM, as published")
    assert list(marks.get_ydata()) == [TABLE1["TSPM"][c] for c in TABLE1_ORDER]
    labels = tick_texts(axes.xaxis)
    assert labels[2] == f"Avg\n{row['A']:.1f}\nn = {(predictions['modality'] == 'Audio').sum()}"
    assert labels[-1].startswith("All")
    groups = axes.child_axes[0].xaxis
    assert [text.strip() for text in tick_texts(groups)] == ["Audio", "Visual", "Audio-Visual", ""]
    assert not overlapping(drawn[0], axes.xaxis.get_ticklabels())


def test_bars_of_avqa(drawn):
    kinds = ["Where", "Which", "Happening", "Before Next"] * 2
    predictions = small([("a", "a")] * 5 + [("a", "b")] * 3, kind=kinds).assign(video_id=list("ababcdcd"))
    plots.accuracy_bars(predictions, Columns(), "unused", TABLE7["TSPM"])
    axes = drawn[0].axes[0]
    names = [label.split("\n")[0] for label in tick_texts(axes.xaxis)]
    assert names == ["Before Next", "Happening", "Where", "Which", "All"]
    assert next(line for line in axes.lines if line.get_label().startswith("TSPM")).get_ydata().tolist() == [90.8]
    assert not overlapping(drawn[0], axes.xaxis.get_ticklabels())


def test_files(tmp_path):
    """Real PNG files, the same at each run, without pyplot; what users type is no formula."""
    had_pyplot = "matplotlib.pyplot" in sys.modules
    table = small([("$5 $x^", "$5 $x^"), ("a very long answer that goes on and on", "")])

    def bars(table, path):
        plots.accuracy_bars(table, Columns(), path)

    for draw in (plots.confusion_matrix, bars):
        draw(table, tmp_path / "new" / "a.png")
        draw(table, tmp_path / "b.png")
        assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        image = imread(tmp_path / "b.png")
        assert min(image.shape[:2]) > 400
        assert image.std() > 0.05
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        bars(table, tmp_path / "file" / "a.png")
