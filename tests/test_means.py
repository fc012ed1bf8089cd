"""The baselines against plain loops."""

import pytest
import torch

from tests.test_model import inputs, small


def linear(layer, x):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return torch.tensor(
        [sum(w * v for w, v in zip(row, x.tolist(), strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    )


@pytest.mark.parametrize("means_of", [["audio", "frame"], ["frame"], ["audio"], []])
def test_means_are_those_of_plain_loops(means_of):
    """Eq. 6-7 with the means over all segments in place of what was looked at; w/o features `tanh(q)`."""
    model, given = small(network="means", means_of=means_of).eval(), inputs()
    given["asked"] = torch.tensor([3, 0, 3, 1, 2])  # of five questions two are about one video
    with torch.no_grad():
        logits = model(**given).logits
    for row, video in enumerate(given["asked"].tolist()):
        streams = []
        for kind in means_of:
            projected = [linear(model.projections[kind], segment) for segment in given[kind][video]]
            streams.append(sum(projected) / len(projected))
        q = linear(model.question, given["text"][given["question"][row]])
        fused = linear(model.fusion.fuse, torch.cat(streams).tanh()) * q if means_of else q
        torch.testing.assert_close(logits[row], linear(model.fusion.classifier, fused.tanh()), atol=1e-5, rtol=1e-5)
