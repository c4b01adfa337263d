"""Poisoning boards: what runs, what is kept, what is refused."""

import json
import shutil

import pytest
from boards import MODELS, purebench_here

from bench.store.folder import Store
from bench.tracks.poisoning.board import load_poison_board
from bench.tracks.poisoning.records import read_plan, read_trials
from bench.tracks.poisoning.run import run_poisoning
from bench.tracks.poisoning.tables import load_poisoning, write_poisoning_tables
from bench.tracks.poisoning.training import Trainer
from defenses.data.dataset import dataset_info
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError

BOARD = """
name = "tiny"
dataset = "digits"
seeds = [0, 1]

[training]
recipe = "undefended"

[training.set]
"network.args.channels" = [8, 16]
validate_every = 4
phases = [{ until = 4, optimizer = "adam", lr = 5e-3 }]

[[attack]]
name = "badnets"
ratios = ["1/10"]

[[attack]]
name = "clean-label"
ratios = ["1/2"]
iterations = 2

[[purifier]]
name = "models.py:Jitter"
label = "jitter"
params = { classifier = "undefended" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poisoning")
    (folder / "models.py").write_text(MODELS)
    (folder / "tiny.toml").write_text(BOARD.replace("models.py:", f"{folder}/models.py:"))
    run_poisoning(load_poison_board(folder / "tiny.toml"), folder / "out", quiet=True)
    return folder


@pytest.fixture(scope="module")
def board(folder):
    return load_poison_board(folder / "tiny.toml")


def trials_of(board):
    return board.trials(dataset_info(board.dataset))


def answers(lines):
    return {key: (line["clean"], line["triggered"]) for key, line in lines.items()}


def test_trials_share_trainings(board):
    trials = trials_of(board)
    assert len(trials) == len({t.key for t in trials}) == 3 * 4 * 2
    assert len({t.training for t in trials}) == 3 * 2 * 2  # with training images cleaned, and without
    of_one = [t.cleaning for t in trials if t.training == trials[0].training]
    assert of_one == ["none", "test"]


def test_the_trigger_works_and_the_control_does_not_know_it(folder):
    frame = load_poisoning(folder / "out").set_index(["attack", "purifier", "cleaning"])
    control, badnets = frame.loc["none", "", "none"], frame.loc["badnets", "", "none"]
    assert (badnets.poisoned, badnets.seeds, badnets.status) == (100, 2, "ok")
    assert (badnets.clean_n, control.clean_n) == (500, 500)
    assert badnets.asr_n == control.asr_n < 500
    assert badnets.asr_mean > 0.8
    assert badnets.asr_low > control.asr_high
    assert badnets.control_asr_mean == control.asr_mean < 0.1
    assert badnets.robust_mean < control.robust_mean
    assert min(control.clean_mean, badnets.clean_mean) > 0.75
    assert (frame.asr_low <= frame.asr_mean).all()
    assert (frame.asr_mean <= frame.asr_high).all()


def test_repeating_runs_nothing_and_a_fresh_run_says_the_same(folder, board, monkeypatch):
    before = (folder / "out" / "trials.jsonl").read_bytes()
    monkeypatch.setattr(Trainer, "victim", lambda *_: pytest.fail("trained again"))
    assert run_poisoning(board, folder / "out", quiet=True) == []
    assert (folder / "out" / "trials.jsonl").read_bytes() == before
    assert len(read_plan(folder / "out")["runs"]) == 1


def test_what_was_interrupted_goes_on_and_ends_alike(folder, board, tmp_path, monkeypatch):
    victim, trained = Trainer.victim, []

    def interrupted(self, trial, checkpoint):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(trial.training)
        return victim(self, trial, checkpoint)

    monkeypatch.setattr(Trainer, "victim", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_poisoning(board, tmp_path / "out", quiet=True)
    kept = read_trials(tmp_path / "out")
    assert 2 <= len(kept) <= 4
    first, trained = trained, []
    monkeypatch.setattr(Trainer, "victim", lambda self, t, c: trained.append(t.training) or victim(self, t, c))
    run_poisoning(board, tmp_path / "out", quiet=True)
    assert set(first).isdisjoint(trained), "what was finished is not trained again"
    assert answers(read_trials(tmp_path / "out")) == answers(read_trials(folder / "out"))


def test_errors_are_recorded_as_errors(board, tmp_path, monkeypatch):
    victim = Trainer.victim

    def failing(self, trial, checkpoint):
        if trial.poison.kind == "badnets" and trial.seed == 1:
            raise RuntimeError("no luck")
        return victim(self, trial, checkpoint)

    monkeypatch.setattr(Trainer, "victim", failing)
    errors = run_poisoning(board, tmp_path / "out", quiet=True)
    assert len(errors) == 4
    assert errors[0] == "badnets 0.1, seed 1: RuntimeError: no luck"
    frame = load_poisoning(tmp_path / "out").set_index(["attack", "purifier", "cleaning"])
    assert frame.loc["badnets", "", "none"].status == "partial: 1 of 2 seeds; RuntimeError: no luck"
    assert frame.loc["badnets", "", "none"].seeds == 1
    assert "partial: 1 of 2 seeds" in write_poisoning_tables(tmp_path / "out")["markdown"]
    monkeypatch.undo()
    assert len(run_poisoning(board, tmp_path / "out", quiet=True)) == 4
    assert run_poisoning(board, tmp_path / "out", quiet=True, retry_errors=True) == []


def test_damaged_lines_are_run_again(folder, board, tmp_path, caplog):
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_bytes((folder / "out" / "plan.json").read_bytes())
    lines = (folder / "out" / "trials.jsonl").read_text().splitlines()
    changed = lines[1].replace('"poisoned":0', '"poisoned":1')
    assert changed != lines[1]
    (out / "trials.jsonl").write_text("\n".join([lines[0], changed, *lines[2:-1], lines[-1][:50]]) + "\n")
    assert run_poisoning(board, out, quiet=True) == []
    assert sum("is damaged" in text for text in caplog.messages) == 2
    assert answers(read_trials(out)) == answers(read_trials(folder / "out"))


def test_a_folder_in_use_or_of_another_board_is_refused(folder, board, tmp_path):
    from dataclasses import replace

    with pytest.raises(UserError, match='results of "tiny", not of "other"'):
        run_poisoning(replace(board, name="other"), folder / "out")
    with Store(tmp_path).lock("poisoning"), pytest.raises(UserError, match="another process runs"):
        run_poisoning(board, tmp_path)
    (tmp_path / "plan.jsonl").touch()
    with pytest.raises(UserError, match="board of attacks"):
        run_poisoning(board, tmp_path)
    with pytest.raises(UserError, match="no results of a poisoning board"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"schema": 99, "trials": [], "labels": [], "runs": []}))
    with pytest.raises(UserError, match="newer version"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"badnets"', '"badnet"', 'unknown attack on training data "badnet"; did you mean badnets'),
        ('["1/10"]', "[0]", r"ratios in \[\[attack\]\] 1 is \[0\]; it must be a list of numbers in \(0, 1\]"),
        ('["1/10"]', '["1/10", 0.1]', "without repeats"),
        ('["1/10"]', "[0.0001]", "poisons 0 of 1000 images"),
        ('["1/10"]', "[1]", "choose a smaller one"),
        ('ratios = ["1/10"]', 'ratios = ["1/10"]\neps = 0.1', 'takes no "eps"'),
        ("iterations = 2", "iterations = 0", "at least 1"),
        ("iterations = 2", 'against = "nobody"', 'no weights of "nobody"'),
        ('recipe = "undefended"', 'recipe = "adp"', "a part of a purifier"),
        ('recipe = "undefended"', 'recipe = "undefendet"', "did you mean undefended"),
        ("validate_every = 4", "validate_evry = 4", "validate_evry"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "without repeats"),
        ("seeds = [0, 1]", "target = 10\nseeds = [0]", "classes 0 to 9"),
        ("seeds = [0, 1]", "seeds = [0]\ntrigger = { size = 9 }", "9 pixels wide"),
        ("seeds = [0, 1]", "seeds = [0]\ntrigger = { value = 2 }", r"a number in \[0, 1\]"),
        ("seeds = [0, 1]", "sedes = [0]", "did you mean seeds"),
        ("seeds = [0, 1]", "", r"seeds in the board is missing; write seeds = \[0\]"),
        ('dataset = "digits"', 'dataset = "digit"', "digit"),
        ("[[purifier]]", "[[purifier]]\nrusn = 3", "did you mean|unknown key"),
    ],
)
def test_bad_boards_are_one_clear_line(folder, tmp_path, old, new, message):
    text = (folder / "tiny.toml").read_text()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        load_poison_board(tmp_path / "bad.toml")
    twice = "sedes" in new or '"digit"' in new  # the key that is missing, and the recipe, are further faults
    assert len(caught.value.args) == (2 if twice else 1)


def test_what_is_no_purifier_is_refused_before_any_training(folder, tmp_path):
    text = BOARD[: BOARD.index("[[purifier]]")] + '[[purifier]]\nname = "undefended"\n'
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError, match='"undefended" is no purifier'):
        run_poisoning(load_poison_board(tmp_path / "bad.toml"), tmp_path / "out", quiet=True)


def test_the_command(folder):
    done = purebench_here("poison", folder / "tiny.toml", "--out", folder / "out", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## tiny: digits, 2 seeds")
    assert "jitter" in done.stdout
    assert (folder / "out" / "tables.csv").read_text().count("\n") == 1 + 3 * 4
    other = purebench_here("run", "digits-poisoning")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "purebench poison" in other.stderr
    other = purebench_here("poison", "digits-linf")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "purebench run" in other.stderr


def test_trials_of_an_earlier_purifier_are_run_again(folder, board, tmp_path, monkeypatch):
    """A file that the purifier's code read is another one now; trials without the purifier are kept."""
    from bench.tracks.poisoning import run

    out = shutil.copytree(folder / "out", tmp_path / "out")
    lines = run.read_trials(out)
    cleaned = {t.key for t in trials_of(board) if t.purifier}
    assert all(bool(line.get("sources")) == (key in cleaned) for key, line in lines.items())
    for key in cleaned:
        lines[key]["sources"][0]["files"] = {"strength.txt": ["0" * 64, 1, 1]}
    texts = [json.dumps(with_checksum(line)) for line in lines.values()]
    (out / run.TRIALS).write_text("\n".join(texts) + "\n")
    asked = []
    monkeypatch.setattr(run, "_run_all", lambda folder, pending, *_: asked.extend(t.key for t in pending))
    run_poisoning(board, out, quiet=True)
    assert set(asked) == cleaned
