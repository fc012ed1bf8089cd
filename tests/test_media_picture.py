"""Reading pictures: upright, in their colours and in the proportions that a player shows."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from feat_script.media import _upright_rgb, read_frames


@pytest.mark.parametrize("name", ["rot90_noaudio.mov", "vfr_rot180_mono48k.mp4", "music_congas.mp4"])
def test_real_clips_come_out_upright(shared, name):
    """Compare with FFmpeg's own rotation filters, applied to the frames as they are stored."""
    turn = {"rot90_noaudio.mov": ["transpose=clock"], "vfr_rot180_mono48k.mp4": ["hflip", "vflip"]}.get(name, [])
    with av.open(str(shared / "media" / name)) as container:
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=container.streams.video[0])]
        nodes += [graph.add(*step.split("=")) for step in turn] + [graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        for frame in container.decode(video=0):
            if frame.time > 0.5:
                break
            graph.push(frame)
            shown = graph.pull()
    expected = shown.to_ndarray(format="gray").astype(float)
    got = read_frames(shared / "media" / name, 1).images[0] @ [0.299, 0.587, 0.114]
    assert got.shape == expected.shape
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("space", "red"), [("ITU709", (63, 102, 240)), ("ITU601", (81, 90, 240))], ids=["bt709", "bt601"]
)
def test_colours_follow_their_tags(tmp_path, space, red):
    """Pure red by the equations of BT.709 and BT.601 is red either way."""
    planes = [np.full((32, 48), red[0]), np.full((16, 24), red[1]), np.full((16, 24), red[2])]
    frame = av.VideoFrame.from_ndarray(
        np.concatenate([p.ravel() for p in planes]).reshape(48, 48).astype(np.uint8), "yuv420p"
    )
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 5}[space]
        stream.codec_context.color_range = 1
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    np.testing.assert_allclose(read_frames(path, 1).images[0].mean(axis=(0, 1)), (255, 0, 0), atol=6)


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [
        (Fraction(16, 9), (120, 160)),  # 90 x 120 stored, a picture of 4:3
        (Fraction(3, 4), (160, 90)),
        (Fraction(1), (120, 90)),
        (None, (120, 90)),  # not said
    ],
)
def test_pixels_that_are_not_square_are_stretched(tmp_path, aspect, shape):
    """The right half is white: it stays the right half; nothing is cut off."""
    path, stored = tmp_path / "clip.mp4", np.zeros((120, 90, 3), np.uint8)
    stored[:, 45:] = 255
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 90, 120, "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(stored, "rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    image = read_frames(path, 1).images[0]
    assert image.shape == (*shape, 3)
    assert image[:, : shape[1] // 2 - 4].max() < 40
    assert image[:, shape[1] // 2 + 4 :].min() > 215


def test_stretched_as_it_is_stored_then_turned():
    stored = np.zeros((120, 90, 3), np.uint8)
    stored[:, 45:] = 255
    frame = av.VideoFrame.from_ndarray(stored, "rgb24")
    held = {name: getattr(frame, name) for name in ("width", "height", "colorspace", "color_range", "to_ndarray")}
    image = _upright_rgb(SimpleNamespace(**held, rotation=90), 16 / 9)
    assert image.shape == (160, 120, 3)
    assert image[:76].min() > 215  # against the clock: the right half is the upper one
    assert image[84:].max() < 40
