"""The layers: each is the library's, or the formula written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets.layers import (
    Dropout,
    ManyHeadAttention,
    QueryAttention,
    SingleHeadAttention,
    StandardizedLinear,
    attention_weights,
)
from nets.tspm.temporal import TemporalPerception


def random_attention(made: nn.Module, reference: nn.MultiheadAttention) -> None:
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    reference.load_state_dict(made.state_dict())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_single_head_attention_is_the_library_s(dropout):
    torch.manual_seed(0)
    made, reference = SingleHeadAttention(16, dropout), nn.MultiheadAttention(16, 1, batch_first=True)
    random_attention(made, reference)
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    torch.testing.assert_close(made.eval()(x, y), reference(x, y, y)[0], atol=1e-5, rtol=1e-5)
    if dropout:  # the mean over many masks is the value without dropout, the value bias included
        made.train()
        mean = torch.stack([made(x, y) for _ in range(4000)]).mean(dim=0)
        torch.testing.assert_close(mean, reference(x, y, y)[0], atol=0.15, rtol=0)


def test_query_attention_is_the_library_s():
    torch.manual_seed(0)
    made, reference = QueryAttention(16, 4, 0.3).eval(), nn.MultiheadAttention(16, 4, batch_first=True)
    random_attention(made, reference)
    x, y = torch.randn(3, 2, 16), torch.randn(3, 7, 16)
    expected, weights = reference(x, y, y)
    attended, ours = made(x, y)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, weights)


def test_many_head_attention_is_the_library_s():
    torch.manual_seed(0)
    made, reference = ManyHeadAttention(16, 4, 0.3).eval(), nn.MultiheadAttention(16, 4, batch_first=True)
    random_attention(made, reference)
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    torch.testing.assert_close(made(x, y), reference(x, y, y)[0], atol=1e-5, rtol=1e-5)


def test_initial_weights_are_distributed_as_the_library_s():
    torch.manual_seed(0)
    made, reference = SingleHeadAttention(64, 0.0), nn.MultiheadAttention(64, 1)
    for name, parameter in reference.named_parameters():
        ours = made.get_parameter(name)
        assert ours.shape == parameter.shape
        torch.testing.assert_close(ours.std(), parameter.std(), atol=1e-8, rtol=0.05)
    temporal = TemporalPerception(10, 64, heads=4, top_k=4)
    torch.testing.assert_close(temporal.key.weight.std(), reference.in_proj_weight.std(), atol=0, rtol=0.05)


def test_a_standardised_layer_is_linear_in_standardised_features():
    torch.manual_seed(0)
    x = (3 * torch.randn(5, 40, 6) + 7).half()  # as stored
    x[..., 2] = 0  # never changes
    layer = StandardizedLinear(6, 4)
    assert torch.equal(layer(x.float()), F.linear(x.float(), layer.weight, layer.bias))  # nothing measured: as it is
    layer.measure(x)  # part by part
    rows = x.double().flatten(0, 1)
    deviation = rows.std(dim=0, correction=0)
    expected = (x.double() - rows.mean(dim=0)) / torch.where(deviation > 0, deviation, 1)
    expected = F.linear(expected, layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(layer(x.float()).double(), expected, atol=1e-5, rtol=1e-5)
    other = StandardizedLinear(6, 4)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x.float()), layer(x.float()))


def test_attention_weights_sum_to_one_by_head():
    weights = attention_weights(torch.randn(2, 3, 8), torch.randn(8, 8), torch.randn(2, 5, 8), heads=4)
    assert weights.shape == (2, 3, 4, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    layer, x = Dropout(rate), torch.ones(1001, 999, requires_grad=True)
    y = layer(x)
    assert abs((y == 0).float().mean() - rate) < 0.002
    assert abs(y.mean() - 1) < 0.005
    y.sum().backward()
    assert torch.equal(x.grad, y)
    torch.manual_seed(0)
    assert torch.equal(layer(x), y)
    assert layer.eval()(x) is x


def dropped_by_hand(made, query, keys, heads):
    """`nn.MultiheadAttention`'s own way, all projected and dropped after the softmax, with the layer's own draws."""
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (query, keys, keys), made.in_proj_weight.chunk(3), made.in_proj_bias.chunk(3), strict=True
        )
    )
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)  # (N, H, Q, L)
    torch.manual_seed(1)
    kept = made.dropout(weights.transpose(1, 2).contiguous()).transpose(1, 2)
    assert (kept == 0).any()
    return made.out_proj((kept @ v).transpose(1, 2).flatten(2)), weights.mean(dim=1)


@pytest.mark.parametrize("made", [SingleHeadAttention(16, 0.5), QueryAttention(16, 4, 0.5)])
def test_dropped_weights_weigh_the_values_and_their_bias(made):
    torch.manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    query, keys = torch.randn(3, 2, 16), torch.randn(3, 7, 16)
    expected, weights = dropped_by_hand(made, query, keys, getattr(made, "heads", 1))
    torch.manual_seed(1)
    attended = made(query, keys)
    if isinstance(attended, tuple):
        attended, ours = attended
        torch.testing.assert_close(ours, weights)  # as they were before dropout
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)
