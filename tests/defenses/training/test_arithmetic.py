"""Precision, memory order, compilation, time limits, half-precision files and the start of a training."""

import math

import pytest
import torch
from boards import purebench_here
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from short_trainings import QUICK, SHORT, material, run
from torch import nn

from defenses.training import loop, time_limit
from defenses.training.arithmetic import Arithmetic
from defenses.training.objective import Objective
from defenses.training.phases import Phase, PhasedOptimizer
from defenses.training.plan import Plan
from defenses.training.recipe import load_recipe
from defenses.training.time_limit import plan_that_fits, scaled_phases
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar, weights_hash

pytestmark = pytest.mark.usefixtures("one_thread")


class Recorded(Objective):
    """A linear loss that records the type of what the network returns."""

    dtypes: tuple[torch.dtype, ...] = ()

    def loss(self, index, step):
        out = self.network(self.data.x[index].flatten(1))
        self.dtypes = (*self.dtypes, out.dtype)
        return out.float().square().mean()


def recorded(arithmetic=Arithmetic(), network=None):  # noqa: B008
    objective = Recorded(network or nn.Linear(64, 3), material(), 0)
    objective.arithmetic = arithmetic
    return objective


def plan_of(*ends, every=100, **more):
    return Plan(5, tuple(Phase(end, "sgd", 1e-2) for end in ends), every, 100, 0, "x", **more)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_losses_in_the_precision_asked_for_and_weights_in_float32(precision, dtype, tmp_path):
    objective = recorded(Arithmetic(precision))
    result = loop.fit(objective, plan_of(3), tmp_path / "c", progress=False)
    assert objective.dtypes == (dtype,) * 3
    assert {v.dtype for v in result.weights.values()} == {torch.float32}


@pytest.mark.parametrize(("precision", "fast"), [("tf32", True), ("float32", False), ("bf16", False)])
def test_tf32_is_on_where_it_was_asked_for_alone(precision, fast):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with Arithmetic(precision).in_force():
        assert torch.get_float32_matmul_precision() == ("high" if fast else "highest")
        assert torch.backends.cudnn.allow_tf32 is fast
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_channels_last_trains_the_same_network(tmp_path):
    plain, last = (
        run("undefended", tmp_path / name, overrides={**SHORT["undefended"], **more})
        for name, more in (("plain", {}), ("last", {"channels_last": True}))
    )
    assert plain.keys() == last.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], last[name], rtol=1e-3, atol=1e-4)
    network = nn.Conv2d(4, 4, 3)
    Arithmetic(channels_last=True).prepare(network)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_network_trains_and_keeps_its_names(tmp_path):
    network = nn.Linear(64, 3)
    same = nn.Linear(64, 3)
    same.load_state_dict(network.state_dict())
    arithmetic = Arithmetic(compile=True)
    arithmetic.prepare(network)
    results = [
        loop.fit(recorded(c, n), plan_of(3), tmp_path / str(i), progress=False).weights
        for i, (c, n) in enumerate([(arithmetic, network), (Arithmetic(), same)])
    ]
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name])


class Penalised(Objective):
    """A penalty on the input gradient, which is differentiated again."""

    def loss(self, index, step):
        x = self.data.x[index].flatten(1).requires_grad_()
        (slope,) = torch.autograd.grad(self.network(x).square().sum(), x, create_graph=True)
        return slope.square().sum()


def test_a_method_that_cannot_be_compiled_is_one_line(tmp_path):
    objective = Penalised(nn.Linear(64, 3), material(), 0)
    objective.arithmetic = arithmetic = Arithmetic(compile=True)
    arithmetic.prepare(objective.network)
    with pytest.raises(UserError, match=r"cannot be compiled .*; set compile=false") as caught, arithmetic.in_force():
        loop.fit(objective, plan_of(3), tmp_path / "c", progress=False)
    assert "\n" not in str(caught.value)


# --- time limits


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=5), st.integers(0, 2000))
def test_scaled_phases_share_the_steps_as_before(lengths, more):
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    phases = tuple(Phase(end, "sgd", 1e-2) for end in ends)
    steps = len(phases) + more
    scaled = [p.until for p in scaled_phases(phases, steps)]
    assert scaled[-1] == steps
    assert all(b > a for a, b in zip([0, *scaled], scaled, strict=False))
    if steps <= ends[-1]:
        assert all(abs(s - e * steps / ends[-1]) <= len(phases) for s, e in zip(scaled, ends, strict=True))


class Clock:
    """A clock that a step moves by a second and a validation by five."""

    now = 0.0

    def __call__(self):
        return self.now


class Slow(Recorded):
    """An objective whose steps and validations take time on a `Clock`."""

    clock: Clock
    step_seconds = 1.0

    def loss(self, index, step):
        self.clock.now += self.step_seconds
        return super().loss(index, step)

    def validate(self):
        self.clock.now += 5
        return {}


@pytest.fixture
def slow(monkeypatch):
    clock = Clock()
    for module in (time_limit, loop):
        monkeypatch.setattr(module.time, "perf_counter", clock)

    def make():
        objective = Slow(nn.Linear(64, 3), material(), 0)
        objective.clock = clock
        return objective

    return make


def test_as_many_steps_as_fit_with_the_whole_schedule(slow, tmp_path):
    plan = Plan(5, (Phase(600, "sgd", 1e-2), Phase(1000, "sgd", 1e-2, lr_end=0.0)), 250, 100, 0, "x", time_limit=400)
    fitted = plan_that_fits(slow, plan, 400)
    # 20 s of trial steps, 3 of warm-up, 5 for one validation, 20 for four; 360 are planned for.
    assert [p.until for p in fitted.phases] == [round(0.6 * 312), 312]
    assert fitted.validate_every == 78
    objective = slow()
    assert PhasedOptimizer(objective, fitted.phases).at(311).param_groups[0]["lr"] < 1e-4
    result = loop.fit(objective, fitted, tmp_path / "c", progress=False)
    assert [row["step"] for row in result.history] == [78, 156, 234, 312]


def test_a_time_limit_never_lengthens_a_training(slow):
    assert plan_that_fits(slow, plan_of(20, every=10), 1e4).phases == plan_of(20).phases


def test_a_time_limit_that_is_too_short_names_one_that_fits(slow):
    with pytest.raises(
        UserError, match=r"time_limit is 10 s, too short .* with 2 validations; give at least"
    ) as caught:
        plan_that_fits(slow, plan_of(10, 20, every=10), 10)
    seconds = float(str(caught.value).partition("at least ")[2].partition(" s")[0])
    assert plan_that_fits(slow, plan_of(10, 20, every=10), seconds).steps >= 2


def test_training_ends_at_the_limit_on_a_machine_that_slows_down(slow, tmp_path):
    objective = slow()
    result = loop.fit(objective, plan_of(1000, time_limit=60), tmp_path / "c", progress=False)
    assert result.step == 60
    assert result.history[-1]["step"] == 60


def test_a_resumed_training_keeps_the_length_that_was_set(tmp_path, monkeypatch):
    overrides = {**QUICK, "time_limit": 60, "phases": [{"until": 10**6, "optimizer": "adam", "lr": 1e-3}]}
    monkeypatch.setattr(time_limit, "_measured", lambda *_: (5.0, 0.0))
    step = loop.training_step

    def interrupted(objective, schedule, order, k, dropout):
        if k == 7:
            raise RuntimeError("power cut")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "training_step", interrupted)
    options = {"overrides": overrides, "device": "cpu", "progress": False}
    with pytest.raises(RuntimeError, match="power cut"):
        train("undefended", "digits", out=tmp_path, checkpoint_every=3, **options)
    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(time_limit, "_measured", lambda *_: pytest.fail("measured again"))
    side = read_sidecar(train("undefended", "digits", out=tmp_path, **options))
    assert side["recipe"]["steps"] == math.floor(60 * 0.9 / 5)
    assert side["recipe"]["time_limit"] == 60


# --- files and starts


def test_a_recipe_that_stores_half_precision(tmp_path):
    path = train("undefended", "digits", out=tmp_path / "digits", overrides={**QUICK, "half": True}, progress=False)
    assert {v.dtype for v in load_file(path).values()} == {torch.float16}
    network = load_network("undefended", "digits", root=tmp_path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_training_starts_from_trained_weights_and_says_which(tmp_path):
    start = {"start": "undefended", "phases": [{"until": 1, "optimizer": "sgd", "lr": 0.0}], "validate_every": 1}
    path = train("pgd-at", "digits", out=tmp_path, overrides={**SHORT["pgd-at"], **start}, progress=False)
    before = load_network("undefended", "digits").state_dict()
    after = load_file(path)
    assert all(torch.equal(after[n], before[n]) for n, _ in load_network("undefended", "digits").named_parameters())
    recipe = read_sidecar(path)["recipe"]
    assert recipe["start"] == "undefended"
    assert recipe["start_sha256"] == weights_hash("undefended", "digits")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"start": "undefended", "network.args.hidden": 32}, "is of another network than network.kind"),
        ({"start": "undefendet"}, 'no weights of "undefendet"'),
        ({"precision": "fp16"}, 'precision is "fp16"; it must be'),
        ({"precision": "bf61"}, "did you mean bf16"),
        ({"time_limit": 0}, "time_limit is 0; it must be a number above 0"),
        ({"channels_last": "yes"}, 'channels_last is "yes"; it must be true or false'),
    ],
)
def test_bad_settings_of_a_training_are_one_line(overrides, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train("undefended", "digits", out=tmp_path / "new", overrides={**QUICK, **overrides}, progress=False)
    assert not (tmp_path / "new").exists()


def test_settings_that_are_the_default_are_not_in_the_recipe():
    assert not {"precision", "start", "half"} & set(load_recipe("undefended", "digits").described())
    assert load_recipe("undefended", "digits", {"precision": "bf16"}).described()["precision"] == "bf16"


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    done = purebench_here("train", "undefended", "--out", tmp_path / "new", "--device", "cuda:7")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'device "cuda:7" cannot be used' in line
    assert not (tmp_path / "new").exists()
