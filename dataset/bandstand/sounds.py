"""What the 22 instruments and a speaking voice sound like: additive synthesis, one note after the other."""

from typing import NamedTuple

import numpy as np

from dataset.bandstand.scene import Interval, Performer, Scene

RATE = 16_000  # samples per second
FULL_DB = -25.0  # RMS of the loudest performers, in dB of full scale, while they play
VOICE_DB = -27.0
FLOOR_DB = -66.0  # of the room's noise, the same indoors and outdoors
FADE = 0.03  # seconds at either end of an interval
SCALE = (0, 2, 4, 7, 9, 12)  # semitones above the register


class Timbre(NamedTuple):
    """An instrument's sound. Partials are at multiples of the pitch unless `ratios` says otherwise."""

    register: int  # MIDI number of the lowest note
    tilt: float  # partial n has amplitude n ** -tilt
    partials: int = 16
    decay: float = 0.0  # seconds in which a struck or plucked note falls by 60 dB / 2; 0: it is held
    attack: float = 0.005
    vibrato: tuple[float, float] = (0.0, 0.0)  # Hz, depth in semitones
    tremolo: tuple[float, float] = (0.0, 0.0)  # Hz, depth 0..1
    even: float = 1.0  # factor on partials 2, 4, ...
    formant: float = 0.0  # Hz around which partials are stronger, an octave wide; 0: nowhere
    noise: float = 0.0  # breath or bow, relative to the tone
    click: float = 0.0  # noise of the attack, 15 ms
    glide: float = 0.0  # semitones from which a note comes in its first tenth of a second
    ratios: tuple[float, ...] = ()
    drone: int | None = None  # semitones above the register that sound all along
    beat: float = 0.0  # detuning in Hz of a second reed


TIMBRES = {
    "accordion": Timbre(62, 0.6, attack=0.05, beat=4.0, tremolo=(5.0, 0.2), formant=1500),
    "acoustic_guitar": Timbre(50, 1.1, decay=0.8, click=0.3),
    "bagpipe": Timbre(70, 0.25, attack=0.01, drone=-24, formant=1200),
    "banjo": Timbre(57, 0.3, decay=0.22, click=0.6, formant=2600),
    "bassoon": Timbre(38, 0.7, attack=0.04, formant=480, vibrato=(4.5, 0.1)),
    "cello": Timbre(43, 0.9, attack=0.09, vibrato=(5.0, 0.35), noise=0.06, formant=700),
    "clarinet": Timbre(58, 0.8, attack=0.03, even=0.05, noise=0.02),
    "congas": Timbre(53, 1.6, partials=4, decay=0.18, click=0.5, ratios=(1.0, 1.59, 2.14, 2.65), glide=1.5),
    "drum": Timbre(36, 1.0, partials=3, decay=0.14, click=5.0, noise=2.2, ratios=(1.0, 1.7, 2.4), glide=9.0),
    "electric_bass": Timbre(31, 1.9, partials=8, decay=1.0, attack=0.008),
    "erhu": Timbre(65, 0.35, attack=0.08, vibrato=(6.5, 0.7), glide=-2.0, formant=1900, noise=0.05),
    "flute": Timbre(79, 2.6, partials=5, attack=0.06, vibrato=(5.0, 0.2), tremolo=(5.0, 0.25), noise=0.22),
    "guzheng": Timbre(62, 0.8, decay=1.1, glide=-2.0, vibrato=(5.5, 0.4)),
    "piano": Timbre(55, 1.5, decay=1.3, click=0.12, ratios=tuple(n * (1 + 0.0006 * n * n) for n in range(1, 11))),
    "pipa": Timbre(69, 0.7, decay=0.3, click=0.35, tremolo=(13.0, 0.9)),
    "saxophone": Timbre(51, 0.45, attack=0.03, formant=1100, noise=0.12, vibrato=(5.0, 0.3), glide=-1.0),
    "suona": Timbre(76, -0.2, partials=8, attack=0.01, vibrato=(7.5, 0.6), glide=2.0, formant=3200),
    "trumpet": Timbre(64, 0.2, partials=12, attack=0.04, formant=1700),
    "tuba": Timbre(29, 1.1, partials=8, attack=0.06, formant=200),
    "ukulele": Timbre(69, 1.4, decay=0.35, partials=8, click=0.15),
    "violin": Timbre(72, 0.75, attack=0.06, vibrato=(6.0, 0.45), noise=0.05, formant=2800),
    "xylophone": Timbre(77, 0.9, decay=0.16, click=0.25, ratios=(1.0, 3.0, 6.1)),
}
VOWELS = ((750, 1150, 2500), (320, 2200, 2900), (350, 800, 2400), (520, 1800, 2500), (480, 950, 2450))  # formants, Hz


def note(timbre: Timbre, semitones: int, duration: float, rng: np.random.Generator) -> np.ndarray:
    """One note, `semitones` above the register; a decaying one rings on for up to a second."""
    length = max(duration, min(1.0, 1.5 * timbre.decay)) if timbre.decay else duration
    t = np.arange(round(length * RATE), dtype=np.float32) / RATE
    bend = timbre.glide * np.exp(-t / 0.03) + timbre.vibrato[1] * np.sin(2 * np.pi * timbre.vibrato[0] * t)
    pitch = 440 * 2 ** ((timbre.register + semitones - 69) / 12) * 2 ** (bend / 12)
    wave = _partials(timbre, pitch)
    if timbre.beat:
        wave += _partials(timbre, pitch + timbre.beat)
    hiss = rng.standard_normal(len(t)).astype(np.float32)
    wave = wave / np.sqrt(np.mean(wave**2)) + timbre.noise * hiss
    if timbre.decay:
        wave *= 10 ** (-1.5 * t / timbre.decay)
        wave *= np.minimum(1, (length - t) / 0.02)
    else:
        wave *= np.minimum(1, (duration - t) / min(0.04, duration / 4))
    wave *= np.minimum(1, t / timbre.attack)
    wave *= 1 + timbre.tremolo[1] * np.sin(2 * np.pi * timbre.tremolo[0] * t)
    return wave + timbre.click * hiss * np.exp(-t / 0.015)


def play(performer: Performer, seconds: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A performer's track (seconds * RATE,) at its loudness, and the times at which its notes begin."""
    timbre = TIMBRES[performer.instrument]
    step = 1 / performer.notes_per_second
    sheet = {s: note(timbre, s, 0.94 * step, rng) for s in SCALE}
    track = np.zeros(seconds * RATE + 2 * RATE, np.float32)  # room for the last notes to ring
    active = np.zeros(seconds * RATE, np.float32)
    onsets: list[float] = []
    for start, end in performer.intervals:
        times = np.arange(start, end - 0.5 * step, step)
        onsets.extend(times)
        for time, semitones in zip(times, rng.choice(SCALE, len(times)), strict=True):
            first = round(time * RATE)
            wave = sheet[int(semitones)]
            track[first : first + len(wave)] += wave
        fade_over(active, start, end)
    track = track[: seconds * RATE]
    if timbre.drone is not None:
        track += 0.5 * note(timbre, timbre.drone, float(seconds), rng)
    track *= active
    return track * _gain(track, active, FULL_DB + performer.loudness_db), np.array(onsets)


def speak(intervals: tuple[Interval, ...], seconds: int, rng: np.random.Generator) -> np.ndarray:
    """A voice (seconds * RATE,): syllables of two to six in a row, a vowel each, on a falling pitch."""
    track = np.zeros(seconds * RATE, np.float32)
    active = np.zeros_like(track)
    pitch = rng.uniform(100, 220)
    for start, end in intervals:
        fade_over(active, start, end)
        time = start
        while time < end - 0.4:
            phrase = int(rng.integers(3, 8))
            for i in range(phrase):
                length = rng.uniform(0.14, 0.26)
                if time + length > end:
                    break
                wave = _syllable(pitch * (1.2 - 0.35 * i / phrase), length, VOWELS[rng.integers(len(VOWELS))], rng)
                first = round(time * RATE)
                track[first : first + len(wave)] += wave[: len(track) - first]
                time += length
            time += rng.uniform(0.12, 0.3)
    track *= active
    return track * _gain(track, active, VOICE_DB)


def soundtrack(scene: Scene) -> tuple[np.ndarray, list[np.ndarray]]:
    """The sound of a scene (seconds * RATE,), float32 in [-1, 1], and per performer when its notes begin (s).

    Performers who are not heard have note times all the same: their hands move to them.
    """
    rng = np.random.default_rng((*scene.seed, 0))
    mix = 10 ** (FLOOR_DB / 20) * rng.standard_normal(scene.seconds * RATE).astype(np.float32)
    onsets = []
    for performer in scene.performers:
        track, times = play(performer, scene.seconds, rng)
        onsets.append(times)
        if performer.heard:
            mix += track
    if scene.voice_over:
        mix += speak(scene.voice_over, scene.seconds, rng)
    return np.tanh(mix), onsets


def fade_over(active: np.ndarray, start: float, end: float) -> None:
    """Set `active` to 1 from start to end (s), with soft edges inside."""
    first, last = round(start * RATE), round(end * RATE)
    ramp = np.minimum(np.arange(last - first) + 1, np.arange(last - first, 0, -1)) / (FADE * RATE)
    active[first:last] = np.minimum(1, ramp)


def _partials(timbre: Timbre, pitch: np.ndarray) -> np.ndarray:
    """The sum of the partials below the highest frequency that the sampling rate can carry."""
    phase = 2 * np.pi * np.cumsum(pitch, dtype=np.float64) / RATE
    wave = np.zeros(len(pitch), np.float32)
    top = float(pitch.max())
    for n, ratio in enumerate(timbre.ratios or range(1, timbre.partials + 1), start=1):
        if ratio * top > 0.47 * RATE:
            break
        amplitude = n**-timbre.tilt * (timbre.even if n % 2 == 0 else 1.0)
        if timbre.formant:
            amplitude *= 0.15 + np.exp(-(np.log2(ratio * top / timbre.formant) ** 2))
        wave += (amplitude * np.sin(ratio * phase + n)).astype(np.float32)  # + n: no common peak
    return wave


def _syllable(pitch: float, length: float, vowel: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    t = np.arange(round(length * RATE), dtype=np.float32) / RATE
    harmonics = np.arange(1, int(4000 / pitch))
    weights = np.zeros(len(harmonics))
    for weight, formant in zip((1, 0.5, 0.25), vowel, strict=True):
        weights += weight / (1 + ((harmonics * pitch - formant) / 90) ** 2)
    phase = 2 * np.pi * pitch * (t + 0.1 * t * t)
    wave = (weights[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)  # no BLAS: the same on any threads
    wave *= np.sin(np.pi * np.minimum(1, t / length)) ** 0.7
    consonant = rng.standard_normal(len(t)) * np.exp(-t / 0.02) * rng.uniform(0, 0.8)
    return (wave / np.sqrt(np.mean(wave**2)) + consonant).astype(np.float32)


def _gain(track: np.ndarray, active: np.ndarray, wanted_db: float) -> float:
    """The factor that brings the RMS of the active part to `wanted_db`; 1 for a track without one."""
    power = np.sum(track.astype(np.float64) ** 2) / max(1.0, float(active.sum()))
    return 10 ** (wanted_db / 20) / np.sqrt(power) if power else 1.0
