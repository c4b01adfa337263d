"""Out of memory: fewer rows at once give the same answers and gradients, and it is said."""

import numpy as np
import pytest
import torch
from boards import MODELS
from torch import nn

from bench.analysis.results import load_cells, load_results
from bench.board.load import load_board
from bench.evaluation.batching import BatchLimit, batch_limit, is_out_of_memory
from bench.evaluation.verdict import verdict
from bench.evaluation.view import attack_view
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.tables import write_tables
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Purified, UserModule
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier

HUNGRY = '''

class Held:
    """Rows that a graph holds, as memory would be."""

    total = 0

    def __init__(self, rows, room):
        self.rows = rows
        Held.total += rows
        if Held.total > room:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    def __del__(self):
        Held.total -= self.rows


class Holding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, room, backward_room):
        ctx.held, ctx.room = Held(len(x), room), backward_room
        return x * 1.0

    @staticmethod
    def backward(ctx, grad):
        if Held.total > ctx.room:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return grad, None, None


class Hungry(nn.Module):
    """A network whose graphs hold at most `room` rows, and that goes back through at most `backward_room`."""

    def __init__(self, room=1 << 30, backward_room=1 << 30):
        super().__init__()
        self.inner, self.room, self.backward_room = linear(), room, backward_room
        self.eval()

    def forward(self, x):
        return self.inner(Holding.apply(x, self.room, self.backward_room))


def free():
    return Hungry()


def tight():
    return Hungry(backward_room=6)


def step(view, x, y, *, threat, **_):
    v = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(view(v), y, reduction="sum").backward()
    return (x + float(threat.eps) * v.grad.sign()).clamp(0, 1)
'''
SOURCE: dict = {}
exec(compile(MODELS + HUNGRY, "hungry", "exec"), SOURCE)
Held, Hungry = SOURCE["Held"], SOURCE["Hungry"]


class Jitter(Purifier):
    steps = 1

    def noise(self, shape):
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x, z):
        return {"u": x + 0.1 * z[0]}, {}

    def step(self, state, ctx, k, z):
        return {"u": state["u"].square()}

    def finish(self, state, ctx):
        return state["u"]


def defense(room: int, *, random: bool, backward_room: int = 1 << 30) -> Classifier | Purified:
    classifier = Classifier(Hungry(room, backward_room), num_classes=10, input_shape=(1, 8, 8))
    return Purified(Jitter(), classifier, runs=2) if random else classifier


def images(n: int = 12) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def answers(room: int, spec: ViewSpec, *, random: bool) -> tuple:
    """(logits without and with grad, gradient twice over by `grad`, by `backward`, rows at once)."""
    x, weights = images(), torch.linspace(-1, 1, 10)
    memory = BatchLimit()
    with attack_view(defense(room, random=random), spec, seed=3, memory=memory) as (view, _):
        with torch.no_grad():
            plain = view(x)
        at = x.clone().requires_grad_()
        logits = view(at)
        loss = (logits * weights).sum() + logits.square().sum()
        first = torch.autograd.grad(loss, at, retain_graph=True)[0]
        second = torch.autograd.grad(loss, at)[0]
        view(at).square().sum().backward()
        return plain, logits.detach(), first, second, at.grad, memory.limit


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal but for rounding, which differs with the rows of a batch and from one kind of CPU to another."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=max(1e-4, 1e-5 * float(other.abs().amax())))


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("spec", [ViewSpec(), ViewSpec(eot=3, runs=1), ViewSpec(eot=2, output="log-mean-prob")])
def test_fewer_rows_at_once_give_the_same_answers_and_gradients(random, spec):
    *wanted, limit = answers(1 << 30, spec, random=random)
    assert limit is None
    *found, limit = answers(5, spec, random=random)
    assert limit is not None
    assert limit < 12
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
    assert Held.total == 0


def test_bpda_in_pieces():
    spec = ViewSpec(gradient="bpda", eot=2, runs=1)
    *wanted, _ = answers(1 << 30, spec, random=True)
    *found, limit = answers(5, spec, random=True)
    assert limit == 3  # 24 rows, 12, 6, 3
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def test_one_row_that_does_not_fit_is_an_error():
    with (
        attack_view(defense(0, random=False), ViewSpec(), seed=0) as (view, _),
        pytest.raises(torch.OutOfMemoryError),
        torch.no_grad(),
    ):
        view(images())


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
    )
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, match="allocate memory") as error:
        torch.empty(1 << 50)
    assert is_out_of_memory(error.value)


def test_memory_errors_are_known_by_type_and_words():
    with pytest.raises(MemoryError) as error:
        np.empty(1 << 60, np.uint8)
    texts = "CUDA out of memory. Tried", "DefaultCPUAllocator: not enough memory: you"
    for one in (error.value, torch.OutOfMemoryError(), *map(RuntimeError, texts)):
        assert is_out_of_memory(one)
    assert not is_out_of_memory(RuntimeError("the memory of the attack is empty"))
    assert not is_out_of_memory(ValueError(texts[0]))


def test_a_verdict_in_pieces():
    x, index = images(), torch.arange(12)
    roomy, tight = defense(1 << 30, random=True), defense(5, random=True)
    wanted = verdict(roomy, x, index, draws=3, selection=2, seed=0)
    with batch_limit(tight) as memory:
        found = verdict(tight, x, index, draws=3, selection=2, seed=0, memory=memory)
        assert memory.limit == 3
        assert tight.rows == 3
    assert tight.rows == 4096
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-5, atol=1e-5)


def test_a_random_module_of_somebodys_own_keeps_its_noise_on_the_way_back():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Hungry(5)
            self.eval()

        def forward(self, x):
            return self.inner(x * torch.randn_like(x))

    with attack_view(UserModule(Noisy(), stochastic=True), ViewSpec(), seed=0) as (view, _):
        at = images().requires_grad_()
        logits = view(at)
        # Linear in x without bias on the way back: the gradient of the sum of logits times x gives the logits again.
        bias = view.defense.module.inner.inner[1].bias
        per_image = torch.autograd.grad(logits.sum(), at)[0].mul(at.detach()).flatten(1).sum(1)
    torch.testing.assert_close(per_image, (logits.detach() - bias).sum(1), rtol=1e-4, atol=1e-3)


def test_a_cell_that_ran_out_of_memory_says_so(tmp_path, capsys):
    models = tmp_path / "models.py"
    models.write_text(MODELS + HUNGRY)
    text = 'dataset = "digits"\nindices = "first-20"\nthreat = { norm = "Linf", eps = "1/10" }\n'
    for label in ("free", "tight"):
        text += f'[[defense]]\nname = "{models}:{label}"\nlabel = "{label}"\n'
    (tmp_path / "memory.toml").write_text(text + f'[[attack]]\nname = "{models}:step"\nlabel = "step"\n')
    assert run_board(load_board(tmp_path / "memory.toml"), tmp_path / "out", Options()) == []
    note = "ran with 5 rows at once after running out of memory"  # 20, 10, 5
    assert f"ok: {note}" in capsys.readouterr().err
    cells = load_cells(tmp_path / "out")
    noted = cells[cells["notes"].notna()]
    assert list(noted["defense"] + ", " + noted["attack"]) == ["tight, step"]
    frame = load_results(tmp_path / "out").set_index(["defense", "attack", "image"])["correct"]
    assert frame.loc["free"].equals(frame.loc["tight"])
    assert f"step on tight: {note}" in write_tables(tmp_path / "out").footnotes
