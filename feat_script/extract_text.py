"""CLIP features of every distinct question and prompt of annotation files: `text/features.npy`, `text/sentences.json`.

    python -m feat_script.extract_text --annotations train.json val.json test.json --prompts dataset/TextPrompt.xlsx \\
        --sheet MUSIC-AVQA --clip ViT-L/14@336px --out data/features

Row i of the features belongs to sentence i. Run again after the spreadsheet was edited, it encodes the new sentences
only. Exit status: 0 all done, 2 a wrong option or a question without a prompt.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from dataset.text_prompt import PromptTable, question_text
from feat_script.clip_vision import encode_sentences, load_clip
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import npy_header, read_json, save_npy, write_json
from utils.manifest import claim_manifest
from utils.runtime import start

FOLDER, FEATURES, SENTENCES = "text", "features.npy", "sentences.json"


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, nargs="+", help="annotation files of MUSIC-AVQA or AVQA (JSON)")
    parser.add_argument("--prompts", default="dataset/TextPrompt.xlsx", help="spreadsheet of prompts")
    parser.add_argument("--sheet", default="MUSIC-AVQA", help="its sheet")
    parser.add_argument("--clip", default="ViT-L/14@336px", help="name of a public CLIP, or a checkpoint file")
    parser.add_argument("--out", default="data/features", help="folder of features")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where CLIP runs")
    return parser.parse_args(args)


def read_sentences(paths: list[str], table: PromptTable) -> tuple[list[str], list[str]]:
    """The distinct questions and prompts of annotation files in their order, and a line for each row left out.

    Raises `UserError` for a file that is no list of questions, and for templates that the table does not serve.
    """
    sentences: dict[str, None] = {}
    faults, unserved = [], Counter()
    for path in paths:
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: must hold a JSON list of questions")
        for number, row in enumerate(rows, start=1):
            try:
                template, values = question_text(row)
                if not table.serves(template):
                    unserved[template] += 1
                    continue
                filled = table.fill(template, values)
            except UserError as error:
                faults.append(f"{path}, row {number}: {error}")
                continue
            sentences |= dict.fromkeys((filled.question, filled.prompt))
    if unserved:
        listed = ", ".join(f"{template!r} ({count} questions)" for template, count in unserved.most_common(5))
        raise UserError(f"{table.source}: no row for {len(unserved)} templates: {listed}; add rows for them")
    if not sentences:
        raise UserError(f"{', '.join(paths)}: no usable question")
    return list(sentences), faults


def stored_sentences(folder: Path, width: int) -> list[str]:
    """The sentences that have whole rows of features already."""
    if not (folder / SENTENCES).exists():
        return []
    sentences = read_json(folder / SENTENCES)
    try:
        (rows, *rest), dtype = npy_header(folder / FEATURES)
    except UserError:
        return []  # lost or cut: encoded again
    return sentences if rows >= len(sentences) and rest == [width] and dtype == np.float32 else []


@command
def main(args: list[str] | None = None) -> int:
    """Encode what is new and return the exit status."""
    options = parse(args)
    wanted, faults = read_sentences(options.annotations, PromptTable.read(options.prompts, options.sheet))
    folder = Path(options.out) / FOLDER
    with start(options.device, "fp32", "device") as runtime:
        if not runtime.is_main:  # minutes of work in all: one process does it
            return 0
        model, name, digest = load_clip(options.clip, runtime.device)
        width = model.text_projection.shape[1]
        folder.mkdir(parents=True, exist_ok=True)
        claim_manifest(
            folder,
            {
                "version": 1,
                "kind": "text",
                "encoder": name,
                "weights_sha256": digest,
                "shape": [width],
                "dtype": "float32",
            },
        )
        held = stored_sentences(folder, width)
        known = set(held)
        new = [sentence for sentence in wanted if sentence not in known]
        if new:
            rows = encode_sentences(model, new)
            if not np.isfinite(rows).all():
                raise UserError(f"--clip {options.clip}: gives text features that are not finite")
            kept = [np.load(folder / FEATURES)[: len(held)]] if held else []
            # Features first: rows beyond the sentences are ignored, sentences without rows would be an error.
            save_npy(folder / FEATURES, np.concatenate([*kept, rows]))
            write_json(folder / SENTENCES, held + new)
    print(f"{folder}: {len(wanted)} distinct sentences, {len(new)} of them new; {len(held) + len(new)} in all")
    if faults:
        print("\n  ".join([f"{len(faults)} rows of the annotations left out:", *faults[:3]]), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
