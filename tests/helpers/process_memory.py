"""The memory of a command and of the processes that it starts, read from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from boards import ROOT

# The peak of a process counts that of the one that forked it, so a small one does.
_LAUNCHER = """
import resource, subprocess, sys, time
begin = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""
_PERIOD = 0.05  # seconds
_IMPORTED = "import time:"  # lines of `python -X importtime`


@dataclass
class Watched:
    """What a command took.

    Args:
        code: exit code.
        output: standard output and error.
        peaks: the most resident memory of each process in MiB, by its number.
        imports: MiB after the imports alone, by the same number: of a process that imports all modules that the command
            and its workers import, for the command; of the server that forks it, for a worker.
        workers: the numbers of the workers.
        first: seconds until the first file that `mark` named was there; None: never.
    """

    code: int
    output: str
    peaks: dict[int, float] = field(default_factory=dict)
    imports: dict[int, float] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    first: float | None = None

    @property
    def above(self) -> dict[int, float]:
        """MiB of the command and each worker above their imports."""
        return {number: self.peaks[number] - self.imports[number] for number in self.imports}


@dataclass(frozen=True)
class Taken:
    """What a command took, with its imports.

    Args:
        seconds: on the clock.
        processor: seconds of the processor, of all threads and processes; on an idle machine the clock shows no more.
        peak: the most resident memory of one process, in MiB.
    """

    seconds: float
    processor: float
    peak: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.processor:.1f} s of the processor, {self.peak:.0f} MiB"


def taken(*command: object, cwd: Path = ROOT, codes: tuple[int, ...] = (0,)) -> Taken:
    """Run a command, measured from outside.

    Args:
        *command: its words.
        cwd: its folder.
        codes: exit codes that it may have.

    Raises:
        SystemExit: it has another one.
    """
    words = [sys.executable, "-c", _LAUNCHER, *map(str, command)]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    seconds, processor, peak = map(float, done.stdout.split())
    return Taken(seconds, processor, peak / 1024)


def watched(*arguments: object, cwd: Path, mark: str) -> Watched:
    """Run a command of purebench, and read the memory of its processes until it ends.

    Args:
        *arguments: of the command.
        cwd: its folder.
        mark: pattern below the folder of a file whose appearance is timed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    command = [sys.executable, "-X", "importtime", "-m", "bench", *map(str, arguments)]
    with (cwd / "output.txt").open("w") as output:
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)
        found, server = Watched(-1, ""), None
        while process.poll() is None:
            for child in _family(process.pid):
                with contextlib.suppress(psutil.Error, OSError, ValueError, IndexError):
                    found.peaks[child.pid] = max(found.peaks.get(child.pid, 0.0), _peak(child.pid))
                    parent = child.ppid()
                    if parent == process.pid and "forkserver" in " ".join(child.cmdline()):
                        server = child.pid
                    elif parent == server:
                        found.workers.add(child.pid)
            if found.first is None and next(cwd.glob(mark), None) is not None:
                found.first = time.monotonic() - begin
            time.sleep(_PERIOD)
    lines = (cwd / "output.txt").read_text().splitlines()
    found.code, found.output = process.returncode, "\n".join(x for x in lines if not x.startswith(_IMPORTED))
    modules = [x.rpartition("|")[2].strip() for x in lines if x.startswith(_IMPORTED)]
    server_peak = found.peaks.get(server or 0, 0.0)
    found.imports = {process.pid: _imports(modules, cwd), **dict.fromkeys(found.workers, server_peak)}
    return found


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _imports(modules: list[str], cwd: Path) -> float:
    """MiB of a process that has imported some modules, and done nothing else."""
    (cwd / "modules.py").write_text(f"MODULES = {list(dict.fromkeys(modules))}\n" + _IMPORTING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(cwd / "modules.py")]
    told = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return int(told.stdout.split()[-1]) / 1024


_IMPORTING = """
import contextlib, importlib
for name in MODULES:
    with contextlib.suppress(BaseException):  # of the user's code, which has other names there
        importlib.import_module(name)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
