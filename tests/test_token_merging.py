"""Token merging against a naive loop, and its schedule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nets.token_merging import match_tokens, merge_schedule, merge_source, merge_tokens, tokens_after


def naive_merge(x, size, metric, r):
    """One image: tokens x (n, C), sizes, metric (n, D), all lists or arrays, r merges; one pair at a time.

    Returns the new tokens, their sizes and, for each, the list of old tokens it is made of.
    """
    n = len(x)
    a, b = list(range(0, n, 2)), list(range(1, n, 2))
    unit = [m / np.linalg.norm(m) for m in metric]
    pairs = []
    for i in a[1:]:  # never the class token
        scores = [unit[i] @ unit[j] for j in b]
        best = int(np.argmax(scores))
        pairs.append((scores[best], i, b[best]))
    joins = {j: [j] for j in b}
    gone = set()
    for _, i, j in sorted(pairs, key=lambda pair: -pair[0])[:r]:
        joins[j].append(i)
        gone.add(i)
    groups = [[i] for i in a if i not in gone] + [joins[j] for j in b]
    sizes = [sum(size[i] for i in group) for group in groups]
    tokens = [sum(x[i] * size[i] for i in group) / total for group, total in zip(groups, sizes, strict=True)]
    return np.array(tokens), np.array(sizes), groups


problems = st.tuples(st.integers(3, 24), st.integers(0, 2**31 - 1)).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.integers(1, (pair[0] - 1) // 2), st.just(pair[1]))
)


def draw(n, seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(2, n, 5)), random.integers(1, 9, (2, n)).astype(float), random.normal(size=(2, n, 4))


@settings(max_examples=60, deadline=None)
@given(problems)
def test_equals_a_naive_loop(problem):
    n, r, seed = problem
    x, size, metric = draw(n, seed)
    matching = match_tokens(torch.tensor(metric), r)
    got, got_size = merge_tokens(torch.tensor(x), torch.tensor(size), matching)
    source = merge_source(torch.arange(n).expand(2, n), matching)
    for image in range(2):
        tokens, sizes, groups = naive_merge(x[image], size[image], metric[image], r)
        np.testing.assert_allclose(got[image], tokens, atol=1e-5)
        np.testing.assert_allclose(got_size[image], sizes)
        for new, group in enumerate(groups):
            assert (source[image, group] == new).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 60), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_mass_class_token_and_sources_through_blocks(tokens, r, blocks, seed):
    """Sizes always sum to M; the class token is left alone at position 0; sources count what sizes say."""
    x, _, _ = draw(tokens, seed)
    x = torch.tensor(x)
    first = x[:, 0].clone()
    size = torch.ones(2, tokens, dtype=x.dtype)
    source = torch.arange(tokens).expand(2, tokens)
    for _ in range(blocks):
        step = x.shape[1] - tokens_after(x.shape[1], r)
        if step:
            matching = match_tokens(x, step)
            x, size = merge_tokens(x, size, matching)
            source = merge_source(source, matching)
    torch.testing.assert_close(size.sum(1), torch.full((2,), tokens, dtype=size.dtype))
    torch.testing.assert_close(x[:, 0], first, atol=1e-6, rtol=0)
    assert (size[:, 0] == 1).all()
    for image in range(2):
        assert source[image, 0] == 0
        counts = torch.bincount(source[image], minlength=x.shape[1])
        torch.testing.assert_close(counts.to(size.dtype), size[image])


def test_mean_is_that_of_all_that_merged():
    """Merging twice by size equals the mean over the original tokens, wherever they went."""
    x, _, metric = draw(20, 0)
    original = torch.tensor(x)
    tokens, size, source = original, torch.ones(2, 20, dtype=torch.float64), torch.arange(20).expand(2, 20)
    for step in (5, 6, 3):
        matching = match_tokens(torch.tensor(metric)[:, : tokens.shape[1]], step)
        tokens, size = merge_tokens(tokens, size, matching)
        source = merge_source(source, matching)
    for image in range(2):
        for new in range(tokens.shape[1]):
            expected = original[image, source[image] == new].mean(0)
            torch.testing.assert_close(tokens[image, new], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_keeps_the_dtype(dtype):
    x, size, metric = (torch.tensor(array) for array in draw(9, 1))
    merged, sizes = merge_tokens(x.to(dtype), size.float(), match_tokens(metric.to(dtype), 4))
    assert merged.dtype == dtype
    assert sizes.dtype == torch.float32


def test_autocast_changes_neither_the_pairs_nor_the_means():
    x, size, metric = (torch.tensor(array).float() for array in draw(60, 2))
    expected = match_tokens(metric, 20)
    with torch.autocast("cpu", torch.bfloat16):
        matching = match_tokens(metric, 20)
        merged = merge_tokens(x, size, expected)
    for ours, theirs in zip((*matching, *merged), (*expected, *merge_tokens(x, size, expected)), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("wanted", "blocks"), [(27, 22), (14, 23), (8, 24)])
def test_schedule_of_the_paper(wanted, blocks):
    """r = 25 over 22, 23 and 24 blocks leaves 27, 14 and 8 of 577 tokens."""
    schedule = merge_schedule(577, wanted, 24)
    count = 577
    for _ in range(blocks):
        count = tokens_after(count, 25)
    assert count == wanted
    assert 577 - sum(schedule) == wanted
    assert len(schedule) == 24
    assert schedule[:22] == (25,) * 22
    assert schedule[blocks:] == (0,) * (24 - blocks)


@given(st.integers(2, 60), st.integers(1, 60), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_schedule_follows_its_rule(tokens, wanted, blocks):
    """Against all (n, r) tried one by one: the largest n, then the smallest r."""

    def left(n, r):
        count = tokens
        for _ in range(n):
            count -= min(r, (count - 1) // 2)
        return count

    options = [(n, r) for n in range(1, blocks + 1) for r in range(1, tokens) if left(n, r) == wanted]
    if wanted == tokens:
        assert merge_schedule(tokens, wanted, blocks) == (0,) * blocks
    elif options:
        n, r = max(options, key=lambda option: (option[0], -option[1]))
        schedule = merge_schedule(tokens, wanted, blocks)
        counts = [left(i, r) for i in range(n + 1)]
        assert schedule == tuple(counts[i] - counts[i + 1] for i in range(n)) + (0,) * (blocks - n)
    else:
        with pytest.raises(ValueError, match="cannot be reached"):
            merge_schedule(tokens, wanted, blocks)


@pytest.mark.parametrize("wanted", [1, 5, 11])
def test_unreachable_count_lists_the_reachable(wanted):
    with pytest.raises(ValueError, match=f"{wanted} of 10 tokens cannot be reached in 2 blocks; these can: 4, 6-9$"):
        merge_schedule(10, wanted, 2)
