"""Keyed noise: addressed by integers, independent, of the right law, and apart from the global generators."""

import math

import pytest
import torch
from scipy import stats

from defenses.core.noise import Draw, Noise


def test_rows_do_not_depend_on_their_company():
    noise, spec = Noise.of(3, 40), Draw((2, 5))
    together = noise.draw(spec, range(6))
    assert torch.equal(noise.rows(torch.tensor([7, 31])).draw(spec, range(6)), together[:, [7, 31]])
    assert torch.equal(Noise.of(3, [31, 7]).draw(spec, range(6)), together[:, [31, 7]])


def test_steps_do_not_depend_on_how_many_are_drawn_at_once():
    noise, spec = Noise.of(3, 4), Draw((3, 3, 3))  # an odd number of values
    together = noise.draw(spec, range(10))
    for k in range(10):
        assert torch.equal(noise.draw(spec, range(k, k + 1))[0], together[k])
    assert torch.equal(noise.draw(spec), together[0])


def test_large_batches_are_drawn_in_passes_with_the_same_values():
    noise = Noise.of(1, 600)
    many = noise.draw(Draw((1000,)))
    assert torch.equal(many[450], noise.rows(slice(450, 451)).draw(Draw((1000,)))[0])


@pytest.mark.parametrize(
    ("kind", "law"),
    [("normal", stats.norm.cdf), ("uniform", stats.uniform.cdf)],
)
def test_law(kind, law):
    values = Noise.of(11, 300).draw(Draw((400,), kind)).flatten().double().numpy()
    assert stats.kstest(values, law).pvalue > 0.01
    assert math.isfinite(values.max())


def test_rademacher_is_fair():
    values = Noise.of(5, 100).draw(Draw((1000,), "rademacher"))
    assert set(values.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(values.mean())) < 4 / math.sqrt(values.numel())


def test_streams_are_uncorrelated():
    """Over neighbouring rows, steps, seeds, children and copies; 4 standard deviations."""
    n = 20_000
    spec, base = Draw((n,)), Noise.of(0, 2)
    others = [
        base.draw(spec)[1],
        base.draw(spec, range(1, 2))[0, 0],
        Noise.of(1, 1).draw(spec)[0],
        base.child(0).draw(spec)[0],
        base.child(1).draw(spec)[0],
        base.child(0, 1).draw(spec)[0],
        base.child(1, 0).draw(spec)[0],
        base.copies(2).draw(spec)[1],
    ]
    rows = torch.stack([base.draw(spec)[0], *others])
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 4 / math.sqrt(n)


def test_pairs_within_a_row_are_uncorrelated():
    z = Noise.of(2, 2000).draw(Draw((64,)))
    correlation = torch.corrcoef(z.T) - torch.eye(64)
    assert correlation.abs().max() < 5 / math.sqrt(2000)


def test_keys_do_not_collide():
    keys = torch.cat([Noise.of(s, 2000).child(c).keys for s in range(10) for c in range(10)])
    assert len(torch.unique(keys[:, 0])) == len(keys)


def test_large_and_negative_numbers_are_addresses_too():
    a, b = Noise.of(2**63 + 5, 2).child(2**40), Noise.of(-1, 2).child(0)
    assert not torch.equal(a.keys, b.keys)


def test_global_generators_are_left_alone():
    state = torch.random.get_rng_state()
    Noise.of(0, 10).copies(3).draw(Draw((10,)), range(5))
    assert torch.equal(state, torch.random.get_rng_state())
