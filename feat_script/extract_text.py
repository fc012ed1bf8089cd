"""CLIP features of every distinct question and prompt of annotation files: `text/features.npy`, `text/sentences.json`;
with --words also the states of all words of every distinct question: `text/words.npy`, `text/words.json`.

    python -m feat_script.extract_text --annotations train.json val.json test.json --prompts dataset/TextPrompt.xlsx \\
        --sheet MUSIC-AVQA --clip ViT-L/14@336px --out data/features

Row i belongs to sentence i; rows beyond the sentences are room for those to come. By the digest beside them damage is
found, and all is encoded again. Run again after the spreadsheet was edited, it encodes the new sentences only; stopped,
it goes on where it was. Exit status: 0 all done, 2 a wrong option, or a question that has no prompt or is too long.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataset.text_prompt import PromptTable, filled_rows
from feat_script.clip_vision import count_tokens, encode_sentences, encode_words, load_clip
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import atomic_path, header_bytes, write_json, writing
from utils.manifest import claim_manifest, make_manifest
from utils.progress import tqdm
from utils.runtime import start
from utils.text_rows import TextRows, text_rows, word_rows

FOLDER = "text"
BLOCK = 2048  # sentences that are encoded before they are written
Rows = dict[str, list[tuple[str, Any]]]  # by sentence: the (file, id) of the rows that need it


def read_sentences(paths: list[str], table: PromptTable) -> tuple[Rows, list[str], list[str]]:
    """The distinct questions and prompts of annotation files in their order; those of them that are questions; and a
    line for each row left out.

    Raises `UserError` for a file that is no list of questions, and for templates that the table does not serve.
    """
    sentences: Rows = {}
    questions: dict[str, None] = {}
    faults: list[str] = []
    for path in paths:
        for number, row, filled in filled_rows(path, table, faults):
            questions[filled.question] = None
            for sentence in (filled.question, filled.prompt):
                sentences.setdefault(sentence, []).append(
                    (path, row.get("question_id", row.get("id", f"row {number}")))
                )
    if not sentences:
        raise UserError(f"{', '.join(paths)}: no usable question")
    return sentences, list(questions), faults


def refuse_long(sentences: Rows, most: int) -> None:
    """Raise a `UserError` that names, by file and id, every row with a sentence of more than `most` tokens."""
    asked = [row for sentence, rows in sentences.items() if count_tokens(sentence) > most for row in rows]
    ids: dict[str, dict[str, None]] = {}
    for path, number in asked:
        ids.setdefault(path, {})[str(number)] = None
    if ids:
        said = f"{sum(map(len, ids.values()))} questions, or their prompts, have more than CLIP's {most} tokens; "
        listed = [f"{path}: question {', '.join(some)}" for path, some in ids.items()]
        raise UserError("\n  ".join([f"{said}shorten them, or take the first {most} of each by --truncate", *listed]))


def encode_new(
    encode: Callable[[list[str]], np.ndarray], new: list[str], files: TextRows, held: list[str], row: np.dtype
) -> None:
    """Append the rows of new sentences to those of the sentences that are held, a block at a time.

    Within a block the rows are written first and its sentences listed after, so what is listed always has its rows.
    """
    path = files.features
    with writing(path.parent):
        for listed in () if held else (files.digest, files.sentences):  # what they list would have rows of zeros
            listed.unlink(missing_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header_bytes((len(held) + len(new), *row.shape), row.base))
        if held:
            file.write(np.load(path, mmap_mode="r")[: len(held)])
        begin = file.tell()
        file.truncate(begin + len(new) * row.itemsize)
    with (
        writing(path),
        open(path, "r+b") as file,
        tqdm(total=len(new), desc=path.stem, unit="sentence", delay=1) as bar,
    ):
        file.seek(begin)
        for first in range(0, len(new), BLOCK):
            block = new[first : first + BLOCK]
            rows = encode(block)
            if not np.isfinite(rows).all():
                raise UserError("--clip: gives text features that are not finite")
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                raise UserError(f"{path}: another run writes it too; let it end, and run again")
            held = held + block
            write_json(files.sentences, held)
            files.note_digest(held)
            bar.update(len(block))


@command
def main(args: list[str] | None = None) -> int:
    """Encode what is new and return the exit status."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, nargs="+", help="annotation files of MUSIC-AVQA or AVQA (JSON)")
    parser.add_argument("--prompts", default="dataset/TextPrompt.xlsx", help="spreadsheet of prompts")
    parser.add_argument("--sheet", default="MUSIC-AVQA", help="its sheet")
    parser.add_argument(
        "--spelling", choices=["words", "published"], default="words", help="as data.spelling in training"
    )
    parser.add_argument("--clip", default="ViT-L/14@336px", help="name of a public CLIP, or a checkpoint file")
    parser.add_argument("--out", default="data/features", help="folder of features")
    parser.add_argument(
        "--words", action="store_true", help="also the words of the questions, for networks that read them"
    )
    parser.add_argument("--truncate", action="store_true", help="cut what CLIP cannot read off long sentences")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where CLIP runs")
    options = parser.parse_args(args)
    folder = Path(options.out) / FOLDER
    with start(options.device, "fp32", "device") as runtime:
        if not runtime.is_main:  # minutes of work in all: one process does it
            return 0
        table = PromptTable.read(options.prompts, options.sheet, options.spelling)
        wanted, questions, faults = read_sentences(options.annotations, table)
        model, name, digest = load_clip(options.clip, runtime.device)
        width = model.text_projection.shape[1]
        claim_manifest(folder, make_manifest("text", name, digest, (width,), "float32"))
        row = np.dtype(("float32", (width,)))
        kinds = [("sentences", list(wanted), text_rows(folder), encode_sentences, row)]
        if options.words:
            row = np.dtype(("float16", (model.context_length, *model.ln_final.normalized_shape)))
            kinds.append(("questions, their words", questions, word_rows(folder), encode_words, row))
        for what, sentences, files, encode, row in kinds:
            try:
                held, _ = files.read(row.shape, row.base.name)
            except UserError:
                held = []  # none yet, lost or damaged: encoded again
            known = set(held)
            new = [sentence for sentence in sentences if sentence not in known]
            if not options.truncate:
                refuse_long({sentence: wanted[sentence] for sentence in new}, model.context_length)
            if new:
                encode_new(partial(encode, model, truncate=options.truncate), new, files, held, row)
            print(f"{folder}: {len(sentences)} distinct {what}, {len(new)} of them new; {len(held) + len(new)} in all")
    if faults:
        print("\n  ".join([f"{len(faults)} rows of the annotations left out:", *faults[:3]]), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
