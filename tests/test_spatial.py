"""Spatial perception and its substitute against plain loops."""

import math

import pytest
import torch

from nets.layers import FeedForward
from nets.tspm.spatial import FramesOnly, PrintedQuery, SpatialPerception, TokenBlock
from tests.test_token_merging import naive_merge

DIM = 16


def random_weights(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.double().eval()


def test_without_spm_the_selected_frames_stand_in():
    audio, frame = torch.randn(3, 4, DIM), torch.randn(3, 4, DIM)
    index = torch.arange(4).expand(3, 4)
    stands_in, *looked = FramesOnly()(audio, frame, None, torch.arange(3), index)
    assert torch.equal(stands_in, frame)
    assert looked == [None, None, None, {}]


def linear(x, weight, bias):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def normed(x, norm):
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + norm.eps)
    return [(v - mean) / deviation * w + b for v, w, b in zip(x, norm.weight.tolist(), norm.bias.tolist(), strict=True)]


def fed(x, ffn: FeedForward):
    inner = [max(0.0, v) for v in linear(x, ffn[0].weight.tolist(), ffn[0].bias.tolist())]
    return linear(inner, ffn[3].weight.tolist(), ffn[3].bias.tolist())


def added(*lists):
    return [sum(values) for values in zip(*lists, strict=True)]


def naive_block(block: TokenBlock, tokens, sizes, r):
    """One frame's tokens (n lists of D), their sizes -> tokens, sizes and groups after a block that merges r."""
    held = block.attention
    weight, bias = held.in_proj_weight.tolist(), held.in_proj_bias.tolist()
    query, key, value = (
        [linear(x, weight[i * DIM : (i + 1) * DIM], bias[i * DIM : (i + 1) * DIM]) for x in tokens] for i in range(3)
    )
    attended = []
    for q, x in zip(query, tokens, strict=True):  # a token of size s counts as s tokens
        shares = [
            size * math.exp(sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(DIM))
            for k, size in zip(key, sizes, strict=True)
        ]
        mixed = added(*([share / sum(shares) * v for v in row] for share, row in zip(shares, value, strict=True)))
        out = linear(mixed, held.out_proj.weight.tolist(), held.out_proj.bias.tolist())
        attended.append(normed(added(x, out), block.norm1))
    groups = [[i] for i in range(len(tokens))]
    if r:
        merged, sizes, groups = naive_merge(
            torch.tensor(attended).double().numpy(), sizes, torch.tensor(key).numpy(), r
        )
        attended, sizes = merged.tolist(), sizes.tolist()
    return [normed(added(x, fed(x, block.ffn)), block.norm2) for x in attended], sizes, groups


@pytest.mark.parametrize("r", [0, 1, 3])
def test_merging_blocks_are_those_of_plain_loops(r):
    """Larger tokens weigh more; what merges is decided by the keys of the attention's input (Eq. 4)."""
    torch.manual_seed(r)
    block = random_weights(TokenBlock(DIM, 0.1, r))
    x, size = torch.randn(4, 9, DIM).double(), torch.randint(1, 6, (4, 9)).double()
    made, made_size, source = block(x, size, torch.arange(9).expand(4, 9))
    for image in range(4):
        tokens, sizes, groups = naive_block(block, x[image].tolist(), size[image].tolist(), r)
        torch.testing.assert_close(made[image], torch.tensor(tokens).double(), atol=1e-5, rtol=1e-5)
        assert made_size[image].tolist() == pytest.approx(sizes)
        for new, group in enumerate(groups):
            assert (source[image, group] == new).all()


def test_merging_follows_the_schedule_in_order():
    """Blocks that merge nothing come last; what the audio attends to is the chain of all of them."""
    torch.manual_seed(0)
    project = torch.nn.Linear(6, DIM)
    spatial = random_weights(SpatialPerception(project, DIM, 4, 0.1, (3, 2, 0), first_k=False))
    token, audio = torch.randn(2, 5, 9, 6).double(), torch.randn(2, 2, DIM).double()
    video, index = torch.tensor([1, 0]), torch.tensor([[0, 3], [2, 4]])
    made, segments, weights, source, _ = spatial(audio, torch.randn(2, 2, DIM), token, video, index)
    assert torch.equal(segments, index)
    for row in range(2):
        for k in range(2):
            tokens = project(token[video[row], index[row, k]]).tolist()
            sizes, ends = [1.0] * 9, list(range(9))
            for block, r in zip(spatial.blocks, (3, 2, 0), strict=True):
                tokens, sizes, groups = naive_block(block, tokens, sizes, r)
                ends = [next(new for new, group in enumerate(groups) if end in group) for end in ends]
            assert source[row, k].tolist() == ends
            expected, looked = spatial.audio_query(audio[row, k][None], torch.tensor(tokens).double()[None])
            torch.testing.assert_close(made[row, k], expected[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(weights[row, k], looked[0], atol=1e-5, rtol=1e-5)


def test_eq_5_as_printed_is_that_of_plain_loops():
    """Tokens + self-attention + the audio's attention, every token by itself; then their mean."""
    torch.manual_seed(0)
    query = PrintedQuery(DIM, 4, 0.1).eval()
    audio, tokens = torch.randn(3, DIM), torch.randn(3, 5, DIM)
    read, weights = query(audio, tokens)
    plain = [torch.nn.MultiheadAttention(DIM, heads, batch_first=True) for heads in (1, 4)]
    for layer, ours in zip(plain, (query.among_tokens, query.from_audio), strict=True):
        layer.load_state_dict(ours.state_dict())
    among, _ = plain[0](tokens, tokens, tokens)
    heard, looked = plain[1](audio[:, None], tokens, tokens)
    torch.testing.assert_close(weights, looked[:, 0])
    for n in range(3):
        expected = sum(tokens[n, s] + among[n, s] + heard[n, 0] for s in range(5)) / 5
        torch.testing.assert_close(read[n], expected)
