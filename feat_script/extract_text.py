"""CLIP features of every distinct question and prompt of annotation files: `text/features.npy`, `text/sentences.json`.

    python -m feat_script.extract_text --annotations train.json val.json test.json --prompts dataset/TextPrompt.xlsx \\
        --sheet MUSIC-AVQA --clip ViT-L/14@336px --out data/features

Row i of the features belongs to sentence i; rows beyond the sentences are room for those to come. By
`digest.json` damage is found, and all is encoded again. Run again after the
spreadsheet was edited, it encodes the new sentences only; stopped, it goes on where it was. Exit status: 0 all done, 2
a wrong option, or a question that has no prompt or is too long.
"""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from dataset.text_prompt import PromptTable, question_text
from feat_script.clip_vision import count_tokens, encode_sentences, load_clip
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import atomic_path, header_bytes, npy_header, read_json, write_json, writing
from utils.manifest import claim_manifest
from utils.progress import tqdm
from utils.runtime import start
from utils.text_rows import DIGEST, FEATURES, SENTENCES, is_damaged, note_digest

FOLDER = "text"
BLOCK = 16384  # sentences that are encoded before they are written


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, nargs="+", help="annotation files of MUSIC-AVQA or AVQA (JSON)")
    parser.add_argument("--prompts", default="dataset/TextPrompt.xlsx", help="spreadsheet of prompts")
    parser.add_argument("--sheet", default="MUSIC-AVQA", help="its sheet")
    parser.add_argument("--clip", default="ViT-L/14@336px", help="name of a public CLIP, or a checkpoint file")
    parser.add_argument("--out", default="data/features", help="folder of features")
    parser.add_argument("--truncate", action="store_true", help="cut what CLIP cannot read off long sentences")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where CLIP runs")
    return parser.parse_args(args)


def read_sentences(paths: list[str], table: PromptTable) -> tuple[dict[str, list[tuple[str, Any]]], list[str]]:
    """The distinct questions and prompts of annotation files in their order, each with the (file, id) of the rows that
    need it; and a line for each row left out.

    Raises `UserError` for a file that is no list of questions, and for templates that the table does not serve.
    """
    sentences: dict[str, list[tuple[str, Any]]] = {}
    faults: list[str] = []
    unserved: Counter[str] = Counter()
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
            for sentence in (filled.question, filled.prompt):
                sentences.setdefault(sentence, []).append(
                    (path, row.get("question_id", row.get("id", f"row {number}")))
                )
    if unserved:
        listed = ", ".join(f"{template!r} ({count} questions)" for template, count in unserved.most_common(5))
        raise UserError(f"{table.source}: no row for {len(unserved)} templates: {listed}; add rows for them")
    if not sentences:
        raise UserError(f"{', '.join(paths)}: no usable question")
    return sentences, faults


def refuse_long(sentences: dict[str, list[tuple[str, Any]]], most: int) -> None:
    """Raise a `UserError` that names, by file and id, every row with a sentence of more than `most` tokens."""
    asked = [row for sentence, rows in sentences.items() if count_tokens(sentence) > most for row in rows]
    ids: dict[str, dict[str, None]] = {}
    for path, number in asked:
        ids.setdefault(path, {})[str(number)] = None
    if ids:
        said = f"{sum(map(len, ids.values()))} questions, or their prompts, have more than CLIP's {most} tokens; "
        listed = [f"{path}: question {', '.join(some)}" for path, some in ids.items()]
        raise UserError("\n  ".join([f"{said}shorten them, or take the first {most} of each by --truncate", *listed]))


def stored_sentences(folder: Path, width: int) -> list[str]:
    """The sentences that have whole rows of features in a folder already."""
    try:
        sentences = read_json(folder / SENTENCES)
        (rows, *rest), dtype = npy_header(folder / FEATURES)
    except ValueError:
        return []  # none yet, lost or cut: encoded again
    whole = isinstance(sentences, list) and rows >= len(sentences) and rest == [width] and dtype == np.float32
    return sentences if whole and not is_damaged(folder, sentences) else []


def encode_new(model, new: list[str], folder: Path, held: list[str], width: int, truncate: bool) -> None:
    """Append the features of new sentences to those of the sentences that are held, a block at a time.

    Within a block the rows are written first and its sentences listed after, so what is listed always has its rows.
    """
    path, header = folder / FEATURES, header_bytes((len(held) + len(new), width), np.dtype(np.float32))
    with writing(folder):
        for name in () if held else (DIGEST, SENTENCES):  # what is listed there would have rows of zeros for a while
            (folder / name).unlink(missing_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header)
        if held:
            file.write(np.load(path, mmap_mode="r")[: len(held)])
        begin = file.tell()
        file.truncate(begin + 4 * width * len(new))
    with writing(path), open(path, "r+b") as file, tqdm(total=len(new), desc="text", unit="sentence", delay=1) as bar:
        file.seek(begin)
        for first in range(0, len(new), BLOCK):
            block = new[first : first + BLOCK]
            rows = encode_sentences(model, block, truncate)
            if not np.isfinite(rows).all():
                raise UserError("--clip: gives text features that are not finite")
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                raise UserError(f"{path}: another run writes it too; let it end, and run again")
            held = held + block
            write_json(folder / SENTENCES, held)
            note_digest(folder, held)
            bar.update(len(block))


@command
def main(args: list[str] | None = None) -> int:
    """Encode what is new and return the exit status."""
    options = parse(args)
    folder = Path(options.out) / FOLDER
    with start(options.device, "fp32", "device") as runtime:
        if not runtime.is_main:  # minutes of work in all: one process does it
            return 0
        wanted, faults = read_sentences(options.annotations, PromptTable.read(options.prompts, options.sheet))
        model, name, digest = load_clip(options.clip, runtime.device)
        width = model.text_projection.shape[1]
        manifest = {"version": 1, "kind": "text", "encoder": name, "weights_sha256": digest}
        claim_manifest(folder, manifest | {"shape": [width], "dtype": "float32"})
        held = stored_sentences(folder, width)
        known = set(held)
        new = {sentence: rows for sentence, rows in wanted.items() if sentence not in known}
        if not options.truncate:
            refuse_long(new, model.context_length)
        if new:
            encode_new(model, list(new), folder, held, width, options.truncate)
    print(f"{folder}: {len(wanted)} distinct sentences, {len(new)} of them new; {len(held) + len(new)} in all")
    if faults:
        print("\n  ".join([f"{len(faults)} rows of the annotations left out:", *faults[:3]]), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
