"""Go three ways of newcomers in commands alone: a researcher's, a leaderboard maintainer's and an analyst's.

    python tests/newcomer.py          # in a fresh clone, with an environment of its own
    python tests/newcomer.py --here   # in a new folder, with the present environment

Every step prints its command and its time; the first that does not do what a newcomer would expect ends the script with
exit code 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

TRAIN = """
import torch
from torch import nn
from defenses.data import load_dataset

torch.manual_seed(0)
data = load_dataset("digits", "train")  # not scikit-learn's first rows: some of them are our test images
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(200):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(data.x), data.y).backward()
    optimizer.step()
torch.save(net.state_dict(), "net.pt")
"""

MINE = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.load_state_dict(torch.load("net.pt", weights_only=True))
        self.eval()


class Noisy(Net):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))
"""

ANALYSE = """
import bench

frame = bench.load_results("out")
assert not frame["accuracy"].isna().any()
table = bench.summary("out")
by_hand = frame[frame["attack"] == "none"].groupby("defense")["accuracy"].mean()
shown = table[table["attack"] == "none"].set_index("defense")["robust_mean"]
assert (by_hand - shown).abs().max() < 1e-9, (by_hand, shown)
worst = bench.worst_per_image("out").groupby("defense")["accuracy"].mean()
shown = table[table["attack"] == "worst case"].set_index("defense")["robust_mean"]
assert (worst - shown).abs().max() < 1e-9, (worst, shown)
print(table[["defense", "attack", "robust_mean", "robust_low", "robust_high"]].to_string(index=False))
"""

MODELS = ("--defense", "mine.py:Net", "pgd-at")
WHERE = ("--dataset", "digits", "--eps", "1/5", "--indices", "first-20")


class Newcomer:
    """Somebody in a folder, who types commands.

    Args:
        folder: where they are typed.
        prefix: what comes before `purebench` and `python`, as ("uv", "run").
    """

    def __init__(self, folder: Path, prefix: Sequence[str]):
        self.folder, self.prefix = folder, tuple(prefix)
        self.path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def write(self, name: str, text: str) -> None:
        """Write a file of one's own."""
        (self.folder / name).write_text(text.lstrip(), encoding="utf-8")

    def types(self, *command: str, code: int = 0, says: Sequence[str] = ()) -> str:
        """Run a command, and return its output; end the script if it does not answer as expected.

        Args:
            command: its words.
            code: the exit code that is expected.
            says: texts that its output must have.
        """
        begin = time.monotonic()
        done = subprocess.run(
            [*self.prefix, *command], cwd=self.folder, env={**os.environ, "PATH": self.path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        print(f"{time.monotonic() - begin:6.1f} s  {' '.join(command)}", flush=True)
        missing = [text for text in says if text not in done.stdout]
        if done.returncode != code or missing or "Traceback" in done.stdout:
            print(done.stdout)
            sys.exit(f"exit code {done.returncode}, expected {code}; missing: {missing}")
        return done.stdout


def researcher(somebody: Newcomer) -> None:
    """Publish a defense: train it, attack it beside a baseline, certify its gradients, audit the attacks."""
    somebody.write("train.py", TRAIN)
    somebody.write("mine.py", MINE)
    somebody.types("purebench", "--help", says=["run", "audit"])
    somebody.types("purebench", "show", "digits", says=["train", "500"])
    somebody.types("python", "train.py")
    somebody.types("purebench", "certify", "mine.py:Net", says=["passed"])
    attack = ("--attack", "autoattack:apgd-ce", "--out", "out")
    somebody.types("purebench", "run", *MODELS, *WHERE, *attack, says=["mine.py:Net", "pgd-at", "worst case"])
    again = somebody.types("purebench", "run", *MODELS, *WHERE, *attack)
    assert "images 0-" not in again, "something was computed again"
    somebody.types("purebench", "compare", "out", "mine.py:Net", "pgd-at", says=["McNemar"])
    noisy = ("--defense", "mine.py:Noisy", *WHERE, *attack[:2], "--out", "noisy")
    somebody.types("purebench", "run", *noisy, code=2, says=["--stochastic"])
    somebody.types("purebench", "run", *noisy, "--stochastic", says=["mine.py:Noisy"])


def maintainer(somebody: Newcomer) -> None:
    """Keep a board: write it, plan it, run it, judge images that somebody else sends, check what is stored."""
    somebody.types("purebench", "new", "board", "board.toml", says=["board.toml"])
    somebody.types("purebench", "new", "board", "board.toml", code=2, says=["board.toml"])
    somebody.types("purebench", "show", "board.toml", says=["attacks"])
    somebody.types("purebench", "plan", "board.toml", says=["cells"])
    somebody.types("purebench", "status", "board.toml", says=["missing"])
    somebody.types("purebench", "status", "out", says=["finished"])
    given = "import numpy as np; from defenses.data import load_dataset; d = load_dataset('digits')"
    images = "np.savez('x.npz', x_adv=1 - d.x[:4].numpy().clip(0.4, 0.6), index=np.arange(4), y=d.y[:4].numpy())"
    somebody.types("python", "-c", f"{given}; {images}")
    somebody.types("purebench", "judge", "x.npz", "--defense", "pgd-at", "--eps", "1/5", code=2, says=["ball"])
    somebody.types("purebench", "verify", "out", "--defense", "pgd-at", "--quiet")
    somebody.types("purebench", "model-info", "export", "out", "--defense", "pgd-at", "--out", "pgd-at.json")
    somebody.types("purebench", "run", "bord.toml", code=2, says=["bord.toml"])
    somebody.types("purebench", "ls", "purif", says=["adp"])


def analyst(somebody: Newcomer) -> None:
    """Ask the records in pandas; the tables say the same."""
    somebody.write("analyse.py", ANALYSE)
    somebody.types("python", "analyse.py", says=["worst case"])
    somebody.types("purebench", "table", "out", says=["mine.py:Net"])
    somebody.types("purebench", "table", "out", "--format", "csv", says=["robust_mean"])


def main() -> None:
    """Go the three ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="with the present environment, without a clone")
    here = parser.parse_args().here
    folder = Path(tempfile.mkdtemp(prefix="newcomer-"))
    try:
        if not here:
            subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "purebench")], check=True)
            folder /= "purebench"
        somebody = Newcomer(folder, () if here else ("uv", "run"))
        if not here:
            somebody.types("purebench", "run", "quickstart", says=["ebm-mcmc"])
        for way in (researcher, maintainer, analyst):
            print(f"--- {way.__name__}: {(way.__doc__ or '').strip()}")
            way(somebody)
    finally:
        shutil.rmtree(folder if here else folder.parent, ignore_errors=True)
    print("all three ways end well")


if __name__ == "__main__":
    main()
