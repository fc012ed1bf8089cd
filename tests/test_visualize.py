"""Figure 4: drawn is what the model answers, when and where it looked, and beside it what is true; nothing overlaps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.colors import to_rgba
from matplotlib.image import imread
from matplotlib.text import Text

from configs.stored import open_run
from dataset.bandstand.benchmark import Preset, make_scenes, write_annotations
from dataset.bandstand.render import render
from dataset.data import open_data
from feat_script import extract_audio, extract_text, extract_visual
from feat_script.pipeline import find_videos
from nets.network import build
from nets.options import FeatureSizes
from scripts import visualize
from scripts.reproduce.queue import resolve
from tests.clips import number, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip
from tests.small_run import make_data, trained
from utils.checkpoint import VERSION, save_checkpoint
from utils.files import read_json, write_json
from utils.scoring import figure4
from utils.scoring.figure4 import Example, draw
from utils.scoring.plots import BLUE

T, K, SIZE = 6, 3, (48, 32)  # segments, selected, width and height of the videos
SEEN = (8, 40)  # left and right of what CLIP sees of them


def save_run(folder: Path, options: Path, *overrides: str) -> Path:
    """A run folder with an untrained model; fast."""
    config = resolve("--config", str(options), *overrides)
    data = open_data(config.data, config.model.kinds, ["test"])
    sizes = FeatureSizes(config.data.segments, data.store.shapes, data.store.text_width)
    torch.manual_seed(0)
    described = {
        "version": VERSION,
        "config": config.to_dict(),
        "sizes": sizes._asdict(),
        "manifests": data.store.manifests,
    }
    described |= {"answers": list(data.vocabulary.answers)}
    model = build(config.model, sizes, len(data.vocabulary))
    save_checkpoint(folder / "best.pt", described | {"model": model.state_dict()})
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Questions about two videos of six seconds, four patches a frame, with truth; runs of several networks."""
    home = tmp_path_factory.mktemp("home")
    options = make_data(home, tokens=5, segments=T)
    (home / "videos").mkdir()
    asked = read_json(home / "test.json")
    for video in {row["video_id"] for row in asked}:
        write_clip(home / "videos" / f"{video}.mp4", np.arange(5 * T) / 5, size=SIZE)  # 5 frames a second
        performers = [
            {"box": [8, 4, 20, 30], "sounding_segments": [0, 1, 2]},
            {"box": [30, 4, 40, 30], "sounding_segments": [2, 3]},
            {"box": None, "sounding_segments": [0, 1, 2, 3, 4, 5]},
        ]
        ids = [str(row["question_id"]) for row in asked if row["video_id"] == video]
        questions = {name: {"segments": list(range(n % (T + 1)))} for n, name in enumerate(ids)}  # none, ..., all
        write_json(home / f"truth/{video}.json", {"frame": SIZE, "performers": performers, "questions": questions})
    truth = "--data.truth", str(home / "truth")
    save_run(home / "runs/tspm", options, *truth)
    save_run(home / "runs/first_k", options, *truth, "--model.spm_frames", "first_k")
    save_run(home / "runs/wo_spm", options, "--model.spatial", "frames")
    save_run(home / "runs/question", options, "--model.network", "means", "--model.means_of", "[]")
    return home


@pytest.fixture
def figures(monkeypatch):
    """Collects the figures instead of writing them."""
    figures = []
    monkeypatch.setattr(figure4, "save_png", lambda figure, path, dpi: figures.append(figure))
    return figures


def examples_of(home: Path, name: str, rows: list[int]) -> list[Example]:
    with open_run(home / "runs" / name / "best.pt", "test", []) as opened:
        return visualize.look(opened, "test", np.array(rows), find_videos(home / "videos"))


def test_an_example_is_what_the_model_answers_and_looks_at(home):
    rows = [3, 9, 4]  # of two videos, out of order
    with open_run(home / "runs/tspm/best.pt", "test", []) as opened:
        examples = visualize.look(opened, "test", np.array(rows), find_videos(home / "videos"))
        data, model, asked = opened.data, opened.model.eval(), opened.data.splits["test"]
        for row, example in zip(rows, examples, strict=True):
            question = asked.questions.iloc[row]
            features = {
                kind: torch.from_numpy(data.store.read(kind, [question["video_id"]]))
                for kind in ("audio", "frame", "token")
            }
            index = {
                "question": asked.question[[row]],
                "prompt": asked.prompt[[row]],
                "video": np.zeros(1, int),
                "asked": np.zeros(1, int),
            }
            with torch.no_grad():
                seen = model(**features, text=torch.from_numpy(data.text), **tensors(index))
            assert example.prediction == data.vocabulary.answers[int(seen.logits.argmax())]
            assert (example.answer, example.prompt) == (question["answer"], question["prompt"])
            assert example.correct == (example.prediction == example.answer)
            np.testing.assert_allclose(example.weights, seen.segment_weights[0], rtol=1e-5)
            assert example.selected == seen.selected[0].tolist()
            assert [look.second for look in example.looks] == seen.selected[0].tolist()
            for k, look in enumerate(example.looks):  # not merged: a token is a patch, but for the class token
                np.testing.assert_allclose(look.patches, seen.token_weights[0, k, 1:], rtol=1e-5)
                assert number(look.picture) == 5 * look.second + 2  # on the screen in the middle of its second
                assert look.picture.shape[:2] == SIZE[::-1]
            assert question["question_id"] in example.heading
            assert question["video_id"] in example.heading


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_truth_comes_along_where_there_is_some(home):
    row = 3
    (example,) = examples_of(home, "tspm", [row])
    assert list(example.true) == [0, 1, 2]
    sounding = {0: [8], 1: [8], 2: [8, 30], 3: [30], 4: [], 5: []}  # left edges of the boxes
    for look in example.looks:
        assert [box[0] for box in look.boxes] == sounding[look.second]


def test_without_spm_and_without_truth_there_are_frames_alone(home, figures):
    (example,) = examples_of(home, "wo_spm", [0])
    assert example.true is None
    assert [(look.boxes, look.patches) for look in example.looks] == [([], None)] * K
    draw([[example]], "wo_spm", "unused.png")
    labels = {text.get_text() for text in figures[0].findobj(Text)}
    assert "selected" in labels
    assert not labels & {"true", "prompt is true", "sounding performer", "most"}


def test_first_k_shows_the_frames_that_the_tokens_are_of(home):
    for plain, first in zip(*(examples_of(home, name, [0, 5, 9]) for name in ("tspm", "first_k")), strict=True):
        assert [look.second for look in first.looks] == [0, 1, 2]
        np.testing.assert_array_equal(first.selected, plain.selected)  # the same weights: the audio's are selected


def test_beyond_its_end_a_video_shows_its_last_second(tmp_path):
    write_clip(tmp_path / "short.mp4", np.arange(10) / 5, size=SIZE)
    frames = visualize.frames_of("short", find_videos(tmp_path), np.array([0, 1, 4]))
    assert [second for second, _ in frames] == [0, 1, 1]
    np.testing.assert_array_equal(frames[1][1], frames[2][1])


def test_the_public_layout_has_no_heat(tmp_path, home, capsys):
    options = make_data(tmp_path, tokens=5, segments=T, layout="public")
    save_run(tmp_path / "runs/public", options)
    with open_run(tmp_path / "runs/public/best.pt", "test", []) as opened:
        (example,) = visualize.look(opened, "test", np.array([0]), find_videos(home / "videos"))
    assert [(look.fit, look.patches) for look in example.looks] == [("", None)] * K
    assert "no heat maps" in capsys.readouterr().out


def test_the_picture_shows_the_example(home, figures):
    (example,) = examples_of(home, "tspm", [3])
    draw([[example]], "tspm", "unused.png")
    bars = next(axes for axes in figures[0].axes if axes.get_ylabel() == "weight")
    heights, colours = zip(*((bar.get_height(), bar.get_facecolor()) for bar in bars.patches), strict=True)
    np.testing.assert_allclose(heights, example.weights)
    assert [i for i, colour in enumerate(colours) if colour == to_rgba(BLUE)] == example.selected
    np.testing.assert_allclose(bars.lines[0].get_xdata() - 0.5, example.selected)  # not by colour alone
    band = figures[0].axes[figures[0].axes.index(bars) + 1].collections[0]
    assert sorted(path.vertices[:, 0].min() for path in band.get_paths()) == example.true

    shown = {axes.get_title(): axes for axes in figures[0].axes if axes.get_title()}
    assert list(shown) == [f"{segment}–{segment + 1} s" for segment in example.selected]
    most = max(look.patches.max() for look in example.looks)
    for axes, look in zip(shown.values(), example.looks, strict=True):
        _, heat = axes.images
        assert heat.get_extent() == [*SEEN, SIZE[1], 0]
        np.testing.assert_allclose(heat.get_array()[..., 3].ravel(), 0.75 * look.patches / most, atol=0.01)
        outlines = [patch.get_x() for patch in axes.patches if not patch.get_fill()]
        assert outlines == [box[0] for box in look.boxes]
    words = " ".join(text.get_text() for text in figures[0].texts)
    assert ("✓ right" in words, "✗ wrong" in words) == (example.correct, not example.correct)
    for said in (example.question, example.prompt, example.heading, f"Predicted: {example.prediction}"):
        assert said in words


def test_several_runs_are_asked_the_same_and_told_apart(home, figures, capsys):
    runs = [word for name in ("tspm", "first_k") for word in ("--run", str(home / "runs" / name))]
    visualize.main([*runs, "--videos", str(home / "videos"), "--examples", "2", "--names", "ours", "rival"])
    said = capsys.readouterr().out
    assert str(home / "runs/tspm/figure4_compared.png") in said
    words = [text.get_text() for text in figures[0].texts]
    assert [word for word in words if word in ("ours", "rival")] == ["ours", "rival"] * 2
    assert sum(word.startswith("Annotated") for word in words) == 2  # once for each question
    assert sum(word.startswith("Predicted") for word in words) == 4
    rows = [axes for axes in figures[0].axes if axes.get_ylabel() == "weight"]
    assert [len(axes.patches) for axes in rows] == [T] * 4
    titles = [axes.get_title() for axes in figures[0].axes if axes.get_title()]
    assert titles[K : 2 * K] == titles[3 * K :] == [f"{k}–{k + 1} s" for k in range(K)]  # of the first K, by the rival


def asked(kinds: dict[str, int]) -> pd.DataFrame:
    types = [kind for kind, count in kinds.items() for _ in range(count)]
    return pd.DataFrame({"modality": "Audio", "type": types}, index=range(100, 100 + len(types)))


def test_picked_are_as_many_types_as_can_be():
    questions = asked({"Counting": 50, "Comparative": 2, "Temporal": 1})
    rows = visualize.pick(questions, None, 7, seed=0)
    assert len(set(rows)) == 7
    types = questions["type"].to_numpy()[rows].tolist()
    assert sorted(types[:3]) == ["Comparative", "Counting", "Temporal"]
    assert types[5:] == ["Counting"] * 2
    assert visualize.pick(questions, None, 7, seed=0).tolist() == rows.tolist()
    assert visualize.pick(questions, None, 7, seed=1).tolist() != rows.tolist()
    assert len(visualize.pick(questions, None, 100, seed=0)) == 53


def test_picked_are_questions_with_something_to_find():
    questions = asked({"Counting": 3, "Temporal": 3})
    true = np.array([[0, 0], [0, 1], [1, 1], [1, 0], [1, 1], [0, 0]], dtype=bool)
    assert sorted(visualize.pick(questions, true, 6, seed=0)) == [1, 3]
    assert len(visualize.pick(questions, np.ones((6, 2), dtype=bool), 6, seed=0)) == 6  # no better ones


def test_the_command_writes_a_picture_and_says_of_what(home, tmp_path, capsys):
    common = ["--run", str(home / "runs/tspm"), "--videos", str(home / "videos")]
    visualize.main([*common, "--examples", "2", "--seed", "3", "--out", str(tmp_path / "drawn.png")])
    said = capsys.readouterr().out
    ids = said.split("questions ")[1].split(" of ")[0].split(", ")
    assert len(ids) == 2
    truth = map(read_json, (home / "truth").iterdir())
    true = {name: found["segments"] for told in truth for name, found in told["questions"].items()}
    assert all(0 < len(true[name]) < T for name in ids)
    assert imread(tmp_path / "drawn.png").shape[1] > 1500

    visualize.main([*common, "--questions", *ids, "--out", str(tmp_path / "asked.png")])
    assert (tmp_path / "asked.png").read_bytes() == (tmp_path / "drawn.png").read_bytes()
    visualize.main(common)
    assert (home / "runs/tspm/figure4.png").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"--run": "runs/absent"}, "absent/best.pt: no such file"),
        ({"--run": "runs/question"}, "the network means selects no segments; there is none to draw"),
        ({"--questions": "99999"}, "test.json: has no question 99999; there are 18, such as"),
        ({"--questions=-xyz": "--questions=-1"}, "test.json: has no question -xyz, -1; there are 18"),
        ({"--videos": "absent"}, "absent: no such folder"),
        ({"--videos": "others"}, "holds no video '0000000"),
        ({"--data.features": "absent"}, "absent/vggish: no such folder"),
        ({"--no.option": "1"}, "no.option"),
        ({"--names": "a", "--run=runs/other": "--names=b"}, "--names: 1 for 2 runs"),
    ],
)
def test_what_is_missing_is_said(home, capsys, options, says):
    (home / "others").mkdir(exist_ok=True)
    write_clip(home / "others" / "other.mp4", [0, 0.2], size=SIZE)
    options = {"--run": "runs/tspm", "--videos": "videos"} | options
    folders = ("--run", "--videos", "--data.features")
    arguments = [word for k, v in options.items() for word in (k, str(home / v) if k in folders else v)]
    with pytest.raises(SystemExit) as left:
        visualize.main(arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) <= 2


@pytest.mark.slow
def test_from_rendered_videos_to_the_picture(tmp_path, capsys):
    """The whole chain on Bandstand: render, extract and merge, train, draw."""
    scenes = make_scenes(Preset(20, 20), seed=0)
    write_annotations(scenes, 0, tmp_path)
    for scene in scenes:
        render(scene, tmp_path / f"videos/{scene.video_id}.mp4")
    features = ["--out", str(tmp_path / "features"), "--device", "cpu"]
    videos = ["--videos", str(tmp_path / "videos"), "--segments", "20", "--workers", "1"]
    clip = ["--clip", str(save_small_clip(tmp_path / "clip.pt"))]
    extract_audio.main([*features, *videos, "--weights", str(save_narrow_vggish(tmp_path / "vggish.pth"))])
    extract_visual.main([*features, *videos, *clip, "--tokens", "14"])
    files = {split: str(tmp_path / f"annotations/{split}.json") for split in ("train", "val", "test")}
    extract_text.main([*features, *clip, "--annotations", *files.values()])
    options = {"features": str(tmp_path / "features"), "truth": str(tmp_path / "truth"), "segments": 20}
    settings = {"data": files | options, "model": {"hidden": 16, "top_k": 3}, "train": {"epochs": 1, "device": "cpu"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    trained("--config", tmp_path / "small.yaml", "--out", tmp_path / "runs/small")
    visualize.main(["--run", str(tmp_path / "runs/small"), "--videos", str(tmp_path / "videos")])
    assert str(tmp_path / "runs/small/figure4.png") in capsys.readouterr().out
    picture = imread(tmp_path / "runs/small/figure4.png")
    assert picture.shape[0] > 1000
    yellow = (picture[..., 0] > picture[..., 2] + 0.4) & (picture[..., 1] > picture[..., 2] + 0.4)
    assert yellow.mean() > 0.01  # the heat
