"""The parts of the attacks of our own: losses, projections, the scheduler."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import SHAPE, images, seeded
from torch import Tensor

from bench.attacks.adaptive.batch_scheduler import run
from bench.attacks.adaptive.losses import Aim, image_losses, row_losses, unbroken, unbroken_combined
from bench.attacks.adaptive.projections import direction, project
from bench.spec.threat import Norm

ITEM, COPIES = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3, 2])


def aim(towards: bool = False) -> Aim:
    return Aim(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([towards, towards]))


def test_ce_is_the_log_odds_of_the_mean_probability() -> None:
    z = seeded(5, 6)
    p = z.softmax(1)
    away = torch.stack([p[:3, 0].mean(), p[3:, 1].mean()])
    near = torch.stack([p[:3, 2].mean(), p[3:, 3].mean()])
    assert torch.allclose(image_losses("ce", z, aim(), ITEM, COPIES), -away.logit(), atol=1e-6)
    assert torch.allclose(image_losses("ce", z, aim(True), ITEM, COPIES), near.logit(), atol=1e-6)
    means = torch.stack([z[:3].mean(0), z[3:].mean(0)]).softmax(1)
    assert torch.allclose(image_losses("ce-logits", z, aim(), ITEM, COPIES), -means[[0, 1], [0, 1]].logit(), atol=1e-6)


def test_ce_keeps_its_gradient_where_the_probability_rounds_to_one() -> None:
    z = torch.tensor([[60.0, 0.0, 0.0], [80.0, 1.0, 0.0]], requires_grad=True)
    one = Aim(torch.tensor([0]), torch.tensor([1]), torch.tensor([False]))
    image_losses("ce", z, one, torch.tensor([0, 0]), torch.tensor([2])).backward()
    assert z.grad is not None
    assert z.grad[0, 0] < -0.1


def test_margin_and_dlr() -> None:
    z = torch.tensor([[5.0, 1.0, 3.0, 2.0]])
    one = Aim(torch.tensor([0]), torch.tensor([3]), torch.tensor([False]))
    to = Aim(one.y, one.t, torch.tensor([True]))
    assert row_losses("margin", z, one).item() == -2
    assert row_losses("margin", z, to).item() == -3
    assert abs(row_losses("dlr", z, one).item() + 2 / 3) < 1e-6  # (3 - 5) / (5 - 2)
    assert abs(row_losses("dlr", z, to).item() + 3 / 3.5) < 1e-6  # (2 - 5) / (5 - (2 + 1) / 2)


def test_combined_predictions_by_simulation() -> None:
    """Means of S copies of noisy logits: the share that is right is that of the normal law, with caution."""
    torch.manual_seed(0)
    for mean in (-1.0, -0.3, 0.0, 0.4):
        z = torch.randn(4000, 2) * 0.7
        z[:, 0] += mean
        item, copies = torch.zeros(4000, dtype=torch.int64), torch.tensor([4000])
        one = Aim(torch.tensor([0]), torch.tensor([1]), torch.tensor([False]))
        told = unbroken_combined(z, one, item, copies, 10).item()
        real = (z.view(400, 10, 2).mean(1).argmax(1) == 0).float().mean().item()
        assert real - 0.05 <= told <= real + 0.09
        assert unbroken(z, one, item, copies).item() == (z.argmax(1) == 0).float().mean().item()


@settings(max_examples=60)
@given(
    norm=st.sampled_from(["Linf", "L2", "L1"]),
    eps=st.floats(0.01, 30),
    scale=st.floats(0.01, 3),
    seed=st.integers(0, 99),
)
def test_projection(norm: Norm, eps: float, scale: float, seed: int) -> None:
    x = images(5, seed=seed)
    moved = x + scale * seeded(*x.shape, seed=seed + 100)
    inside = project(x, moved, norm, eps)
    size = {"Linf": torch.inf, "L2": 2, "L1": 1}[norm]
    length = (inside - x).double().flatten(1).norm(p=size, dim=1)
    assert (length <= eps + max(1e-6, 1e-5 * eps)).all()
    assert ((inside >= 0) & (inside <= 1)).all()
    assert torch.allclose(project(x, inside, norm, eps), inside, atol=1e-5)
    if norm != "L2":  # the nearest point: no other of the set lies on the far side
        other = project(x, x + seeded(*x.shape, seed=seed + 200), norm, eps)
        assert (((moved - inside) * (other - inside)).flatten(1).sum(1) <= 1e-3 * max(1, scale)).all()


def test_directions_have_size_one() -> None:
    gradient, sparse = seeded(4, *SHAPE), torch.tensor([0.01, 0.1, 0.5, 1.0])
    sizes = {"Linf": torch.inf, "L2": 2, "L1": 1}
    for norm, p in sizes.items():
        way = direction(gradient, norm, sparse)  # type: ignore[arg-type]
        assert torch.allclose(way.flatten(1).norm(p=p, dim=1), torch.ones(4))
        assert (direction(torch.zeros_like(gradient), norm, sparse) == 0).all()  # type: ignore[arg-type]
    assert ((direction(gradient, "L1", sparse) != 0).flatten(1).sum(1) == torch.tensor([1, 6, 32, 64])).all()


class Counting:
    """Items that take calls of two kinds, as many as each has to, with copies of its own."""

    def __init__(self, lengths: Tensor, copies: Tensor):
        self.left, self.copies, self.calls = lengths.clone(), copies, torch.zeros_like(lengths)

    def demand(self) -> tuple[Tensor, Tensor]:
        return torch.where(self.left > 0, self.left % 2, -1), self.copies

    def advance(self, kind: int, items: Tensor) -> None:
        assert (self.left[items] % 2 == kind).all()
        assert (self.left[items] > 0).all()
        self.left[items] -= 1
        self.calls[items] += 1


@settings(max_examples=50)
@given(n=st.integers(1, 40), rows=st.integers(1, 64), seed=st.integers(0, 1000))
def test_every_item_gets_its_calls(n: int, rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 20, (n,), generator=generator)
    copies = torch.randint(1, 8, (n,), generator=generator)
    program = Counting(lengths, copies)
    tally = run(program, lambda: rows)
    assert torch.equal(program.calls, lengths)
    assert tally.rows == int((lengths * copies).sum())


def test_batches_stay_full_while_items_finish_at_different_times() -> None:
    lengths = torch.randint(1, 60, (500,), generator=torch.Generator().manual_seed(0))
    tally = run(Counting(lengths, torch.full((500,), 4)), lambda: 128)
    assert tally.rows / tally.room > 0.95
