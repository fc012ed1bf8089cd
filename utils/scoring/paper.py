"""What was published: every table of the TSPM paper (ACM MM 2024), later results apart; our rows printed beside them.

Accuracies are per cent. Rows are dicts keyed by column, as `metrics.accuracy_row` gives them: the columns of Table 1,
where "A", "V" and "AV" are the averages of the three modalities and "All" is the total.
"""

from collections.abc import Mapping

from utils.scoring.metrics import Columns

Row = Mapping[str, float]

TABLE1_COLUMNS = Columns(
    types={
        "A-Count": ("Audio", "Counting"),
        "A-Comp": ("Audio", "Comparative"),
        "V-Count": ("Visual", "Counting"),
        "V-Loc": ("Visual", "Location"),
        "Exist": ("Audio-Visual", "Existential"),
        "AV-Count": ("Audio-Visual", "Counting"),
        "AV-Loc": ("Audio-Visual", "Location"),
        "AV-Comp": ("Audio-Visual", "Comparative"),
        "Temp": ("Audio-Visual", "Temporal"),
    },
    averages={
        "Audio": ("A-Count", "A-Comp", "A"),
        "Visual": ("V-Count", "V-Loc", "V"),
        "Audio-Visual": ("Exist", "AV-Count", "AV-Loc", "AV-Comp", "Temp", "AV"),
    },
)
"""The nine question types of MUSIC-AVQA and the averages of its modalities, in the order of Table 1."""

TABLE1_ORDER = (*(column for columns in TABLE1_COLUMNS.averages.values() for column in columns), "All")


def _averages(*values: float) -> dict[str, float]:
    return dict(zip(("A", "V", "AV", "All"), values, strict=True))


_TABLE1 = """
FCNLSTM   70.80 65.66 68.90 64.58 48.08 56.23 82.29 59.92 46.20 62.94 47.45 60.42 60.81
BiLSTM    67.75 63.64 66.23 59.65 29.80 44.55 80.97 56.05 36.09 62.67 32.60 54.93 54.17
HCAttn    70.80 54.71 64.87 63.49 67.10 65.32 79.48 59.84 48.80 56.31 56.33 60.32 62.45
MCAN      78.07 57.74 70.58 71.76 71.76 71.76 80.77 65.22 54.57 56.77 46.84 61.52 65.83
PSAC      75.02 66.84 72.00 68.00 70.78 69.41 79.76 61.66 55.22 61.13 59.85 63.60 66.62
HME       73.65 63.74 69.89 67.42 70.20 68.83 80.87 63.64 54.89 63.03 60.58 64.78 66.75
HCRN      71.29 50.67 63.69 65.33 64.98 65.15 54.15 53.28 41.74 51.04 46.72 49.82 56.34
AVSD      72.47 62.46 68.78 66.00 74.53 70.31 80.77 64.03 57.93 62.85 61.07 65.44 67.32
Pano-AVQA 75.71 65.99 72.13 70.51 75.76 73.16 82.09 65.38 61.30 63.67 62.04 66.97 69.53
ST-AVQA   77.78 67.17 73.87 73.52 75.27 74.40 82.49 69.88 64.24 64.67 65.82 69.53 71.59
COCA      79.35 67.68 75.42 75.10 75.43 75.23 83.50 66.63 69.72 64.12 65.57 69.96 72.33
PSTP-Net  73.97 65.59 70.91 77.15 77.36 77.26 76.18 72.23 71.80 71.79 69.00 72.57 73.52
LAVISH    82.09 65.56 75.97 78.98 81.43 80.22 81.71 75.51 66.13 63.77 67.96 71.26 74.46
TSPM      84.07 64.65 76.91 82.29 84.90 83.61 82.19 76.21 71.85 65.76 71.17 73.51 76.79
"""

TABLE1: dict[str, dict[str, float]] = {
    name: dict(zip(TABLE1_ORDER, map(float, values), strict=True))
    for name, *values in map(str.split, _TABLE1.strip().splitlines())
}
"""Table 1, MUSIC-AVQA test, split by question.

With the question counts of the present test file, the averages of HME, COCA, PSTP-Net and LAVISH do not follow from
their own types (by up to 0.4 points); those of the other ten do, to rounding. The types of the last two are no
multiples of one question either: they were counted on another release.
"""

LATER: dict[str, dict[str, float]] = {
    "CueSpace": {"All": 79.22},
    "QSTar *": {"All": 78.98},
    "AV-Master *": {"All": 78.51},
    "QA-TIGER (CVPR 2025)": _averages(78.58, 85.14, 73.74, 77.62),
    "QAST (three seeds)": {"All": 77.27},
    "DG-SCT *": {"All": 74.62},
    "Amuse * +": {"All": 83.52},
    "PAVE-7B +": {"All": 82.3},
    "Sparsify * +": {"All": 81.75},
    "IMoD * +": {"All": 80.13},
    "Crab * +": {"All": 76.4},
}
"""Results on MUSIC-AVQA test published later; * is reported second-hand, + tunes encoders or a language model."""

LATER_AVQA: dict[str, dict[str, float]] = {"CueSpace": {"All": 91.33}, "PAVE-7B +": {"All": 93.8}}
"""The same on AVQA validation."""

TABLE2 = {
    "AVSD": _averages(71.74, 69.21, 65.41, 67.53),
    "ST-AVQA": _averages(71.74, 70.71, 66.53, 68.56),
    "LAVISH": _averages(73.00, 77.62, 70.09, 72.60),
    "PSTP-Net": _averages(73.58, 76.44, 67.66, 71.06),
    "TSPM": _averages(76.93, 81.07, 71.93, 75.27),
}
"""Table 2, MUSIC-AVQA split by video (7 : 1 : 2), so that test videos are new."""

TABLE3 = {
    "w/o all": _averages(73.93, 79.23, 70.37, 73.35),
    "w/o TPM": _averages(75.85, 82.74, 72.53, 75.82),
    "w/o SPM": _averages(77.16, 81.92, 72.25, 75.68),
    "w/o TPC": _averages(75.54, 82.20, 72.96, 75.87),
    "w/ QPrompt": _averages(76.47, 81.30, 71.82, 75.16),
    "w/o Merge": _averages(75.79, 82.91, 72.84, 76.03),
    "TSPM": _averages(76.91, 83.61, 73.51, 76.79),
}
"""Table 3, modules taken out: TPC, all segments instead of prompted ones; QPrompt, the question as the prompt."""

TABLE4 = {
    (10, 14): _averages(76.91, 83.61, 73.51, 76.79),
    (20, 14): _averages(76.60, 82.58, 73.41, 76.40),
    (30, 14): _averages(77.41, 82.70, 73.55, 76.66),
    (40, 14): _averages(76.41, 82.78, 72.94, 76.16),
    (10, 8): _averages(75.54, 82.00, 73.08, 75.88),
    (10, 27): _averages(76.16, 82.20, 73.00, 76.00),
}
"""Table 4, keyed by (selected segments `top_k`, merged tokens per frame)."""

TABLE5 = {
    ("PSTP-Net", "ViT-B/32"): _averages(70.91, 77.26, 72.57, 73.52),
    ("PSTP-Net", "ViT-L/14"): _averages(73.87, 79.19, 71.76, 74.10),
    ("TSPM", "ViT-B/32"): _averages(76.91, 81.92, 72.57, 75.81),
    ("TSPM", "ViT-L/14"): _averages(76.91, 83.61, 73.51, 76.79),
}
"""Table 5, keyed by (method, visual encoder)."""

TABLE6 = {
    "ST-AVQA": {"thop parameters": 18.48, "thop G": 3.19, "All": 71.59},
    "PSTP-Net": {"thop parameters": 4.30, "thop G": 1.22, "All": 73.52},
    "LAVISH": {"thop parameters": 21.09, "All": 74.46},
    "TSPM": {"thop parameters": 6.22, "thop G": 1.42, "All": 76.79},
}
"""Table 6, trained parameters (millions) and FLOPs (10^9) as thop counts them, and accuracy; LAVISH's FLOPs unknown."""

TABLE7 = {
    "HME+HAVF": {"All": 85.0},
    "PSAC+HAVF": {"All": 87.4},
    "LADNet+HAVF": {"All": 84.1},
    "ACRTransformer+HAVF": {"All": 87.8},
    "HGA+HAVF": {"All": 87.7},
    "HCRN+HAVF": {"All": 89.0},
    "PSTP-Net": {"All": 90.2},
    "TSPM w/o all": {"All": 87.1},
    "TSPM w/o TPM": {"All": 89.4},
    "TSPM w/o SPM": {"All": 88.6},
    "TSPM": {"All": 90.8},
}
"""Table 7, AVQA validation, total accuracy (TSPM with top_k 8 and 14 tokens)."""


def format_table(columns: Columns, rows: Mapping[str, Row], published: Mapping[str, Mapping[str, Row]]) -> str:
    """Our rows (name -> row) below published ones (title -> name -> row), at most 120 characters wide.

    "-" stands for what is not known. Predictions for other questions than the published cannot be compared with them:
    print them with none.
    """
    groups = columns.layout(dict.fromkeys(column for row in rows.values() for column in row))
    blocks = {**published, "Scored here": rows}
    widths = {column: max(6, len(label) + 1) for inner in groups.values() for column, label in inner.items()}
    for name, inner in groups.items():  # a header over few columns needs room too
        widths[next(iter(inner))] += max(0, len(name) + 1 - sum(widths[column] for column in inner))
    limit = 120 - sum(widths.values()) - 2 * len(groups)
    width = min(limit, max(len(name) for title, rows in blocks.items() for name in (title, *rows)))

    def line(name: str, cells: Mapping[str, str]) -> str:
        name = name if len(name) <= width else name[: width - 1] + "…"
        parts = ("".join(cells.get(c, "-").rjust(widths[c]) for c in inner) for inner in groups.values())
        return " |".join([name.ljust(width), *parts])

    header = (name.center(sum(widths[c] for c in inner)) for name, inner in groups.items())
    labels = {column: label for inner in groups.values() for column, label in inner.items()}
    lines = [" |".join([" " * width, *header]).rstrip(), line("Accuracy, %", labels)]
    for title, rows in blocks.items():
        lines += ["-" * len(lines[1]), title]
        lines += [line(name, {c: f"{value:.2f}"[:5] for c, value in row.items()}) for name, row in rows.items()]
    return "\n".join(lines)
