"""Test shards: every cell in one of them, the same on every machine, and together the same bits as the whole board."""

import functools
import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from boards import BOARD, ROOT, purebench_here, write_board
from faults.sameness import same

from bench.board.load import load_board
from bench.cli.main import main
from bench.execution.evaluations import attack_evaluations, calls, evaluations, verdict_evaluations
from bench.execution.options import Options
from bench.execution.run_board import run_board, select
from bench.execution.shards import keys_of
from bench.spec.shard import Shard
from bench.store.manifest import read_manifest, shards_of
from defenses.utils.errors import UserError

SMALL = BOARD.replace("first-60", "first-20")  # 8 cells
HERE = ("--workers", 0)


@pytest.mark.parametrize("text", ["17/16", "0/16", "x", "", "1", "1/", "/4", "-1/4", "1/0", "1.0/4", "1/4/4", "٣/٤"])
def test_what_is_no_shard_is_refused(text, tmp_path, capsys):
    with pytest.raises(UserError, match="is no shard; give its number and how many there are, as 1/16"):
        Options(shard=text)
    for command in ("run", "plan", "status"):
        with pytest.raises(SystemExit) as ended:
            main([command, "quickstart", f"--shard={text}", "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@functools.cache
def cells_of(board):
    return load_board(board).cells()


@pytest.mark.parametrize("board", ["quickstart", "digits-linf", "digits-defenses"])
def test_every_cell_is_in_one_shard(board):
    cells = cells_of(board)
    cost = {cell.key: evaluations(cell) for cell in cells}
    other = random.Random(0).sample(cells, len(cells))
    for of in (1, 2, 5, 16):
        shares = [keys_of(Shard(number, of), cells) for number in range(1, of + 1)]
        assert sorted(key for keys in shares for key in keys) == sorted(cost)
        assert keys_of(Shard(of, of), other) == shares[-1]  # the order of the cells changes nothing
        even = max(sum(cost.values()) / of, *cost.values())  # no division has a smaller largest share
        assert max(sum(cost[key] for key in keys) for keys in shares) <= 1.05 * even


def test_a_shard_loads_few_defenses():
    cells = cells_of("digits-defenses")
    keys = [keys_of(Shard(number, 8), cells) for number in range(1, 9)]
    loaded = [len({c.defense.title for c in cells if c.key in share}) for share in keys]
    assert sum(loaded) < 2 * len({c.defense.title for c in cells})


def test_more_shards_than_cells():
    cells = cells_of("quickstart")
    assert sum(len(keys_of(Shard(number, 40), cells)) for number in range(1, 41)) == len(cells)
    assert keys_of(Shard(2, 4), []) == set()


def test_the_cost_of_a_cell_has_a_closed_form():
    """quickstart: 100 images; adp 10 runs of 5 steps, judged on 15 + 8 draws."""
    found = {(c.defense.label, c.attack.name, c.view.gradient): c for c in cells_of("quickstart")}
    pgd = found["undefended", "foolbox:LinfPGD", "exact"]
    assert (calls(pgd), evaluations(pgd)) == (20, 100 * (20 * 3 + 1))
    eotpgd = found["adp", "torchattacks:EOTPGD", "exact"]
    assert calls(eotpgd) == 10 * 2
    assert attack_evaluations(eotpgd) == 100 * 20 * 1 * (1 + 3 * 5) * 3  # one run in place of ten
    assert verdict_evaluations(eotpgd) == 100 * 23 * 10 * (1 + 3 * 5)
    assert calls(found["undefended", "none", "exact"]) == 0
    standard = found["pgd-at", "autoattack:standard", "exact"]
    assert calls(standard) == 20 + 200


SBATCH = """#!/bin/bash
# A stand-in: the tasks of an array, or a wrapped command, one after another in this shell.
set -e
while [[ "$1" == --* ]]; do
  case "$1" in
    --wrap) bash -e -c "$2"; exit ;;
    --dependency=afterok:7 | --parsable) shift ;;
    *) exit 64 ;;
  esac
done
IFS=- read -r first last < <(sed -n 's/^#SBATCH --array=//p' "$1")
for ((task = first; task <= last; task++)); do SLURM_ARRAY_TASK_ID=$task bash -e "$@"; done
echo 7
"""


def submitted(folder, line):
    """The `purebench` commands that a line of a shell brings about with the stand-in `sbatch`."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, content in {"sbatch": SBATCH, "purebench": f'#!/bin/bash\necho "$@" >> {folder}/commands\n'}.items():
        (commands / name).write_text(content)
        (commands / name).chmod(0o755)
    (folder / "commands").write_text("")
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", f"job=7; {line}"], cwd=folder, env=environment, check=True, capture_output=True)
    return [line.split() for line in (folder / "commands").read_text().splitlines()]


def test_the_slurm_script_makes_the_whole_board(tmp_path, monkeypatch):
    """The script of the README as it stands: records and draws of its merged shards are those of one run."""
    monkeypatch.chdir(tmp_path)
    board = load_board(write_board(tmp_path, SMALL))
    assert run_board(board, tmp_path / "whole", Options(quiet=True, workers=0)) == []
    text = (ROOT / "leaderboards/README.md").read_text()
    script, array, merge = re.search(
        r"```bash\n(#!/bin/bash\n#SBATCH.*?)```.*?```bash\n(job=.*?)\n(sbatch.*?)\n```", text, re.S
    ).groups()
    (tmp_path / "shards.sh").write_text(script)
    commands = submitted(tmp_path, array.replace("digits-linf", "small.toml"))
    assert [c[:4] for c in commands] == [["run", "small.toml", "--shard", f"{n}/4"] for n in (1, 2, 3, 4)]
    for command in commands:
        assert command[4:] == ["--workers", "auto"]
        done = purebench_here(*command[:4], *HERE)
        assert done.returncode == 0, done.stderr
        own = select(board.cells(), Options(shard=command[3]))
        assert done.stderr.startswith(f"shard {command[3]}: {len(own)} cell")
        remedy = "next, when all 4 shards are done: purebench merge results/small-shards/*-of-4 --out results/small"
        assert done.stderr.splitlines()[-1] == remedy
    (merged,) = submitted(tmp_path, merge.replace("digits-linf", "small"))
    folders = [f"results/small-shards/{n}-of-4" for n in (1, 2, 3, 4)]
    assert merged == ["merge", *folders, "--out", "results/small"]
    assert purebench_here(*merged).stdout == "8 cells of 4 folders: results/small\n"
    same(tmp_path / "whole", tmp_path / "results/small")
    assert shards_of(read_manifest(Path("results/small"))["runs"]) == {f"{n}/4": True for n in (1, 2, 3, 4)}
    assert purebench_here("status", "small.toml").stdout.splitlines()[-1] == "8 of 8 cells finished in results/small"

    own = len(select(board.cells(), Options(shard="2/4")))
    shown = purebench_here("status", "small.toml", "--shard", "2/4").stdout
    assert shown.splitlines()[-1] == f"{own} of {own} cells of shard 2/4 finished in {folders[1]}"
    line = purebench_here("status", folders[1]).stdout.splitlines()[-1]
    assert line == f"{own} of 8 cells of the board small finished in {folders[1]} (shard 2/4)"
    part = purebench_here("merge", *folders[:1], *folders[2:], "--out", "part").stdout
    assert part == f"{8 - own} cells of 3 folders; {own} cells of the board not run (run shard 2/4): part\n"
    for command in ("status", "plan"):
        assert "--shard needs the board" in purebench_here(command, folders[0], "--shard", "1/4").stderr


def test_a_finished_shard_has_nothing_to_run_and_says_so(tmp_path):
    path, out = write_board(tmp_path, SMALL), tmp_path / "out"
    assert purebench_here("run", path, "--shard", "1/2", "--out", out, *HERE).returncode == 0
    before = (out / "manifest.json").read_bytes()
    done = purebench_here("run", path, "--shard", "1/2", "--out", out, *HERE)
    assert (done.returncode, (out / "manifest.json").read_bytes()) == (0, before)
    assert "purebench merge FOLDERS --out results/small" in done.stderr.splitlines()[-1]
    planned = purebench_here("plan", path, "--shard", "1/2", "--out", out).stdout
    assert f"{len(select(load_board(path).cells(), Options(shard='1/2')))} cells of up to 20 images" in planned


def test_chosen_rows_of_a_shard_do_not_end_it():
    assert Options(shard="1/2").whole_shard == "1/2"
    assert Options(shard="1/2", attacks=("none",)).whole_shard is None
    assert Options(shard="1/2", defenses=("linear",)).whole_shard is None


def test_a_shard_without_cells_is_done(tmp_path):
    path, out = write_board(tmp_path, SMALL), tmp_path / "out"
    empty = next(n for n in range(1, 21) if not select(load_board(path).cells(), Options(shard=f"{n}/20")))
    done = purebench_here("run", path, "--shard", f"{empty}/20", "--out", out, *HERE)
    assert done.returncode == 0, done.stderr
    assert "0 cells" in done.stderr
    assert shards_of(read_manifest(out)["runs"]) == {f"{empty}/20": True}
    assert purebench_here("merge", out, out, "--out", tmp_path / "merged").returncode == 0


def test_a_shard_of_another_board_is_refused(tmp_path):
    out = tmp_path / "out"
    assert purebench_here("run", write_board(tmp_path, SMALL), "--shard", "1/20", "--out", out, *HERE).returncode == 0
    other = write_board(tmp_path, SMALL.replace('"small"', '"other"'))
    before = sorted(out.rglob("*"))
    done = purebench_here("run", other, "--shard", "2/20", "--out", out, *HERE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert 'holds results of the board "small", not of "other"' in done.stderr
    assert sorted(out.rglob("*")) == before
