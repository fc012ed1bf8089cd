"""The picture of what was extracted."""

import numpy as np
import pytest
from PIL import Image

from feat_script import extract_audio, extract_visual
from scripts import show_features
from scripts.show_features import paint_tokens, shade_unseen
from tests.clips import sine, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip


def test_paint_tokens():
    """Two regions on a grid of two by two: their own mean colour, an outline between, a label inside each."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = (200, 0, 0)
    image[:, 4:] = (0, 0, 200)
    painted, labels = paint_tokens(image, np.array([0, 1, 2, 1, 2]))  # left column token 1, right column token 2
    assert (painted[:, :4] == (200, 0, 0)).all()
    assert (painted[:, 4] == 255).all()
    assert (painted[:, 5:] == (0, 0, 200)).all()
    assert [(x, patches) for x, _, patches in labels] == [(2, 2), (6, 2)]

    mixed, labels = paint_tokens(image, np.array([0, 1, 1, 1, 1]))
    assert labels[0][2] == 4
    np.testing.assert_allclose(mixed[0, 0], (140, 0, 60), atol=1)  # 0.4 of itself, 0.6 of the mean


def test_what_clip_did_not_see_is_dark():
    image = np.full((10, 30, 3), 90, np.uint8)
    assert (shade_unseen(image, "squash") == 90).all()
    shaded = shade_unseen(image, "crop")
    assert (shaded[:, 10:20] == 90).all()
    assert (shaded[:, :10] == 30).all()
    assert (shaded[:, 20:] == 30).all()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    (folder / "videos").mkdir()
    write_clip(folder / "videos" / "clip.mp4", np.arange(55) / 5, sine(11))
    common = ["--videos", str(folder / "videos"), "--out", str(folder / "features"), "--segments", "12"]
    extract_audio.main([*common, "--weights", str(save_narrow_vggish(folder / "narrow.pth"))])
    extract_visual.main([*common, "--clip", str(save_small_clip(folder / "small.pt"))])
    return folder


def test_the_whole_picture(extracted, tmp_path):
    out = tmp_path / "clip.png"
    options = ["--videos", str(extracted / "videos"), "--features", str(extracted / "features"), "--out", str(out)]
    assert show_features.main(["clip", *options]) == 0
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000
    assert pixels.std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ["clip.png"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["absent"], "absent.npy: no such file"),
        (["../clip_frame/clip"], "must be a file name"),
        (["clip", "--tokens", "27"], "clip_token_27_source/manifest.json: no such"),
    ],
)
def test_what_is_missing_is_said(extracted, capsys, options, says):
    folders = ["--videos", str(extracted / "videos"), "--features", str(extracted / "features")]
    with pytest.raises(SystemExit):
        show_features.main([*options, *folders])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("video", ["-xyz_dB0", "--4gqARaEJE"])
def test_an_id_may_begin_with_a_dash(video):
    assert show_features.parse([video, "--videos", "v"]).video_id == video
    assert show_features.parse(["--videos", "v", "--", video]).video_id == video
    assert show_features.parse(["--videos=v", "clip"]).video_id == "clip"
