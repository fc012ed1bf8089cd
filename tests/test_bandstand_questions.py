"""Bandstand's questions: right answers, true segments, and no way to guess from the words or the other modality."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from dataset.bandstand import benchmark
from dataset.bandstand.benchmark import PRESETS, SPLITS, Preset, make_scenes, write_annotations
from dataset.bandstand.questions import TEMPLATES
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from dataset.text_prompt import PromptTable
from tests.bandstand_scenes import performer, scene
from utils.scoring.paper import TABLE1_COLUMNS

BY_TEXT = {template.text: template for template in TEMPLATES}

TRIO = scene(  # a violin from the start, a cello that joins in and ends last, a flute that never plays
    performer("violin", "left", (0.0, 12.1), loudness=-6.0, rate=6),
    performer("cello", "middle", (4.9, 20.0), loudness=0.0, rate=1),
    performer("flute", "right", present=(8.0, 20.0)),
    voice_over=((3.0, 6.0),),
)
QUARTET = scene(  # three trumpets, of whom two begin together and one never plays; behind them a drum that mimes
    performer("trumpet", "left", (2.0, 9.0)),
    performer("trumpet", "middle", (2.0, 20.0)),
    performer("trumpet", "right"),
    performer("drum", "right", (0.0, 20.0), heard=False),
    outdoor=True,
)
DUBBED = scene(  # a piano mimes to a banjo and a tuba that nobody sees
    performer("piano", "middle", (0.0, 20.0), heard=False),
    performer("banjo", None, (0.0, 5.0), loudness=-12.0),
    performer("tuba", None, (3.0, 20.0), rate=1),
)

EXPECTED = [  # scene, template, values, answer, segments
    (TRIO, "Is the <Object> more rhythmic than the <Object>?", ["violin", "cello"], "yes", range(20)),
    (TRIO, "Is the <Object> louder than the <Object>?", ["violin", "cello"], "no", range(5, 12)),
    (DUBBED, "Is the <Object> louder than the <Object>?", ["tuba", "banjo"], "yes", [3, 4]),
    (DUBBED, "Is the <Object> playing longer than the <Object>?", ["banjo", "tuba"], "no", [0, 1, 2, *range(5, 20)]),
    (TRIO, "Is there a <Object> sound?", ["cello"], "yes", range(5, 20)),
    (TRIO, "Is there a <Object> sound?", ["flute"], "no", []),
    (DUBBED, "Is there a <Object> sound?", ["piano"], "no", []),
    (TRIO, "Are there <Object> and <Object> sound?", ["cello", "violin"], "yes", range(20)),
    (TRIO, "Are there <Object> and <Object> sound?", ["flute", "cello"], "no", range(5, 20)),
    (TRIO, "How many musical instruments were heard throughout the video?", [], "two", range(5, 12)),
    (TRIO, "Is there a <Object> in the entire video?", ["flute"], "yes", range(8, 20)),
    (DUBBED, "Is there a <Object> in the entire video?", ["tuba"], "no", []),
    (TRIO, "Are there <Object> and <Object> instruments in the video?", ["flute", "violin"], "yes", range(20)),
    (QUARTET, "How many types of musical instruments appeared in the entire video?", [], "two", range(20)),
    (QUARTET, "How many <Object> are in the entire video?", ["trumpet"], "three", range(20)),
    (QUARTET, "How many <Object> are in the entire video?", ["tuba"], "zero", []),
    (QUARTET, "Where is the performance?", [], "outdoor", range(20)),
    (TRIO, "What is the instrument on the <LR> of <Object>?", ["right", "cello"], "flute", range(8, 20)),
    (DUBBED, "What kind of musical instrument is it?", [], "piano", range(20)),
    (TRIO, "What kind of instrument is the <LRer> instrument?", ["rightest"], "flute", range(8, 20)),
    (TRIO, "Is this sound from the instrument in the video?", [], "yes", range(20)),
    (DUBBED, "Is this sound from the instrument in the video?", [], "no", []),
    (TRIO, "Is the <Object> in the video always playing?", ["violin"], "no", range(12, 20)),
    (TRIO, "Is there a voiceover?", [], "yes", [3, 4, 5]),
    (QUARTET, "Is there a voiceover?", [], "no", []),
    (QUARTET, "How many instruments are sounding in the video?", [], "two", range(2, 9)),
    (QUARTET, "How many types of musical instruments sound in the video?", [], "one", []),
    (QUARTET, "How many instruments in the video did not sound from beginning to end?", [], "two", range(20)),
    (QUARTET, "How many sounding <Object> in the video？", ["trumpet"], "two", range(2, 20)),
    (QUARTET, "How many sounding <Object> in the video？", ["drum"], "zero", []),
    (TRIO, "Where is the <LL> instrument?", ["loudest"], "middle", range(5, 20)),
    (TRIO, "Where is the <LL> instrument?", ["lowest"], "left", range(12)),
    (TRIO, "Is the <FL> sound coming from the <LR> instrument?", ["first", "left"], "yes", [*range(5), *range(12, 20)]),
    (TRIO, "Is the <FL> sound coming from the <LR> instrument?", ["last", "left"], "no", [*range(5), *range(12, 20)]),
    (
        TRIO,
        "Which is the musical instrument that sounds at the same time as the <Object>?",
        ["violin"],
        "cello",
        range(5, 12),
    ),
    (
        TRIO,
        "What is the <LR> instrument of the <FL> sounding instrument?",
        ["right", "last"],
        "flute",
        range(12, 20),
    ),
    (
        TRIO,
        "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?",
        ["middle", "left"],
        "no",
        range(20),
    ),
    (
        TRIO,
        "Is the instrument on the <LR> louder than the instrument on the <LR>?",
        ["middle", "left"],
        "yes",
        range(5, 12),
    ),
    (
        TRIO,
        "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?",
        ["violin", "left", "cello", "middle"],
        "yes",
        range(20),
    ),
    (
        TRIO,
        "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
        ["violin", "left", "cello", "middle"],
        "no",
        range(5, 12),
    ),
    (TRIO, "Where is the <FL> sounding instrument?", ["first"], "left", [*range(5), *range(12, 20)]),
    (QUARTET, "Which <Object> makes the sound <FL>?", ["trumpet", "first"], "simultaneously", range(2, 20)),
    (TRIO, "What is the <TH> instrument that comes in?", ["second"], "cello", [5, 6]),
    (TRIO, "Which instrument makes sounds <BA> the <Object>?", ["before", "cello"], "violin", [0, 1]),
]


@pytest.mark.parametrize(("happening", "text", "values", "answer", "segments"), EXPECTED)
def test_answer_and_segments(happening, text, values, answer, segments):
    found = {c.values: c for c in BY_TEXT[text].candidates(happening)}[tuple(values)]
    assert found.answer == answer
    assert sorted(found.segments) == list(segments)


def test_every_template_is_expected_above():
    assert {text for _, text, *_ in EXPECTED} == set(BY_TEXT)


@pytest.mark.parametrize(
    ("happening", "text", "values"),
    [
        (QUARTET, "Is the <FL> sound coming from the <LR> instrument?", ("first", "left")),  # two begin together
        (QUARTET, "What kind of instrument is the <LRer> instrument?", ("rightest",)),  # two stand there
        (QUARTET, "Which <Object> makes the sound <FL>?", ("trumpet", "last")),  # begin together, end apart
        (QUARTET, "Where is the <LL> instrument?", ("loudest",)),  # equally loud
        (TRIO, "What kind of instrument is the <LRer> instrument?", ("leftest",)),  # the violin can be heard
        (TRIO, "Is the <Object> playing longer than the <Object>?", ("violin", "cello")),  # can be seen
        (DUBBED, "How many instruments are sounding in the video?", ()),  # in the video?
    ],
)
def test_what_people_could_disagree_on_is_not_asked(happening, text, values):
    assert values not in {c.values for c in BY_TEXT[text].candidates(happening)}


def test_templates_are_music_avqas(shared):
    rows = [row for name in ("val", "test") for row in json.loads((shared / f"music_avqa/{name}.json").read_text())]
    real = {(row["question_content"].strip(), tuple(json.loads(row["type"]))) for row in rows}
    assert {(t.text, (t.modality, t.kind)) for t in TEMPLATES} == real


def test_every_question_has_a_prompt_and_a_known_answer():
    prompts = PromptTable.read("dataset/TextPrompt.xlsx", "MUSIC-AVQA")
    for happening in make_scenes(Preset(30, 20), seed=3):
        for template in TEMPLATES:
            for candidate in template.candidates(happening):
                assert candidate.answer in MUSIC_AVQA_ANSWERS
                assert "<" not in prompts.fill(template.text, candidate.values).prompt


def test_same_seed_same_files_whatever_the_hash_seed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dataset.bandstand.benchmark import *;"
        "write_annotations(make_scenes(Preset(40, 20), 5), 5, Path(sys.argv[1]))"
    )
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path / hash_seed)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})
    one, other = (
        {path.relative_to(tmp_path / s): path.read_bytes() for path in (tmp_path / s).rglob("*.json")} for s in "12"
    )
    assert len(one) == 3 + 40
    assert one == other


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo preset's annotations by split, and its scenes by name."""
    folder = tmp_path_factory.mktemp("demo")
    scenes = make_scenes(PRESETS["demo"], seed=0)
    write_annotations(scenes, 0, folder)
    return {s: json.loads((folder / f"annotations/{s}.json").read_text()) for s in SPLITS}, folder


def test_annotations_are_music_avqas(demo):
    rows = [row for split in demo[0].values() for row in split]
    assert {"video_id", "question_id", "type", "question_content", "templ_values", "question_deleted", "anser"} == set(
        rows[0]
    )
    assert len({row["question_id"] for row in rows}) == len(rows)
    assert {tuple(json.loads(row["type"])) for row in rows} == set(TABLE1_COLUMNS.types.values())
    for split in demo[0].values():
        assert {row["question_content"] for row in split} == set(BY_TEXT)
    videos = [{row["video_id"] for row in split} for split in demo[0].values()]
    assert sum(map(len, videos)) == len(set.union(*videos))  # none is in two splits


def test_truth_has_every_question(demo):
    splits, folder = demo
    for row in splits["test"]:
        truth = json.loads((folder / f"truth/{row['video_id']}.json").read_text())
        found = truth["questions"][str(row["question_id"])]
        assert set(found["segments"]) <= set(range(truth["seconds"]))
        for i in found["performers"] or []:
            assert truth["performers"][i]["box"] is not None


def test_words_alone_do_not_give_the_answer(demo):
    """The most frequent answer in train to the same words, else to the same template, is near chance in test."""
    splits, _ = demo
    by_words = defaultdict(Counter)
    for row in splits["train"]:
        by_words[row["question_content"]][row["anser"]] += 1
        by_words[row["question_content"], row["templ_values"]][row["anser"]] += 1
    for split in splits.values():
        binary = Counter((row["question_content"], row["anser"]) for row in split if row["anser"] in ("yes", "no"))
        assert all(binary[text, "yes"] == binary[text, "no"] for text, _ in binary)
    right = defaultdict(list)
    for row in splits["test"]:
        text, words = row["question_content"], (row["question_content"], row["templ_values"])
        guess = (by_words[words] or by_words[text]).most_common(1)[0][0]
        right[row["anser"] in ("yes", "no")].append(guess == row["anser"])
    assert np.mean(right[True]) < 0.54
    assert np.mean(right[False]) < 0.3  # of counts, a mute picture's is as frequent as all others together


def test_the_other_modality_alone_does_not_give_the_answer(demo):
    """Audio questions cannot be answered from what is seen, nor visual ones from what is heard: same cell, no gain."""
    for split, digits in SPLITS.items():
        scenes = [s for s in make_scenes(PRESETS["demo"], 0) if int(s.video_id) % 10 in digits]
        for n, template in enumerate(TEMPLATES):
            answers = defaultdict(Counter)
            for _, c in benchmark.choose(scenes, template, np.random.default_rng((0, n, digits.start))):
                answers[c.cell][c.answer] += 1
            for cell, counts in answers.items():
                most, total = max(counts.values()), counts.total()
                assert len(counts) > 1, (split, template.text, cell)
                assert most <= max(total / 2, 1), (split, template.text, cell, counts)
