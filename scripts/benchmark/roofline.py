"""The roofline of the training step: a picture of what it attains and what the machine allows."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from utils.files import write_bytes
from utils.scoring.plots import BLUE, LIGHT_GREY, VERMILION


def roofline(results: dict[str, Any], path: str | Path) -> None:
    """Draw FLOP/s against FLOPs per byte touched, of the whole steps and of the stages of ours, to a PNG file.

    The bytes are those of all operands, so a point may lie above the slope: its operands were still in cache.
    Raises `UserError` if the file cannot be written.
    """
    stages = {name.removeprefix("stage "): found for name, found in results["stages"].items() if found["flops"]}
    # Compiled, operands of fused operators are not touched: what it has in bytes is not known.
    steps = {name: found for name, found in results["train"].items() if not name.endswith(("AVQA", "compiled"))}
    peak, copy = results["peak"][results["staged"].split(", ")[1]], results["peak"]["copy"]
    points = sorted([*stages.items(), *steps.items()], key=lambda point: -_rate(point[1]))
    x = [found["flops"] / found["bytes"] for _, found in points]

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    low, high = min(*x, peak / copy) / 1.5, max(*x, peak / copy) * 1.5
    bottom, top = min(_rate(found) for _, found in points) / 1.5e9, max(peak, _rate(points[0][1])) * 1.4e-9
    reach = np.geomspace(low, high, 200)
    axes.plot(reach, np.minimum(peak, copy * reach) / 1e9, color="black", linewidth=1.2)
    axes.text(low * 1.1, peak / 1e9 * 1.03, f"matrix products: {peak / 1e9:,.0f} GFLOP/s", fontsize=9, va="bottom")
    slope = peak / copy / 2.5
    axes.text(slope * 1.15, copy * slope / 1e9, f"copying memory: {copy / 1e9:,.0f} GB/s", fontsize=9, va="top")

    whole = results["train"][results["staged"]]["seconds"]
    own = [np.log(_rate(found) / 1e9 / bottom) / np.log(top / bottom) for _, found in points]
    for (name, found), at, height in zip(points, x, _apart(own, 0.06), strict=True):
        colour = BLUE if name in stages else VERMILION
        area = 20 + 600 * found["seconds"] / whole if name in stages else 60
        axes.scatter(at, _rate(found) / 1e9, area, color=colour, marker="o" if name in stages else "D", alpha=0.7)
        axes.annotate(
            f"{name}, {_duration(found['seconds'])}", (at, _rate(found) / 1e9), (1.04, height), fontsize=9,
            textcoords="axes fraction", va="center", color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set(xlim=(low, high), ylim=(bottom, top), xlabel="FLOPs per byte touched", ylabel="GFLOP/s attained")
    axes.set_title(
        f"training step of {results['batch']}: whole (diamonds), and {results['staged']} by stage", fontsize=10
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.grid(color=LIGHT_GREY)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())


def _apart(heights: list[float], gap: float) -> list[float]:
    """Descending heights in [0, 1], moved until neighbours are a gap apart."""
    moved: list[float] = []
    for height in heights:
        moved.append(min(height, moved[-1] - gap) if moved else min(height, 1.0))
    for i in reversed(range(len(moved))):
        moved[i] = max(moved[i], moved[i + 1] + gap if i + 1 < len(moved) else 0.0)
    return moved


def _rate(found: dict[str, Any]) -> float:
    """FLOP/s."""
    return found["flops"] / found["seconds"]


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
