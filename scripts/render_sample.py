"""Render the sample that `scripts.answer` asks about where no video is named, with three questions and what is true.

    python -m scripts.render_sample

It is the first of the benchmark's test videos that allows these questions, so no model was trained on it.
"""

import itertools
from pathlib import Path

from dataset.bandstand.benchmark import BENCHMARK, PRESETS, SPLITS
from dataset.bandstand.questions import TEMPLATES
from dataset.bandstand.render import render
from dataset.bandstand.scene import make_scene
from dataset.text_prompt import PromptTable
from utils.cli import Parser
from utils.errors import command
from utils.files import write_json

ASKED = (
    "Where is the <LL> instrument?",
    "Is the <Object> in the video always playing?",
    "How many instruments are sounding in the video?",
)
SAMPLE, QUESTIONS = "sample.mp4", "sample.json"


@command
def main(arguments: list[str] | None = None) -> None:
    """Find the scene, render it, write its questions with their answers."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default="assets/bandstand", help="folder of the video and its questions")
    out = parser.parse_args(arguments).out
    prompts = PromptTable.read("dataset/TextPrompt.xlsx", "MUSIC-AVQA")
    by_text = {template.text: template for template in TEMPLATES}
    for number in itertools.count():
        scene = make_scene(0, BENCHMARK, number, PRESETS["demo"].seconds)
        asked = {text: next(by_text[text].candidates(scene), None) for text in ASKED}
        if number % 10 in SPLITS["test"] and all(asked.values()):
            break
    render(scene, out / SAMPLE)
    rows = [
        {"question": prompts.fill(text, candidate.values).question, "answer": candidate.answer}
        for text, candidate in asked.items()
        if candidate
    ]
    write_json(out / QUESTIONS, rows)
    print(f"{out / SAMPLE}: scene {scene.video_id}, {(out / SAMPLE).stat().st_size / 1e3:.0f} kB")
    print(*(f"  {row['question']} {row['answer']}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
