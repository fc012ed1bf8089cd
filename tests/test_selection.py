"""Stage 3 that learns when: its scores, its gates and their gradients, and the oracle in its place."""

import torch
from torch.nn.functional import cosine_similarity, normalize

from nets.tspm.temporal import Evidence, LearnedSelection, Perturbed, Similarity, weighting


def test_the_gradient_of_the_selection_is_that_of_finite_differences():
    torch.manual_seed(0)
    stage = LearnedSelection(6, 6, 4, 3, sounds=True, similar=True, gate=weighting).double()
    torch.nn.init.normal_(stage.key.weight)
    prompt, seen, heard, audio, frame = (
        torch.randn(*shape).double() for shape in [(2, 6), *[(2, 5, 6)] * 2, *[(2, 5, 4)] * 2]
    )
    heard = normalize(heard, dim=-1)

    def gate(*x):
        return stage(Evidence(*x, torch.arange(2)))[2]

    given = [x.requires_grad_() for x in (prompt, seen, heard, audio, frame)]
    assert torch.autograd.gradcheck(gate, given)


def test_the_first_selection_is_clip_s_own():
    stage = LearnedSelection(6, 6, 4, 2, sounds=False, similar=True, gate=weighting)
    prompt, seen, asked = torch.randn(3, 6), torch.randn(2, 5, 6), torch.tensor([0, 1, 0])
    projected = torch.randn(2, 5, 4)
    given = Evidence(prompt, seen, None, projected, projected, asked)
    weights, index, gate = stage(given)
    cosine = cosine_similarity(prompt[:, None], seen[asked], dim=-1)
    torch.testing.assert_close(weights, (10 * cosine).softmax(dim=-1))
    for one, same in zip((weights, index, gate), Similarity(2)(given), strict=True):
        torch.testing.assert_close(one, same)
    torch.testing.assert_close(gate.mean(dim=1), torch.ones(3, 1))


def test_the_oracle_selects_true_segments_before_others_and_weighs_them_alone():
    prompt, seen, asked = torch.randn(3, 6), torch.randn(2, 5, 6), torch.tensor([0, 1, 0])
    given = Evidence(prompt, seen, None, seen, seen, asked)
    true = torch.tensor([[0, 0, 0, 1, 0], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    _, index, gate = Similarity(2)(given._replace(true=true))
    assert 3 in index[0]
    assert set(index[1].tolist()) < {0, 1, 4}
    torch.testing.assert_close(gate[0, :, 0], 2.0 * (index[0] == 3))
    for told in (None, torch.zeros_like(true)):  # nobody knows
        for one, same in zip(Similarity(2)(given._replace(true=told)), Similarity(2)(given), strict=True):
            torch.testing.assert_close(one, same)


def test_a_perturbed_gate_learns_what_is_nearly_selected():
    torch.manual_seed(0)
    scores = torch.tensor([[2.0, 1.0, 0.9, -3.0]], requires_grad=True)
    gate = Perturbed()
    weights = gate(scores, torch.tensor([[0, 1]]))
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert weights[0, 0] > weights[0, 1]
    weights[0, 1].sum().backward()
    assert scores.grad[0, 1] > 0 > scores.grad[0, 0]
    assert torch.equal(gate.eval()(scores, torch.tensor([[0, 1]])), torch.ones(1, 2, 1))


def test_a_perturbed_gate_is_finite_where_noise_selects_none_of_the_selected():
    torch.manual_seed(0)
    scores = torch.zeros(50, 60, requires_grad=True)
    gate = Perturbed()(scores, torch.zeros(50, 1, dtype=torch.long))
    assert {*gate.flatten().tolist()} == {0.0, 1.0}
    gate.sum().backward()
    assert scores.grad.isfinite().all()
