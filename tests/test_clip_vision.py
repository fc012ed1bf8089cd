"""CLIP with merging inside, against clip's own modules and against a naive version of merging."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import feat_script.clip_vision as cv
from tests.small_encoders import clip, save_small_clip, small_clip
from tests.test_token_merging import naive_merge
from utils.errors import UserError


@pytest.fixture(scope="module")
def model():
    return small_clip()


def pictures(count, height=112, width=112, seed=0):
    """Smooth random pictures: patches differ, neighbours resemble each other."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1)


def prepared(images):
    """Clip's own preparation of pictures, by torchvision."""
    transform = clip.clip._transform(112)
    return torch.stack([transform(Image.fromarray(image.numpy())) for image in images])


@pytest.mark.parametrize("size", [(112, 112), (360, 640), (568, 320), (1, 1), (113, 200), (200, 113), (50, 77)])
def test_crop_is_clips_own_preparation(size):
    image = pictures(1, *size)[0]
    got = torch.from_numpy(cv.fit_image(image.numpy(), 112, "crop").copy())
    expected = clip.clip._transform(112)(Image.fromarray(image.numpy()))
    mean, std = (torch.tensor(v)[:, None, None] for v in (cv.MEAN, cv.STD))
    torch.testing.assert_close((got.permute(2, 0, 1) / 255 - mean) / std, expected, atol=1e-6, rtol=0)


def test_squash_keeps_the_whole_picture():
    """A white mark at the very left is cut off by the crop and kept by the squash."""
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :30] = 255
    assert cv.fit_image(image, 112, "crop").max() == 0
    squashed = cv.fit_image(image, 112, "squash")
    assert squashed.shape == (112, 112, 3)
    assert (squashed[:, :9] > 250).all()
    assert (squashed[:, 14:] < 5).all()


def test_frame_features_equal_encode_image(model):
    images = pictures(3)
    got = cv.encode_frames(model, images, {}).frame
    torch.testing.assert_close(got, model.encode_image(prepared(images)), atol=1e-5, rtol=1e-5)


def test_unmerged_tokens_equal_the_hidden_states_of_clip(model):
    images, seen = pictures(2), []
    hook = model.visual.transformer.resblocks[-1].register_forward_hook(lambda *args: seen.append(args[2]))
    model.encode_image(prepared(images))
    hook.remove()
    got = cv.encode_frames(model, images, cv.schedules(model.visual, [50]))
    torch.testing.assert_close(got.tokens[50], model.visual.ln_post(seen[0].permute(1, 0, 2)), atol=1e-5, rtol=1e-5)
    assert got.source == {}


def test_sizes_of_one_change_nothing(model):
    """The merged path with r = 0: log 1 is added to the logits."""
    block = model.visual.transformer.resblocks[0]
    x = torch.randn(2, 50, 128, generator=torch.Generator().manual_seed(0))
    plain, key = cv._attention(block.attn, x, None)
    sized, same = cv._attention(block.attn, x, torch.ones(2, 50))
    torch.testing.assert_close(sized, plain, atol=1e-6, rtol=0)
    assert torch.equal(key, same)
    expected = block.attention(x.transpose(0, 1)).transpose(0, 1)  # clip's own, sequence first
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-5)


def naive_tokens(model, image, schedule):
    """One prepared image (3, H, W) through clip's modules, merged by the naive loop."""
    visual = model.visual
    x = visual.conv1(image[None]).flatten(2)[0].T
    x = visual.ln_pre(torch.cat([visual.class_embedding[None], x]) + visual.positional_embedding)
    size, groups = np.ones(len(x)), [[i] for i in range(len(x))]
    for block, r in zip(visual.transformer.resblocks, schedule, strict=True):
        y = block.ln_1(x)
        heads = block.attn.num_heads
        q, k, v = F.linear(y, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        out = []
        for head in range(heads):
            part = slice(head * 64, head * 64 + 64)
            logits = q[:, part] @ k[:, part].T / 8 + torch.tensor(size).log().float()
            out.append(logits.softmax(-1) @ v[:, part])
        x = x + block.attn.out_proj(torch.cat(out, -1))
        if r:
            metric = k.unflatten(-1, (heads, 64)).mean(1)
            tokens, size, joined = naive_merge(x.numpy(), size, metric.numpy(), r)
            x = torch.tensor(tokens, dtype=torch.float32)
            groups = [[patch for old in group for patch in groups[old]] for group in joined]
        x = x + block.mlp(block.ln_2(x))
    return visual.ln_post(x), groups


@pytest.mark.parametrize("wanted", [8, 14, 27])
def test_merged_tokens_equal_a_naive_version(model, wanted):
    images = pictures(2, seed=wanted)
    schedules = cv.schedules(model.visual, [wanted])
    got = cv.encode_frames(model, images, schedules)
    assert got.tokens[wanted].shape == (2, wanted, 128)
    assert got.source[wanted].shape == (2, 50)
    for n, image in enumerate(prepared(images)):
        tokens, groups = naive_tokens(model, image, schedules[wanted])
        torch.testing.assert_close(got.tokens[wanted][n], tokens, atol=1e-4, rtol=1e-4)
        for new, group in enumerate(groups):
            assert (got.source[wanted][n, group] == new).all()
    assert (got.source[wanted][:, 0] == 0).all()
    assert (got.source[wanted][:, 1:] > 0).all()  # the class token is a token of its own


def test_several_counts_share_one_pass(model):
    images = pictures(2)
    together = cv.encode_frames(model, images, cv.schedules(model.visual, [8, 14, 27, 50]))
    assert together.tokens.keys() == {8, 14, 27, 50}
    assert together.source.keys() == {8, 14, 27}
    for wanted in together.tokens:
        alone = cv.encode_frames(model, images, cv.schedules(model.visual, [wanted]))
        assert torch.equal(together.tokens[wanted], alone.tokens[wanted])
        assert torch.equal(together.frame, alone.frame)
        if wanted != 50:
            assert torch.equal(together.source[wanted], alone.source[wanted])


def test_half_precision_stays_close():
    """The path that CUDA takes: clip's float16 weights, layer norms in float32."""
    full = small_clip()
    clip.model.convert_weights(half := small_clip())
    images, merging = pictures(2), cv.schedules(full.visual, [14])
    got, expected = cv.encode_frames(half, images, merging), cv.encode_frames(full, images, merging)
    assert got.frame.dtype == got.tokens[14].dtype == torch.float16
    torch.testing.assert_close(got.frame.float(), expected.frame, atol=0.02, rtol=0.02)
    same = (got.source[14] == expected.source[14]).all(1)  # a near-tie may fall the other way
    torch.testing.assert_close(got.tokens[14].float()[same], expected.tokens[14][same], atol=0.05, rtol=0.05)


def test_text_features_equal_encode_text(model):
    sentences = ["Is there a violin sound?", "The cello plays.", "a" + " very" * 40 + " long one"]
    got = cv.encode_sentences(model, sentences)
    assert got.dtype == np.float32
    expected = torch.cat([model.encode_text(clip.tokenize([sentence])) for sentence in sentences])
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5, rtol=1e-5)


def test_a_sentence_does_not_depend_on_the_others(model):
    many = [f"sentence number {n}" for n in range(70)]
    whole = cv.encode_sentences(model, many)
    assert np.array_equal(cv.encode_sentences(model, many[69:]), whole[69:])
    assert np.array_equal(cv.encode_sentences(model, many[::-1]), whole[::-1])


def test_tokens_are_counted_as_clip_reads_them(model):
    for sentence in ("", "The cello plays.", "Où est-ce?", "violin " * 75):
        assert cv.count_tokens(sentence) == (clip.tokenize(sentence) != 0).sum()
    with pytest.raises(RuntimeError, match="too long"):
        cv.encode_sentences(model, ["short", "violin " * 76])
    cut = cv.encode_sentences(model, ["short", "violin " * 80], truncate=True)
    np.testing.assert_allclose(cut[1:], cv.encode_sentences(model, ["violin " * 75]), atol=1e-6)


def test_load_state_dict_file(tmp_path):
    path = save_small_clip(tmp_path / "small.pt")
    model, name, digest = cv.load_clip(str(path), "cpu")
    assert name == "small"
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.visual.conv1.weight.dtype == torch.float32
    assert len(model.visual.positional_embedding) == 50
    expected = small_clip().visual.conv1.weight.half().float()  # clip keeps float16
    assert torch.equal(model.visual.conv1.weight, expected)


@pytest.mark.parametrize("wrap", ["state_dict", "module", "both"])
def test_load_wrapped_state_dict(tmp_path, wrap):
    state = small_clip().state_dict()
    if wrap != "state_dict":
        state = {f"module.{key}": value for key, value in state.items()}
    torch.save(state if wrap == "module" else {"epoch": 3, "state_dict": state}, tmp_path / "small.pt")
    model, _, _ = cv.load_clip(str(tmp_path / "small.pt"), "cpu")
    assert torch.equal(model.visual.proj, small_clip().visual.proj.half().float())


def test_without_a_connection_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", "http://127.0.0.1:1/abc/ViT-B-32.pt")
    with pytest.raises(UserError, match=r"ViT-B-32.pt: download failed .*fetch it by hand and give --clip FILE"):
        cv.load_clip("ViT-B/32", "cpu")


def test_load_jit_archive(tmp_path):
    """The format in which the public weights come, with the three numbers that they carry as buffers."""
    model = small_clip()
    del model.context_length, model.vocab_size, model.visual.input_resolution
    for key, value in {"input_resolution": 112, "context_length": 77, "vocab_size": 49408}.items():
        model.register_buffer(key, torch.tensor(value))
    traced = torch.jit.trace(model, (torch.zeros(1, 3, 112, 112), clip.tokenize("a violin")), check_trace=False)
    traced.save(tmp_path / "small.pt")
    loaded, _, _ = cv.load_clip(str(tmp_path / "small.pt"), "cpu")
    assert len(loaded.visual.positional_embedding) == 50
    assert torch.equal(loaded.visual.proj, small_clip().visual.proj.half().float())


def test_public_file_keeps_its_public_name(tmp_path, monkeypatch):
    path = save_small_clip(tmp_path / "whatever.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(clip.clip._MODELS, "ViT-L/14@336px", f"https://example.org/{digest}/ViT-L-14-336px.pt")
    assert cv.load_clip(str(path), "cpu")[1:] == ("ViT-L/14@336px", digest)


def test_a_name_is_downloaded_by_clip_and_verified(tmp_path, monkeypatch):
    path = save_small_clip(tmp_path / "served.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    served = tmp_path / digest / "served.pt"
    served.parent.mkdir()
    path.rename(served)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", served.as_uri())
    model, name, found = cv.load_clip("ViT-B/32", "cpu")
    assert (name, found) == ("ViT-B/32", digest)
    assert len(model.visual.positional_embedding) == 50


def test_what_cannot_be_loaded_is_said(tmp_path):
    with pytest.raises(UserError, match=r"--clip ViT-L/15: neither a file nor one of .*ViT-L/14@336px"):
        cv.load_clip("ViT-L/15", "cpu")
    text = tmp_path / "text.pt"
    text.write_text("not weights")
    with pytest.raises(UserError, match="cannot be loaded as a CLIP"):
        cv.load_clip(str(text), "cpu")
    resnet = clip.model.CLIP(32, 32, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(UserError, match="ResNet"):
        cv.load_clip(str(tmp_path / "resnet.pt"), "cpu")


def test_impossible_token_counts(model):
    with pytest.raises(UserError, match=r"--tokens 2: 2 of 50 tokens cannot be reached in 4 blocks; these can: "):
        cv.schedules(model.visual, [14, 2])
    with torch.device("meta"):
        large = clip.model.VisionTransformer(336, 14, 64, 24, 1, 32)
    assert cv.schedules(large, [577]) == {577: (0,) * 24}
    with pytest.raises(UserError, match="--tokens 553: at most 256"):
        cv.schedules(large, [553])


def test_public_architectures():
    for name, embed, size, layers, width, patch, text, parameters, tokens in [
        ("ViT-L/14@336px", 768, 336, 24, 1024, 14, 768, 427_944_193, 577),
        ("ViT-B/32", 512, 224, 12, 768, 32, 512, 151_277_313, 50),
    ]:
        with torch.device("meta"):
            model = clip.model.CLIP(embed, size, layers, width, patch, 77, 49408, text, text // 64, 12)
        assert sum(p.numel() for p in model.parameters()) == parameters, name
        assert len(model.visual.positional_embedding) == tokens
        assert cv.schedules(model.visual, [14]).keys() == {14}


@pytest.mark.slow
def test_the_full_depth_on_the_cpu():
    """The patches, blocks and merging of ViT-L/14@336px, a quarter as wide: 577 -> 14 tokens, and the frame features
    are encode_image's."""
    torch.manual_seed(0)
    visual = clip.model.VisionTransformer(336, 14, 256, 24, 4, 192).eval().requires_grad_(False)
    model = torch.nn.Module()
    model.visual = visual
    images = pictures(1, 336, 336)
    got = cv.encode_frames(model, images, cv.schedules(visual, [14]))
    assert got.frame.shape == (1, 192)
    assert got.tokens[14].shape == (1, 14, 256)
    assert got.source[14].shape == (1, 577)
    assert set(got.source[14][0].tolist()) == set(range(14))
    assert got.frame.isfinite().all()
    assert got.tokens[14].isfinite().all()
    transform = clip.clip._transform(336)
    expected = visual(transform(Image.fromarray(images[0].numpy()))[None])
    torch.testing.assert_close(got.frame, expected, atol=1e-4, rtol=1e-4)
