"""VGGish: the front end's reference values, the network against a plain Sequential, the checkpoint's keys."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from feat_script import vggish
from feat_script.vggish import VGGish, examples, load_vggish, log_mel, mel_matrix, public_weights
from utils.errors import UserError

NARROW = {"conv": (4, 6, 8, 8, 10, 12), "fc": (20, 16, 128)}


def sine(seconds, hertz=1000.0, rate=16000):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate)


def test_mel_matrix():
    mel = mel_matrix()
    assert mel.shape == (257, 64)
    assert mel.sum().item() == pytest.approx(230.9136, abs=1e-4)
    assert (mel != 0).sum() == 461
    assert (mel[0] == 0).all()


def test_front_end_reference_values():
    got = examples(sine(3), 0.96)
    assert got.shape == (3, 96, 64)
    assert got.mean().item() == pytest.approx(-3.42962, abs=1e-5)
    assert got.std(correction=0).item() == pytest.approx(2.12658, abs=1e-5)
    assert got.min().item() == pytest.approx(-4.60116, abs=1e-5)
    assert got.max().item() == pytest.approx(4.81112, abs=1e-5)
    assert got[0, 0].argmax() == 19
    torch.testing.assert_close(
        got[0, 0, 17:22], torch.tensor([-0.1477, 2.6930, 4.8111, 4.7750, 2.2622]), atol=5e-5, rtol=0
    )


def test_silence_is_the_log_of_the_offset():
    got = examples(torch.zeros(16000))
    torch.testing.assert_close(got, torch.full((1, 96, 64), -4.60517), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("samples", "count"), [(0, 0), (399, 0), (15599, 0), (15600, 1), (31599, 1), (31600, 2), (960000, 60)]
)
def test_example_count(samples, count):
    assert len(examples(torch.zeros(samples))) == count


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_hop_of_one_second_equals_each_second_alone(seed, seconds):
    noise = torch.rand(seconds * 16000, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    alone = torch.cat([examples(second) for second in noise.split(16000)])
    torch.testing.assert_close(examples(noise, 1.0), alone, atol=1e-5, rtol=1e-5)


def test_a_tone_falls_into_its_own_second():
    whole = torch.cat([torch.zeros(16000), sine(1), torch.zeros(16000)])
    loudest = examples(whole).amax(dim=(1, 2))
    assert loudest[1] > 4
    assert max(loudest[0], loudest[2]) < -4


def test_log_mel_of_a_frame_by_definition():
    """One frame through a slow, literal discrete Fourier transform."""
    frame = torch.rand(400, generator=torch.Generator().manual_seed(0)).double() - 0.5
    n = torch.arange(400, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * n / 400)
    angle = 2 * torch.pi * torch.arange(257, dtype=torch.float64)[:, None] * n / 512
    magnitude = torch.hypot((torch.cos(angle) * frame * hann).sum(1), (torch.sin(angle) * frame * hann).sum(1))
    expected = torch.log(magnitude @ mel_matrix() + 0.01)
    torch.testing.assert_close(log_mel(frame)[0].double(), expected, atol=1e-6, rtol=0)


def plain_network(state):
    """The same function from torch's own layers in one row, built without looking at our class."""

    def conv(key):
        weight = state[f"features.{key}.weight"]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        layer.load_state_dict({"weight": weight, "bias": state[f"features.{key}.bias"]})
        return layer

    def linear(key):
        weight = state[f"embeddings.{key}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": state[f"embeddings.{key}.bias"]})
        return layer

    class ChannelsLast(nn.Module):
        def forward(self, x):
            return x.transpose(1, 3).transpose(1, 2)  # (N, C, 6, 4) -> (N, 6, 4, C)

    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    return nn.Sequential(
        *(conv(0), relu, pool, conv(3), relu, pool, conv(6), relu, conv(8), relu, pool),
        *(conv(11), relu, conv(13), relu, pool, ChannelsLast(), nn.Flatten()),
        *(linear(0), relu, linear(2), relu, linear(4), relu),
    )


@pytest.mark.parametrize(
    "widths", [NARROW, pytest.param({}, marks=pytest.mark.slow, id="public")], ids=lambda widths: "narrow"
)
def test_network_equals_a_plain_sequential(widths):
    torch.manual_seed(0)
    network = VGGish(**widths).eval()
    batch = torch.randn(2, 96, 64)
    with torch.inference_mode():
        got = network(batch)
        expected = plain_network(network.state_dict())(batch[:, None])
    assert got.shape == (2, 128)
    assert (got >= 0).all()
    assert got.any()
    torch.testing.assert_close(got, expected)


def test_public_size_and_keys():
    with torch.device("meta"):
        network = VGGish()
    assert sum(p.numel() for p in network.parameters()) == 72_141_184
    layers = [f"features.{k}" for k in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{k}" for k in (0, 2, 4)]
    assert set(network.state_dict()) == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def test_load_reads_the_widths_and_the_digest(tmp_path):
    path = tmp_path / "narrow.pth"
    saved = VGGish(**NARROW)
    torch.save(saved.state_dict(), path)
    loaded, digest = load_vggish(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.training
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_load_is_strict(tmp_path):
    state = VGGish(**NARROW).state_dict()
    for name, wrong in {
        "missing": {k: v for k, v in state.items() if k != "embeddings.4.bias"},
        "missing width": {k: v for k, v in state.items() if k != "features.0.weight"},
        "extra": {**state, "pproc.pca": torch.zeros(1)},
        "list": list(state.values()),
    }.items():
        torch.save(wrong, tmp_path / name)
        with pytest.raises(UserError, match="not a VGGish checkpoint"):
            load_vggish(tmp_path / name)
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match="not a VGGish checkpoint"):
        load_vggish(tmp_path / "text.pth")
    with pytest.raises(UserError, match="no such file"):
        load_vggish(tmp_path / "absent.pth")


def test_the_public_weights_are_looked_for_where_they_are_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"vggish-10086976\.pth: no such file; .*python -m scripts.download vggish"):
        load_vggish()
    public_weights().parent.mkdir()
    torch.save(VGGish(**NARROW).state_dict(), public_weights())
    digest = hashlib.sha256(public_weights().read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"its SHA-256 is {digest}, not 10086976"):
        load_vggish()
    monkeypatch.setattr(vggish, "PUBLIC", digest[:8])
    assert load_vggish()[1] == digest


@pytest.mark.parametrize("wrap", ["state_dict", "module", "both"])
def test_load_wrapped_state_dict(tmp_path, wrap):
    saved = VGGish(**NARROW)
    state = saved.state_dict()
    if wrap != "state_dict":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save(state if wrap == "module" else {"state_dict": state}, tmp_path / "weights.pth")
    assert torch.equal(load_vggish(tmp_path / "weights.pth")[0].features[0].weight, saved.features[0].weight)
