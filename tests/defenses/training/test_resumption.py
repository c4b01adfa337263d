"""Checkpoints: a training that was interrupted goes on exactly; foreign and damaged ones are refused."""

import signal
import time

import pytest
import torch
from short_trainings import SHORT, Exploding, material, run

from defenses.networks.registry import build_network
from defenses.training import loop
from defenses.training.loop import fit
from defenses.training.phases import Phase
from defenses.training.plan import Plan
from defenses.training.recipe import methods
from defenses.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", methods())
def test_resuming_gives_the_same_weights(name, tmp_path, monkeypatch):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = run(name, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before), "training touched the global generator"
    step = loop.training_step

    def interrupted(objective, schedule, order, k, dropout):
        if k == 5:
            raise RuntimeError("power cut")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        run(name, tmp_path / "b", checkpoint_every=3)
    monkeypatch.setattr(loop, "training_step", step)
    assert (tmp_path / "b" / f"{name}.checkpoint.pt").exists()
    resumed = run(name, tmp_path / "b", checkpoint_every=3)
    assert not (tmp_path / "b" / f"{name}.checkpoint.pt").exists()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_resuming_in_the_second_phase(tmp_path, monkeypatch):
    whole = run("adp", tmp_path / "a")
    step = loop.training_step

    def interrupted(objective, schedule, order, k, dropout):
        if k == 7:
            signal.raise_signal(signal.SIGINT)
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("adp", tmp_path / "b")
    monkeypatch.setattr(loop, "training_step", step)
    resumed = run("adp", tmp_path / "b")
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)


def test_other_recipes_and_damaged_checkpoints_are_refused(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr(loop, "_validate", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        run("undefended", tmp_path, checkpoint_every=2)
    monkeypatch.undo()
    checkpoint = tmp_path / "undefended.checkpoint.pt"
    with pytest.raises(UserError, match="another recipe or seed"):
        run("undefended", tmp_path, overrides={**SHORT["undefended"], "batch": 7})
    other = checkpoint.with_name("undefended.seed1.checkpoint.pt")
    other.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UserError, match="another recipe or seed"):
        run("undefended", tmp_path, seed=1)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read"):
        run("undefended", tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    objective = Exploding(build_network("small-cnn"), material(), 0)
    with pytest.raises(UserError, match="cannot write checkpoint"):
        fit(objective, Plan(5, (Phase(3, "sgd", 1e-3),), 100, 1, 0, "x"), tmp_path / "file" / "x.pt", progress=False)


def test_every_validation_leaves_a_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    step, steps = loop.training_step, []

    def interrupted(objective, schedule, order, k, dropout):
        steps.append(k)
        if k == 6 and steps.count(6) == 1:
            raise RuntimeError("power cut")
        return step(objective, schedule, order, k, dropout)

    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="power cut"):
        run("undefended", tmp_path, weights="mine")
    run("undefended", tmp_path, weights="mine")
    assert steps == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]


def test_seconds_of_the_processor_are_summed_over_interruptions(tmp_path):
    class Counted(Exploding):
        def loss(self, index, step):
            begun = time.process_time()
            while time.process_time() - begun < 0.05:
                pass
            if step == 2 and not (tmp_path / "x.pt").exists():
                signal.raise_signal(signal.SIGINT)
            return self.network(self.data.x[index]).mean()

    plan = Plan(5, (Phase(6, "sgd", 1e-3),), 100, 100, 0, "x")
    with pytest.raises(KeyboardInterrupt):
        fit(Counted(build_network("small-cnn"), material(), 0), plan, tmp_path / "x.pt", progress=False)
    found = fit(Counted(build_network("small-cnn"), material(), 0), plan, tmp_path / "x.pt", progress=False)
    assert 6 * 0.05 <= found.cpu_seconds < 6 * 0.05 + 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"network": {}}, "belongs to another recipe"),
        (torch.zeros(3), "belongs to another recipe"),
        ({"fingerprint": "x"}, "not whole .*KeyError"),
        ({"fingerprint": "x", "run": {"stepp": 3}}, "not whole"),
        ({"fingerprint": "x", "run": {}, "network": {"a": torch.zeros(1)}}, "not whole"),
    ],
)
def test_foreign_checkpoints_are_one_clear_line(content, message, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    objective = Exploding(build_network("small-cnn"), material(), 0)
    with pytest.raises(UserError, match=message) as caught:
        fit(objective, Plan(5, (Phase(3, "sgd", 1e-3),), 100, 1, 0, "x"), tmp_path / "x.pt", progress=False)
    assert "\n" not in str(caught.value)
