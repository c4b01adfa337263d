"""Models whose answers change from call to call, or that no command may judge as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from faults.catalogue import case
from faults.ground import Ground, Outcome, nothing_written, run_command

_MODELS = """

class Unsure(Wrapped):
    def forward(self, x):
        z = self.inner(x)
        return torch.where(z.softmax(1).amax(1, keepdim=True) < 0.9, z + 5 * torch.randn_like(z), z)


class Tired(Wrapped):
    calls = 0

    def forward(self, x):
        Tired.calls += 1
        return self.inner(x) if Tired.calls < 100 else self.inner(x).flip(1)


class Dropping(Wrapped):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.drop.train()

    def forward(self, x):
        return self.drop(self.inner(x))


class Column(Wrapped):
    def forward(self, x):
        return self.inner(x).argmax(1, keepdim=True).float()
"""


def _file(ground: Ground) -> Path:
    file = ground.tmp / "mine.py"
    file.write_text((ground.base.folder / "models.py").read_text() + _MODELS)
    return file


def _judged_twice(ground: Ground, name: str) -> Outcome:
    board = ground.board(f'\n[[defense]]\nname = "{_file(ground)}:{name}"\nlabel = "{name}"\n')
    out = ground.copy()
    cells = [(name, attack) for attack in ("none", "uniform", "slow", "autoattack:apgd-ce")]
    told = ground.run(board, out, "--defense", name)
    from bench.analysis.results import load_cells

    frame = load_cells(out).query("defense == @name")
    wrong = frame[frame["status"] == "error"]
    assert len(wrong)
    assert wrong["error"].str.contains("stochastic = true").all()
    return Outcome(told, (name,), folder=out, errors=[c for c in cells if c[1] in set(wrong["attack"])])


@case("a model that draws for images of which it is unsure alone", "its cells are errors that name `stochastic = true`")
def random_for_unsure_images(ground: Ground) -> Outcome:
    return _judged_twice(ground, "Unsure")


@case("a model that answers otherwise after a hundred calls", "the same")
def other_after_many_calls(ground: Ground) -> Outcome:
    return _judged_twice(ground, "Tired")


@case("dropout in train mode, or an output of one column, in each command that judges", "refused before any work")
def in_every_command(ground: Ground) -> Iterator[Outcome]:
    from defenses.data.dataset import load_dataset

    digits, file, out = load_dataset("digits"), _file(ground), ground.tmp / "own"
    images = ground.tmp / "x.npz"
    np.savez(images, x_adv=digits.x[:4].numpy(), index=np.arange(4), y=digits.y[:4].numpy())
    for name, words in (("Dropping", "train mode"), ("Column", "it must be")):
        model = f"{file}:{name}"
        for command in (
            ("certify", model),
            ("corruptions", model, "--corruptions", "contrast", "--severities", "1", "--out", out),
            ("judge", images, "--defense", model, "--eps", "1/5"),
            ("run", "--defense", model, "--dataset", "digits", "--eps", "1/5", "--attack", "none", "--out", out),
        ):
            yield Outcome(run_command(*command), (words,))
            nothing_written(out)


@case("stored images judged again after a change of the model", "exit code 2; the last line names it and what to do")
def verified_after_a_change(ground: Ground) -> Outcome:
    code = ground.tmp / "code"
    code.mkdir()
    models = (ground.base.folder / "models.py").read_text()
    (code / "models.py").write_text(models.replace("10 * means", "9 * means"))
    told = run_command("verify", ground.copy(), "--code", code, "--defense", "linear", "--sample", "2")
    assert told.code == 2, told.stderr
    last = told.stdout.splitlines()[-1]
    assert "; linear changed, so this tells nothing of the numbers on record: verify with the weights" in last
    return Outcome()
