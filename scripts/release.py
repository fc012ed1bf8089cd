"""Release a trained model: one folder with all that asking it needs, a model card, and the digest of each file.

    python test.py --run runs/bandstand
    python -m scripts.release --run runs/bandstand --out released/bandstand

`scripts.answer`, `scripts.app`, `scripts.visualize` and `test.py` open such a folder as they open a run. Where one of
its files has changed, they say which.
"""

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from dataset import DATASETS
from utils.checkpoint import load_run, weights_sha256
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import json_bytes, unseal
from utils.release import write_release

CARD = Path(__file__).with_name("release_card.md")
RENDERED = (
    "Videos that the project renders itself (Bandstand), with questions in the format of {title}: {questions}. It has "
    "never seen or heard a real video."
)
REAL = "Videos and questions of {title}: {questions}. Their terms are those of that data set."
LIMITS = {
    True: "Real videos: it was trained on drawn scenes and synthetic sound, and shows how the method works.",
    False: "Videos unlike those of its training set, which has its own gaps in who plays what, and where.",
}


def model_card(name: str, folder: Path, stored: dict[str, Any], metrics: dict[str, Any], half: bool) -> str:
    """The card in the hub's format: a head in YAML, then Markdown."""
    data, rendered = stored["config"]["data"], stored["config"]["data"]["truth"] is not None
    title = DATASETS[data["dataset"]].title
    questions = ", ".join(f"{count:,} questions of {split}" for split, count in stored["questions"].items())
    dataset = "Bandstand" if rendered else title
    head = {
        "license": "mit" if rendered else "other",
        "language": ["en"],
        "library_name": "pytorch",
        "pipeline_tag": "visual-question-answering",
        "tags": ["audio-visual-question-answering", "video", "audio", stored["config"]["model"]["network"]],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "visual-question-answering"},
                        "dataset": {"name": f"{dataset}, {split}", "type": dataset.lower()},
                        "metrics": [{"type": "accuracy", "value": round(measured["accuracy"]["All"], 2)}],
                    }
                    for split, measured in metrics.items()
                ],
            }
        ],
    }
    return CARD.read_text().format(
        head=yaml.safe_dump(head, sort_keys=False),
        name=name,
        folder=folder,
        network=stored["config"]["model"]["network"].upper(),
        segments=data["segments"],
        templates=len(stored["prompts"]),
        answers=len(stored["answers"]),
        trained_on=(RENDERED if rendered else REAL).format(title=title, questions=questions),
        contents="\n".join(f"| {option} | `{digest}` |" for option, digest in stored["contents"].items()),
        encoders="\n".join(
            f"| {kind} | {manifest['encoder']} | `{manifest['weights_sha256']}` |"
            for kind, manifest in stored["manifests"].items()
        ),
        results="\n\n".join(_table(split, measured) for split, measured in metrics.items()),
        limits=LIMITS[rendered],
        weights="weights, matrices in float16" if half else "weights in float32",
    )


def _table(split: str, measured: dict[str, Any]) -> str:
    rows = [
        f"| {column} | {value:.1f} | {low:.1f} to {high:.1f} |"
        for (column, value), (low, high) in zip(
            measured["accuracy"].items(), measured["interval95"].values(), strict=True
        )
    ]
    return "\n".join(
        [f"| {split} ({measured['questions']:,} questions) | correct | interval |", "|---|---|---|", *rows]
    )


def read_metrics(run: Path, weights: dict[str, Tensor]) -> dict[str, Any]:
    """What test.py measured of these weights, by test file. Raises `UserError` where it did not, or of other ones."""
    measured = {file.parent.name: unseal(file) for file in sorted((run / "test").rglob("metrics.json"))}
    tested = {metrics.get("weights_sha256") for metrics in measured.values()}
    if tested != {weights_sha256(weights)}:
        raise UserError(f"{run}: was not tested since it was trained; measure it with: python test.py --run {run}")
    return measured


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, gather, write, say how to upload."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder of train.py, tested by test.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the released model")
    parser.add_argument("--half", action="store_true", help="round matrices to float16: half the size")
    options = parser.parse_args(arguments)
    path, out = options.run / "best.pt", options.out
    stored = load_run(path)
    if "prompts" not in stored:
        raise UserError(f"{path}: tells no prompts: it is converted, or of an older release; train anew")
    if (out / path.name).exists():
        raise UserError(f"{out}: holds a run; choose another folder with --out")
    metrics = read_metrics(options.run, stored["model"])
    name = options.run.resolve().name
    card = model_card(name, out, stored, metrics, options.half)
    write_release(out, stored, json_bytes(metrics), card, options.half)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB; opened by --run {out}. To upload it, after `pip install huggingface_hub`:")
    print(f"  hf upload USER/{name} {out} .")


if __name__ == "__main__":
    main()
