"""An answer as HTML: what, how sure, when, and where. Pictures are in it, so it asks for no file.

What carries `data-second` moves the player to that second of the video when it is clicked.
"""

import base64
import io
from html import escape

import numpy as np
from PIL import Image

from scripts.answer import Answer, Look
from utils.scoring.figure4 import HEAT, WHITE


def refused(message: str) -> str:
    """The line that the command would print, read aloud by a screen reader as it comes."""
    return f'<div class="card"><p class="refused" role="alert">error: {escape(message)}</p></div>'


def shown(answer: Answer) -> str:
    """The answer, how likely it and the next ones are, and the frames that were looked at."""
    quiet = [f"Prompt: {answer.prompt}", f"Template: {answer.template}", answer.note]
    parts = [
        f'<p class="quiet">{escape(answer.video)}: {escape(answer.question)}</p>',
        f"<h2>{_words(answer.answer)}</h2>",
        _bars(answer.ranked),
        _looks(answer.looks),
        *(f'<p class="quiet">{escape(line)}</p>' for line in quiet if line),
    ]
    return f'<div class="card" role="status">{"".join(parts)}</div>'


def _words(answer: str) -> str:
    return escape(answer.replace("_", " "))


def _bars(answers: list[tuple[str, float]]) -> str:
    rows = "".join(
        f'<dt>{_words(answer)}</dt><dd><span class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></span>'
        f'<span class="share">{share:.1%}</span></dd>'
        for answer, share in answers
    )
    return f"<dl>{rows}</dl>"


def time_line(answer: Answer) -> str:
    """A button for each second, as high as its weight. A network without weights has none."""
    weights = answer.segment_weights
    if weights is None:
        return ""
    buttons, ticks = [], []
    step = 5 if len(weights) <= 30 else 10
    for segment, weight in enumerate(weights):
        second = answer.start + segment
        chosen = second in answer.selected
        told = f"{second:g} s, weight {weight:.3f}{', selected' if chosen else ''}"
        buttons.append(
            f'<button type="button" data-second="{second:g}" title="{told}" aria-label="{told}" '
            f'{"class=on" if chosen else "tabindex=-1"}><i style="height:{weight / weights.max():.0%}"></i></button>'
        )
        ticks.append(f"<span>{'' if segment % step else f'{second:g} s'}</span>")
    return (
        '<div class="card"><h3>When it looked</h3>'
        '<div class="line" role="group" aria-label="Time line: left and right move along it, Enter moves the player">'
        f"{''.join(buttons)}</div>"
        f'<div class="ticks" aria-hidden="true">{"".join(ticks)}</div>'
        '<p class="quiet">Coloured seconds were selected. Click one to see it in the player.</p></div>'
    )


def _looks(looks: list[Look]) -> str:
    """The selected frames; on each the audio's weights, where the network has such a stage."""
    most = max((look.heat.max() for look in looks if look.heat is not None), default=0)
    figures = []
    for look in looks:
        told = f"{look.second:g} s{look.place and f': {look.place}'}"
        heat = None if look.heat is None or not most else look.heat / most
        figures.append(
            f'<button type="button" data-second="{look.second:g}"><img alt="" src="{_picture(look.picture, heat)}">'
            f"{told}</button>"
        )
    title = "Where it looked for the sound" if most else "What it looked at"
    return f'<h3>{title}</h3><div class="looks">{"".join(figures)}</div>' if looks else ""


def _picture(image: np.ndarray, heat: np.ndarray | None) -> str:
    """A frame (H, W, 3), dim and grey under its heat (H, W) in [0, 1], as an address that holds the picture itself."""
    if heat is not None:
        grey = image.mean(axis=-1, keepdims=True) * (255 / WHITE)
        *colour, opacity = np.split(HEAT(heat), 4, axis=-1)  # each (H, W, 1)
        image = (grey + opacity * (255 * np.concatenate(colour, axis=-1) - grey)).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()
