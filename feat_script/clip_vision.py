"""CLIP's visual transformer with token merging inside (ToMe), on the modules and weights of `clip-anytorch`.

N frames, M = 1 + patches tokens of a frame (the class token first), S wanted of them, C the width.

A block is `x + attention(ln_1(x))`, then merging by the keys of that attention, then `x + mlp(ln_2(x))`. A merged token
speaks for as many patches as its size, so log size is added to the attention's logits (proportional attention).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import utils.torchvision_cpu  # noqa: F401 - before clip, which imports torchvision

# isort: split
import clip

from feat_script.vggish import bare_state
from nets.token_merging import match_tokens, merge_schedule, merge_source, merge_tokens
from utils.errors import UserError
from utils.files import sha256

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
MOST = 256  # merged tokens that a source map of bytes can tell apart
BATCH = 64  # sentences encoded at once


class Features(NamedTuple):
    """What one pass over N frames gives."""

    frame: Tensor  # (N, D) the projected class token, unmerged, not normalised
    tokens: dict[int, Tensor]  # S -> (N, S, C) after `ln_post`
    source: dict[int, Tensor]  # S -> (N, M) in which of the S tokens each of the M ended; absent where S = M


def load_clip(name_or_path: str, device: str | torch.device):
    """Load a CLIP with a visual transformer; return (model, name, SHA-256 of its file).

    A name of `clip.available_models()` is downloaded into clip's cache and verified; a path may hold a JIT archive or a
    state_dict, wrapped or not; a public file keeps its public name. Weights are float16 on CUDA, float32 on the CPU.
    Raises `UserError` for an unknown name, a failed download, a file that holds no CLIP, and a CLIP with a ResNet.
    """
    urls = clip.clip._MODELS
    public = {Path(url).parent.name: name for name, url in urls.items()}  # the addresses hold the digests
    if name_or_path in urls:
        try:
            path = clip.clip._download(urls[name_or_path], os.path.expanduser("~/.cache/clip"))
            digest = Path(urls[name_or_path]).parent.name
        except (OSError, RuntimeError) as error:  # no connection, a full disk; or another digest than the address says
            raise UserError(
                f"{urls[name_or_path]}: download failed ({error}); fetch it by hand and give --clip FILE"
            ) from error
    elif Path(name_or_path).is_file():
        path, digest = name_or_path, sha256(name_or_path)
    else:
        raise UserError(f"--clip {name_or_path}: neither a file nor one of {', '.join(urls)}")
    try:
        try:
            state = torch.jit.load(path, map_location="cpu").state_dict()
        except RuntimeError:  # no JIT archive
            state = bare_state(torch.load(path, map_location="cpu", weights_only=True))
        model = clip.clip.build_model(state).to(device)
    except Exception as error:  # clip trips over a foreign file in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--clip {name_or_path}: cannot be loaded as a CLIP ({type(error).__name__}: {reason})"
        ) from error
    if torch.device(device).type == "cpu":
        model.float()
    if not hasattr(model.visual, "transformer"):
        raise UserError(f"--clip {name_or_path}: has a ResNet, which has no tokens to merge; use a ViT")
    return model.requires_grad_(False), public.get(digest, Path(name_or_path).stem), digest


def schedules(visual, tokens: list[int]) -> dict[int, tuple[int, ...]]:
    """The merge schedule, tokens merged away by each block, for every number of tokens wanted.

    Raises `UserError` where a number cannot be reached, or is too large for a source map.
    """
    found = {}
    for wanted in tokens:
        try:
            found[wanted] = merge_schedule(len(visual.positional_embedding), wanted, len(visual.transformer.resblocks))
        except ValueError as error:
            raise UserError(f"--tokens {wanted}: {error}") from error
        if wanted > MOST and any(found[wanted]):
            raise UserError(
                f"--tokens {wanted}: at most {MOST} merged tokens can be told apart in a source map of bytes"
            )
    return found


def fit_image(image: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Make an image (H, W, 3) uint8 square, (size, size, 3), bicubic.

    "crop" is CLIP's own preparation, the short side to `size` and the centre of the long one; "squash" keeps the whole
    picture and gives up its proportions.
    """
    picture = Image.fromarray(image)
    width, height = picture.size
    if fit == "squash":
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    short = min(width, height)
    width, height = (int(size * width / short), int(size * height / short))  # as torchvision rounds
    left, top = round((width - size) / 2), round((height - size) / 2)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@torch.inference_mode()
def encode_frames(model, images: Tensor, merging: dict[int, tuple[int, ...]]) -> Features:
    """Encode frames (N, H, W, 3) uint8, square and of the model's size, merged by each of the schedules.

    Schedules that begin alike share the blocks that they share, so several cost little more than one.
    """
    visual = model.visual
    x = images.to(visual.conv1.weight.device).permute(0, 3, 1, 2).float() / 255
    x = (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(STD)[:, None, None]
    x = visual.conv1(x.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (N, M - 1, C)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding.to(x.dtype))  # (N, M, C)
    n, m, _ = x.shape

    plain = (0,) * len(visual.transformer.resblocks)
    Branch = tuple[Tensor, Tensor | None, Tensor]  # tokens, sizes, sources
    branches: dict[tuple[int, ...], Branch] = {(): (x, None, torch.arange(m, device=x.device).expand(n, m))}
    for depth, block in enumerate(visual.transformer.resblocks):
        ways = {schedule[: depth + 1] for schedule in {plain, *merging.values()}}
        grown: dict[tuple[int, ...], Branch] = {}
        for done, (x, size, source) in branches.items():
            attended, key = _attention(block.attn, block.ln_1(x), size)
            attended += x
            for way in sorted(way for way in ways if way[:-1] == done):
                grown[way] = _merge_and_mlp(block, attended, size, source, key, way[-1])
        branches = grown

    frame = visual.ln_post(branches[plain][0][:, 0]) @ visual.proj
    tokens = {wanted: visual.ln_post(branches[schedule][0]) for wanted, schedule in merging.items()}
    sources = {wanted: branches[schedule][2] for wanted, schedule in merging.items() if any(schedule)}
    return Features(frame, tokens, sources)


def _attention(attn, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Multi-head self-attention of x (N, n, C) -> output (N, n, C), keys averaged over the heads (N, n, C / heads)."""
    qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).unflatten(-1, (3, attn.num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (N, heads, n, C / heads) each
    bias = None if size is None else size.log().to(x.dtype)[:, None, None]
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attn.out_proj(y.transpose(1, 2).flatten(2)), key.mean(dim=1)


def _merge_and_mlp(block, x: Tensor, size: Tensor | None, source: Tensor, key: Tensor, r: int):
    """Merge r tokens away by their keys, then the block's second half."""
    if r:
        matching = match_tokens(key, r)
        size = torch.ones(x.shape[:2], device=x.device) if size is None else size
        x, size = merge_tokens(x, size, matching)
        source = merge_source(source, matching)
    return x + block.mlp(block.ln_2(x)), size, source


def count_tokens(sentence: str) -> int:
    """How many tokens CLIP's text encoder is given for a sentence, the two that mark its ends included."""
    return len(clip.clip._tokenizer.encode(sentence)) + 2


def encode_sentences(model, sentences: list[str], truncate: bool = False) -> np.ndarray:
    """CLIP's text features (N, D) float32 of N sentences, not normalised.

    Every batch has the same size, the last filled up, so that a sentence's features do not depend on the others.
    A sentence of more tokens than the model reads is cut to them by `truncate`, else a `RuntimeError` of clip.
    """
    return _in_batches(model.encode_text, model, sentences, truncate).float().numpy()


def encode_words(model, sentences: list[str], truncate: bool = False) -> np.ndarray:
    """The states (N, 77, Dw) float16 in which CLIP's text transformer leaves all 77 places of N sentences.

    After `ln_final`, not projected; what comes after a sentence's end is there too. Batches as in `encode_sentences`.
    """

    def states(ids: Tensor) -> Tensor:
        x = model.token_embedding(ids).to(model.dtype) + model.positional_embedding.to(model.dtype)
        return model.ln_final(model.transformer(x.transpose(0, 1)).transpose(0, 1)).half()

    return _in_batches(states, model, sentences, truncate).numpy()


@torch.inference_mode()
def _in_batches(encode: Callable[[Tensor], Tensor], model, sentences: list[str], truncate: bool) -> Tensor:
    device = model.visual.conv1.weight.device
    rows = []
    for begin in range(0, len(sentences), BATCH):
        chosen = sentences[begin : begin + BATCH]
        ids = clip.tokenize(chosen, model.context_length, truncate)
        ids = torch.cat([ids, ids[-1:].expand(BATCH - len(ids), -1)])
        rows.append(encode(ids.to(device))[: len(chosen)].cpu())
    return torch.cat(rows)
