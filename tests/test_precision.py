"""Selections are the same in every precision."""

import pytest
import torch

from nets.network import build
from nets.tspm.options import TSPMOptions
from tests.test_model import inputs, sizes_of, small
from utils.numerics import autocast, set_precision


def test_bfloat16_selects_what_float32_selects_but_for_near_ties():
    """With scores in bfloat16 most selections would differ."""
    torch.manual_seed(0)
    sizes = sizes_of(60, 128, 768, tokens=2, token=8, text=768)
    model, given = build(TSPMOptions(tokens=2), sizes, 42).eval(), inputs(32, sizes)
    with torch.no_grad():
        exact = model(**given)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(**given)
    assert rough.segment_weights.dtype == torch.float32
    torch.testing.assert_close(rough.segment_weights, exact.segment_weights, rtol=1e-5, atol=1e-7)
    assert torch.equal(rough.selected, exact.selected)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_as_rough_as_was_asked(precision, dtype):
    model, given = small().eval(), inputs()
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        assert model(**given).logits.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_tf32_selects_what_float32_selects_but_for_near_ties():
    torch.manual_seed(0)
    sizes = sizes_of(60, 128, 768, tokens=2, token=8, text=768)
    model = build(TSPMOptions(tokens=2), sizes, 42).eval().cuda()
    given = {name: x.cuda() for name, x in inputs(32, sizes).items()}
    seen = {}
    with torch.no_grad():
        for precision in ("fp32", "tf32"):
            set_precision(precision, "cuda")
            seen[precision] = model(**given)
    set_precision("fp32", "cuda")
    kth = seen["fp32"].segment_weights.sort(dim=1, descending=True).values
    clear = (kth[:, 9] - kth[:, 10]) / kth[:, 9] > 1e-3
    assert clear.any()
    assert torch.equal(seen["tf32"].selected[clear], seen["fp32"].selected[clear])
