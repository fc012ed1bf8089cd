"""Small clips that the tests make themselves: a frame's grey level is its number, the sound is a sine."""

from fractions import Fraction

import av
import numpy as np

STEP = 8  # grey levels between a frame and the next; 30 frames can be told apart


def grey(number):
    return 8 + STEP * (number % 30)


def number(image):
    """Which frame of a clip this image is."""
    return round((float(np.asarray(image).mean()) - 8) / STEP)


def sine(seconds, hertz=440.0, rate=16000, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def loudness(audio):
    """Root mean square of each second."""
    return np.sqrt((audio.samples.reshape(-1, 16000) ** 2).mean(axis=1))


def write_clip(
    path,
    times=(),
    sound=None,
    *,
    rate=16000,
    sound_start=0.0,
    size=(48, 32),
    codec="libx264",
    audio="aac",
    tick=1000,
):
    """Write frames number 0, 1, ... at `times` (seconds, to 1 / tick) and mono `sound` from `sound_start` on."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25) if len(times) else None
        if video:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.codec_context.time_base = Fraction(1, tick)
            video.options = {"crf": "8", "preset": "ultrafast", "bf": "2"} if codec == "libx264" else {}
        heard = out.add_stream(audio, rate=rate, layout="mono") if sound is not None else None
        packets = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), grey(index), np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * tick), Fraction(1, tick)
            packets += video.encode(frame)
        if video:
            packets += video.encode(None)
        if heard:
            resampler = av.AudioResampler(heard.format.name, "mono", rate, frame_size=heard.frame_size or 1024)
            whole = av.AudioFrame.from_ndarray(sound[None], "flt", "mono")
            whole.sample_rate, whole.pts, whole.time_base = rate, round(sound_start * rate), Fraction(1, rate)
            for frame in [*resampler.resample(whole), *resampler.resample(None)]:
                packets += heard.encode(frame)
            packets += heard.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def repeat(source, target, seconds, times):
    """Remux `source` `times` times in a row, each `seconds` after the last, without encoding again."""
    with av.open(str(target), "w") as out:
        streams = {}
        for turn in range(times):
            with av.open(str(source)) as clip:
                for stream in clip.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream, opaque=True)
                for packet in clip.demux():
                    if packet.dts is None:
                        continue
                    shift = round(turn * seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return target
