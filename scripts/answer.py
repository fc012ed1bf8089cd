"""Ask a trained model about a video: the answer, when it was heard or seen, and where.

    python -m scripts.answer                                                    the sample, and the model in the box
    python -m scripts.answer VIDEO "Is there a violin sound?" "Where is the loudest instrument?"
    python -m scripts.answer VIDEO QUESTION --run runs/bandstand --start 40 --png looked.png --json

The model sees the first seconds of a video, as many as it was trained with; --start S has it see others. A question
must fit a template of the model's prompt sheet, or the sheet has a row `*`. In Python:

    from scripts.answer import Answerer, draw
    answers = Answerer("runs/bandstand").ask("video.mp4", ["Is there a violin sound?"])
    draw(answers, "looked.png")
"""

import json
from pathlib import Path

from scripts.answering.answerer import Answerer
from scripts.answering.answers import Answer, draw
from utils.cli import PlainParser
from utils.errors import UserError, command
from utils.files import read_json
from utils.scoring.geometry import Look

__all__ = ["Answer", "Answerer", "Look", "draw"]

BOX = Path("assets/bandstand")
MODEL, SAMPLE, QUESTIONS = BOX / "model", BOX / "sample.mp4", BOX / "sample.json"  # of scripts.release; a demo video


def describe(answer: Answer, true: str | None = None) -> str:
    """The answer, what it is in truth where that is known, and what the model looked at, as lines of text."""
    first, *others = (f"{word.replace('_', ' ')} {100 * p:.0f} %" for word, p in answer.ranked)
    lines = [
        f"{answer.question}  {first}  ({', '.join(others)})",
        *([] if true is None else [f"  true      {true.replace('_', ' ')}"]),
        f"  template  {answer.template}",
        f"  prompt    {answer.prompt}",
    ]
    if answer.selected:
        lines.append(f"  when      {', '.join(dict.fromkeys(f'{answer.clipped(s):g}' for s in answer.selected))} s")
    if places := [f"{look.second:g} s {look.place}" for look in answer.looks if look.place]:
        lines.append(f"  where     {'; '.join(dict.fromkeys(places))}")
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, ask, print, draw."""
    parser = PlainParser(__doc__)
    parser.add_argument("video", nargs="?", type=Path, help="a video file; the sample in the box by default")
    parser.add_argument("questions", nargs="*", metavar="question", help="what to ask; needed with a video")
    parser.add_argument("--run", type=Path, default=MODEL, help="run folder of train.py, or a released model")
    parser.add_argument("--start", type=float, default=0.0, help="second of the video from which on the model sees it")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    parser.add_argument("--png", type=Path, help="the picture; by default <video>.png in the working folder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/tspm").expanduser(), help="folder of features")
    parser.add_argument("--encoders", type=Path, nargs="+", default=[], help="folders with the weights of encoders")
    options = parser.parse_args(arguments)
    if options.video and not options.questions:
        raise UserError('no question: python -m scripts.answer VIDEO "QUESTION"')

    video, questions, truth = options.video, options.questions, [None] * len(options.questions)
    if video is None:
        rows = read_json(QUESTIONS)
        video, questions, truth = SAMPLE, [row["question"] for row in rows], [row["answer"] for row in rows]
    answerer = Answerer(options.run, options.device, options.cache, options.encoders)
    answers = answerer.ask(video, questions, options.start)
    if options.json:
        print(json.dumps([answer.as_dict() for answer in answers], indent=2, ensure_ascii=False))
    else:
        print(f"{video}{f': {answers[0].note}' if answers[0].note else ''}")
        for answer, true in zip(answers, truth, strict=True):
            print(f"\n{describe(answer, true)}")
    if answers[0].looks:
        out = options.png or Path(f"{video.stem}.png")
        draw(answers, out)
        if not options.json:
            print(f"\n{out}: when and where it looked")


if __name__ == "__main__":
    main()
