"""The command: fast where nothing heavy is needed, and complete where it is."""

import importlib
import subprocess
import sys

from boards import ROOT, purebench, purebench_here, write_board

from bench.board.load import load_board
from bench.cli.board_options import worker_count
from bench.cli.main import _is_importing, build_parser
from defenses.utils.plugins import load_object


def imported(*arguments: object) -> set[str]:
    """The modules that a command imports."""
    code = (
        "import sys\nfrom bench.cli.main import main\n"
        f"try:\n    main({[str(a) for a in arguments]!r})\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    return set(result.stderr.split())


def test_light_commands_import_nothing_heavy():
    heavy = {"torch", "pandas", "pyarrow", "sklearn", "foolbox", "torchattacks", "torchvision", "numpy"}
    light = ["--help"], ["import", "--help"], ["ls"], ["ls", "attacks"], ["ls", "boards"], ["plan", "quickstart"]
    light += ["show", "adp"], ["show", "autoattack:standard"], ["show", "digits-linf"], ["show", "standard"]
    for arguments in (*light, ["model-info", "show", "absent.json"]):
        assert not heavy & imported(*arguments), arguments
    for arguments in (["--help"], ["run", "--help"], ["ls"], ["ls", "attacks"], ["ls", "boards"]):
        assert "pydantic" not in imported(*arguments), arguments


def test_nothing_to_do_imports_no_torch(tmp_path):
    out = tmp_path / "out"
    chosen = ["run", "quickstart", "--out", out, "--defense", "undefended", "--attack", "foolbox:LinfPGD"]
    first = purebench_here(*chosen)
    assert first.returncode == 0, first.stderr
    assert not {"torch", "pandas", "sklearn"} & imported(*chosen)
    again = purebench_here(*chosen)
    assert again.stdout == first.stdout
    assert "[1/" not in again.stderr


def first_line(*arguments: object) -> tuple[str, bool]:
    """The first line of a run on standard error, after which it is stopped; and whether torch was imported by then."""
    code = (
        "import os, sys\nfrom bench.cli.main import main\n"
        "class Stopped:\n"
        "    def write(self, text):\n"
        "        os.write(2, text.encode())\n"
        "        if chr(10) in text:\n"
        "            os.write(1, str('torch' in sys.modules).encode())\n"
        "            os._exit(0)\n"
        "    def flush(self):\n        pass\n"
        f"sys.stderr = Stopped()\nmain({[str(a) for a in arguments]!r})"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    return result.stderr.strip(), result.stdout == "True"


def test_a_run_says_what_it_will_do_before_it_imports_torch(tmp_path):
    line, imported_torch = first_line("run", "quickstart", "--out", tmp_path / "out", "--workers", 0)
    sizes = "4 defenses x 8 attacks x 100 images"
    assert line == f"27 cells, 0 finished: {sizes}; forecast 41,000,000 evaluations; results in {tmp_path}/out"
    assert not imported_torch
    names = (
        "--preset",
        "standard",
        "--defense",
        "trades",
        "--dataset",
        "digits",
        "--eps",
        "1/5",
        "--indices",
        "first-9",
    )
    line, imported_torch = first_line("run", *names, "--out", tmp_path / "out", "--workers", 0)
    assert line.startswith("3 cells, 0 finished: 1 defense x 3 attacks x 9 images; ")
    assert not imported_torch


def test_a_run_of_own_code_says_meanwhile_what_is_loaded(tmp_path):
    path = write_board(tmp_path)
    models = tmp_path / "models.py"
    models.write_text(f"{models.read_text()}\nimport sys, time\ntime.sleep(2)\nprint('loaded', file=sys.stderr)\n")
    line, loaded, _ = purebench("run", path, "--out", tmp_path / "out", "--defense", "absent").stderr.splitlines()
    assert line == "2 defenses x 2 attacks, first-60 of digits; loading linear and 1 more to count the cells"
    assert loaded == "loaded"
    write_board(tmp_path)
    chosen = ("--out", tmp_path / "out", "--defense", "linear", "--attack", "slow", "--workers", 0)
    done = purebench_here("run", path, *chosen)
    forecast = "forecast 360 evaluations"  # one of each image in each cell, and a gradient
    sizes = "1 defense x 3 attacks x 60 images"
    assert f"9 cells, 0 finished: {sizes}; {forecast}; results in {tmp_path}/out\n" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"next: purebench audit {tmp_path}/out (can they be trusted?), purebench site {tmp_path}/out (every image)"
    )
    assert "9 cells, 9 finished: " in purebench_here("run", path, *chosen).stderr
    assert purebench_here("run", path, *chosen, "--quiet").stderr == ""


def test_workers_are_as_many_as_pay_off(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.cli.board_options.all_workers", lambda *_: 8)
    boards = {"small": load_board(write_board(tmp_path)), "quickstart": load_board("quickstart")}
    for name, words, count in [
        *(("small", (), 1), ("small", ("--workers", "auto"), 8)),
        *(("quickstart", (), 8), ("quickstart", ("--workers", "3"), 3)),
    ]:
        for command in ("run", "plan"):
            assert worker_count(build_parser(command).parse_args([command, name, *words]), boards[name]) == count


def test_workers_that_nobody_asked_for_have_memory(monkeypatch):
    monkeypatch.setattr("bench.execution.workers.limits.available_memory", lambda: 9 * 2**30)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    board = load_board("quickstart")
    for words, count in (((), 2), (("--workers", "auto"), 8)):
        assert worker_count(build_parser("run").parse_args(["run", "quickstart", *words]), board) == count


def test_ctrl_c_waits_for_an_import(tmp_path):
    """An exception within torch's start ended the process without a word."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\nprint('imported')\n"
    )
    code = (
        "import sys, time\nfrom bench.cli import main as cli\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "def run(arguments):\n    import slow\n    time.sleep(30)\n"
        "cli._Parser.parse_args = lambda self, argv: cli.argparse.Namespace(run=run)\n"
        "sys.exit(cli.main([]))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=25, check=False)
    assert (result.returncode, result.stdout) == (130, "imported\n"), result.stderr
    assert result.stderr.count("\n") == 2
    assert "interrupted" in result.stderr


def test_ls_names_everything():
    assert {"undefended", "pgd-at", "adp", "ebm-mcmc"} <= set(purebench_here("ls").stdout.split())
    attacks = set(purebench_here("ls", "attacks").stdout.split())
    assert {"autoattack:standard", "autoattack:rand", "foolbox:LinfPGD", "torchattacks:EOTPGD", "none"} <= attacks
    assert "quickstart" in purebench_here("ls", "boards").stdout
    assert "digits" in purebench_here("ls", "datasets").stdout


def test_run_status_plan_and_table_tell_one_story(tmp_path):
    path, out = write_board(tmp_path), tmp_path / "out"
    before = purebench_here("status", path, "--out", out)
    assert "0 of 24 cells finished" in before.stdout
    result = purebench("run", path, "--out", out, "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert "[24/24]" in result.stderr
    assert "ETA" in result.stderr
    assert "24 of 24 cells finished" in purebench_here("status", path, "--out", out).stdout
    assert "3 finished" in purebench_here("plan", path, "--out", out).stdout
    text = purebench_here("table", out).stdout
    assert result.stdout.strip() in text
    for form, word in (("markdown", "| --"), ("csv", "robust_mean"), ("latex", "\\toprule"), ("html", "<table")):
        assert word in purebench_here("table", out, "--format", form).stdout, form


def test_tables_are_mended(tmp_path):
    path, out = write_board(tmp_path), tmp_path / "out"
    first = purebench_here("run", path, "--out", out, "--defense", "linear").stdout
    (out / "tables.md").unlink()
    assert purebench_here("run", path, "--out", out, "--defense", "linear").stdout == first
    assert (out / "tables.md").is_file()


def test_status_plan_and_run_survive_damage(tmp_path):
    path, out = write_board(tmp_path), tmp_path / "out"
    chosen = ["--out", out, "--defense", "linear"]
    first = purebench_here("run", path, *chosen)
    (out / "parts/stray").write_text("mine")
    (part,) = out.glob("parts/all-*")
    (part / "cells.jsonl").write_bytes(b'{"key": \xff')
    for command in (["status", path, "--out", out], ["plan", path, *chosen]):
        shown = purebench_here(*command)
        assert shown.returncode == 0, shown.stderr
        assert "Traceback" not in shown.stderr
    assert "0 of 24 cells finished" in purebench_here("status", path, "--out", out).stdout
    (out / "plan.jsonl").write_bytes(b"\xff\xfe")
    (out / "manifest.json").write_bytes(b'{"runs": 3}')
    again = purebench_here("run", path, *chosen)
    assert again.returncode == 0, again.stderr
    first_rows, rows = (
        [x.split()[:4] for x in r.stdout.splitlines() if x.startswith("linear")] for r in (first, again)
    )
    assert rows == first_rows
    assert again.stderr.count("warning:") == 2
    assert (out / "parts/stray").read_text() == "mine"
    assert (out / "manifest.json.damaged").is_file()


def test_status_and_plan_count_no_damaged_results(tmp_path):
    path, out = write_board(tmp_path), tmp_path / "out"
    chosen = ["--out", out, "--defense", "linear", "--quiet"]
    assert purebench_here("run", path, *chosen).returncode == 0
    (file,) = out.glob("parts/all-*/records.parquet")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    status = purebench_here("status", path, "--out", out)
    assert "linear: 12 damaged" in status.stdout
    assert "0 of 24 cells finished" in status.stdout
    assert "records.parquet is damaged; run the board again" in status.stderr
    assert " finished |" not in purebench_here("plan", path, *chosen[:-1]).stdout
    assert purebench_here("run", path, *chosen).returncode == 0
    status = purebench_here("status", path, "--out", out)
    assert "linear: 12 ok" in status.stdout
    assert not status.stderr


def test_usage_errors_exit_with_2():
    assert purebench("run").returncode == 2
    assert purebench("run", "quickstart", "--workers", "-1").returncode == 2
    assert purebench("nonsense").returncode == 2


def test_train_and_run_on_the_trained_weights(tmp_path):
    import json

    phases = "phases=[{until=2, optimizer='adam', lr=1e-3}]"
    trained = purebench_here("train", "undefended", "--out", tmp_path / "weights", "--set", phases)
    assert trained.returncode == 0, trained.stderr
    file = tmp_path / "weights/digits/undefended.safetensors"
    assert trained.stdout.strip() == str(file)
    side = json.loads(file.with_suffix(".json").read_text())
    assert side["recipe"]["seed"] == 0
    chosen = ["--defense", "undefended", "--attack", "foolbox:LinfPGD", "--quiet"]
    root = ["--weights-root", tmp_path / "weights"]
    assert purebench_here("run", "quickstart", "--out", tmp_path / "out", *root, *chosen).returncode == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["defenses"]["undefended"]["weights"]["undefended"] == side["sha256"]
    assert purebench_here("train", "adp", "--stability").returncode == 2
    assert purebench_here("train", "undefended", "--set", "batch").returncode == 2


def test_an_import_of_a_library_is_known_and_that_of_a_plugin_is_none(tmp_path, monkeypatch):
    text = "from bench.cli.main import _is_importing\nfound = _is_importing()\ndef attack():\n    return found\n"
    (tmp_path / "library_of_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("library_of_test").found
    assert not _is_importing()
    (tmp_path / "plugin.py").write_text(text)
    assert not load_object(f"{tmp_path / 'plugin.py'}:attack")()
