"""Read a video as its viewer saw and heard it: one frame and one second of sound for each second.

Time 0 is where the container starts. Frame i is the one on the screen at i + 0.5 s, by timestamp: the last that
began at or before that moment, so variable frame rates and late starts need no special care. Decoding is
sequential: seeking to each second decodes more, since a web video's keyframes are seconds apart. Only what a second
needs is kept, and reading stops after the last of them. Where it is to begin later than at 0, that is from then on.
Pictures whose pixels are not square, as on DVDs, are stretched to the shape that a player shows.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

RATE = 16000  # Hz, of the audio returned
JITTER = 0.1  # s; timestamps off by less are rounding, by more a gap
ROLL = 1.0  # s before the start from which to decode, since sound needs what came before it
SPACES = (1, 4, 7, 9)  # colour spaces that swscale knows, in FFmpeg's numbers: BT.709, FCC, 240M, BT.2020


class MediaError(Exception):
    """A file of which nothing can be used; the message is the reason."""


class Frames(NamedTuple):
    """What was on the screen."""

    images: list  # one for each segment, as `prepare` returned them
    own: int  # how many seconds the video has; the segments after them repeat the last frame
    problem: str | None  # why decoding stumbled, if it did


class Audio(NamedTuple):
    """What was heard."""

    samples: np.ndarray  # (segments * 16000,) float32: mono, 16 kHz, zeros where there is no sound
    seconds: float  # from the start to where the media ends, picture or sound, at most `segments`
    state: str  # "sound", "silent" (a stream of zeros) or "absent" (no stream)
    problem: str | None  # why decoding stumbled, if it did


def read_duration(path: str | Path) -> float | None:
    """How many seconds a file says that it lasts; None where it does not say. Raises `MediaError` as `read_frames`."""
    with _open(path) as container:
        return container.duration / av.time_base if container.duration else None


def read_frames(
    path: str | Path, segments: int, prepare: Callable[[np.ndarray], object] = lambda image: image, start: float = 0.0
) -> Frames:
    """Read the frame in the middle of each of `segments` seconds of the default video stream, from `start` on.

    `prepare` gets each chosen frame, upright (H, W, 3) uint8 RGB, and returns what to keep of it. Of a shorter video
    the last second repeats. Raises `MediaError` where no frame can be decoded, or none is left after `start`.
    """
    with _open(path) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise MediaError("no video stream")
        decoder = _Decoder(container, stream, container.streams.best("audio"), start)
        step = float(1 / (stream.average_rate or 25))  # s, where a file does not say
        aspect = float(stream.sample_aspect_ratio or 1)
        images: list = []

        def show(frame, until: float) -> None:
            """The frame is on the screen in the middle of all seconds up to `until` that have none yet."""
            if (due := min(segments, math.ceil(until - 0.5)) - len(images)) > 0:
                images.extend([prepare(_upright_rgb(frame, aspect))] * due)

        held, begin = None, -step  # the frame on the screen, since when
        for frame in decoder:
            time = decoder.time(frame)
            if time is None:
                time = begin + step
            show(held or frame, time)
            if len(images) == segments:
                return Frames(images, segments, decoder.problem)
            held, begin = frame, time
        if held is None:
            raise MediaError(f"no frame can be decoded ({decoder.problem or 'the video stream is empty'})")
        end = begin + (float(held.duration * stream.time_base) or step)
        if start and end <= 0:
            raise MediaError(f"its picture ends at {start + end:.1f} s, before {start:g} s")
        show(held, max(1, end))
        own = len(images)
        images += images[-1:] * (segments - own)
        return Frames(images, own, decoder.problem)


def read_audio(path: str | Path, segments: int, start: float = 0.0) -> Audio:
    """Read `segments` seconds of the default audio stream from `start` on: the channels' mean, at 16 kHz.

    Sound lies where its timestamps say: a late start or a gap is silence. Raises `MediaError` where the file holds no
    media, or an audio stream of which nothing can be decoded.
    """
    samples = np.zeros(segments * RATE, np.float32)
    with _open(path) as container:
        video, stream = container.streams.best("video"), container.streams.best("audio")
        if not (video or stream):
            raise MediaError("no video and no audio stream")
        decoder = _Decoder(container, stream, video, start, segments)
        runs: list[_Run] = []
        for frame in decoder:
            time = decoder.time(frame)
            if time is None:
                time = runs[-1].end if runs else 0.0
            if time >= segments:
                break
            if not runs or runs[-1].rate != frame.sample_rate or abs(time - runs[-1].end) > JITTER:
                runs.append(_Run(time, frame.sample_rate))
            runs[-1].append(_mono(frame))
        if stream and not runs and decoder.problem:
            raise MediaError(f"no audio can be decoded ({decoder.problem})")
        seconds = min(decoder.end, segments)
        problem = decoder.problem
    for run in runs:
        begin, sound = round(run.start * RATE), run.resampled()
        sound = sound[max(0, -begin) : max(0, len(samples) - begin)]
        begin = max(0, begin)
        samples[begin : begin + len(sound)] = sound
    if stream is None:
        state = "absent"
    else:
        state = "sound" if np.abs(samples).max(initial=0) >= 2**-15 else "silent"  # one step of 16-bit audio
    return Audio(samples, seconds, state, problem)


class _Decoder:
    """The frames of one stream, decoded in order; errors are noted in `problem` and the rest goes on.

    `end` is where the packets of this stream and of `watch`, which is not decoded, end, in seconds. With no stream to
    decode it yields nothing and reads only as far as `end`, or until that is beyond `enough`. All times are counted
    from `start`.
    """

    def __init__(self, container, stream, watch, start: float = 0.0, enough: float = math.inf):
        self.container, self.stream, self.watch = container, stream, watch
        self.start, self.enough = start, enough
        self.origin = max(0, container.start_time or 0) / av.time_base + start  # what lies before 0 primes the decoder
        self.end = 0.0
        self.problem: str | None = None
        if start:
            try:
                container.seek(round(max(0, self.origin - ROLL) * av.time_base))
            except av.FFmpegError as error:
                raise MediaError(f"cannot be entered at {start:g} s ({error.strerror})") from error
        if stream:
            stream.codec_context.thread_count = 1  # videos run in parallel, which costs less than threads within one

    def time(self, frame) -> float | None:
        """When a frame is due, in seconds from the start; None where nothing says."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        return None if stamp is None else float(stamp * self.stream.time_base) - self.origin

    def __iter__(self) -> Iterator:
        for packet in self._packets():
            if packet.pts is not None:
                self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.origin)
            if packet.stream == self.stream:
                yield from self._decode(packet)
            elif not self.stream and self.end > self.enough:
                return
        if self.stream:
            yield from self._decode(None)
        promised = (self.container.duration or 0) / av.time_base - self.start
        if self.end < promised - 1:  # a file that was cut ends without an error
            self.problem = self.problem or f"ends at {self.end:.1f} of {promised:.1f} s"

    def _packets(self) -> Iterator:
        try:
            for packet in self.container.demux([stream for stream in (self.stream, self.watch) if stream]):
                if packet.size:  # the demuxer ends with empty packets
                    yield packet
        except av.FFmpegError as error:
            self._note(error)

    def _decode(self, packet) -> list:
        try:
            return self.stream.decode(packet)
        except av.FFmpegError as error:
            self._note(error)
            return []

    def _note(self, error) -> None:
        self.problem = self.problem or f"{error.strerror} near {self.end:.1f} s"


class _Run:
    """Sound without a gap."""

    def __init__(self, start: float, rate: int):
        self.start, self.end, self.rate = start, start, rate
        self.chunks: list[np.ndarray] = []

    def append(self, chunk: np.ndarray) -> None:
        self.chunks.append(chunk)
        self.end += len(chunk) / self.rate

    def resampled(self) -> np.ndarray:
        sound = np.concatenate(self.chunks)
        if self.rate == RATE:
            return sound
        frame = av.AudioFrame.from_ndarray(sound[None], "flt", "mono")
        frame.sample_rate = self.rate
        resampler = av.AudioResampler("flt", "mono", RATE)
        return np.concatenate([part.to_ndarray()[0] for part in resampler.resample(frame) + resampler.resample(None)])


def _open(path: str | Path):
    try:
        return av.open(str(path))
    except av.FFmpegError as error:
        raise MediaError(f"cannot be opened ({error.strerror})") from error


def _mono(frame) -> np.ndarray:
    """An audio frame's channels averaged, float32 in [-1, 1]."""
    x = frame.to_ndarray()  # (channels, samples), or (1, channels * samples) interleaved
    if not frame.format.is_planar:
        x = x.reshape(-1, len(frame.layout.channels)).T
    if x.dtype == np.uint8:
        x = x / 128.0 - 1.0
    elif x.dtype.kind == "i":
        x = x / -float(np.iinfo(x.dtype).min)
    return x.mean(axis=0, dtype=np.float64).astype(np.float32)


def _upright_rgb(frame, aspect: float = 1.0) -> np.ndarray:
    """A video frame as it is meant to be seen: (H, W, 3) uint8 RGB, its colours by its tags, turned upright.

    `aspect` is the width of a stored pixel by its height; the side that is too short is stretched.
    """
    space = frame.colorspace if frame.colorspace in SPACES else Colorspace.ITU601
    rgb = frame.to_ndarray(
        format="rgb24",
        width=round(frame.width * max(1, aspect)),
        height=round(frame.height * max(1, 1 / aspect)),
        src_colorspace=space,
        src_color_range=frame.color_range,
        # RGB has neither, but PyAV heeds the source's only where the destination's differ.
        dst_colorspace=Colorspace.ITU709 if space != Colorspace.ITU709 else Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
    )
    return np.rot90(rgb, round(frame.rotation / 90))
