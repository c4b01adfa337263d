"""A process that has imported everything and forks for each command, so that a kill costs no import.

One JSON line in: {"jobs": [{"argv": [...], "conditions": [[name, *arguments], ...]}, ...]}; one JSON line out: for each
job its exit code (negative: the signal), what it printed, and its seconds. Jobs of a line run at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

NOT_PERMITTED = 77
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000


def _namespace() -> None:
    """Mounts of one's own, with the right to make them."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS | (_NEW_USERS if uid else 0)):
        os._exit(NOT_PERMITTED)
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        os._exit(NOT_PERMITTED)


def tmpfs(folder: str, kib: int, copy: str) -> None:
    """A small disk at `folder`; what is on it at the end is copied to `copy`."""
    _namespace()
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder)
    if os.path.isdir(copy):
        shutil.copytree(copy, folder, dirs_exist_ok=True)
    _AT_END.append(lambda: (shutil.rmtree(copy, ignore_errors=True), shutil.copytree(folder, copy)))


def readonly(folder: str) -> None:
    """`folder` on a disk that is mounted for reading only."""
    _namespace()
    _mount("--make-rprivate", "/")
    _mount("--bind", folder, folder)
    _mount("-o", "remount,bind,ro", folder)


def nobody() -> None:
    """A user who may write nothing."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def clock(step: float) -> None:
    """Every look at the clocks finds them `step` seconds earlier than the look before."""
    looks = [0]
    honest = {name: getattr(time, name) for name in ("time", "perf_counter", "monotonic")}

    def back(name: str) -> object:
        def look() -> float:
            looks[0] += 1
            return float(honest[name]()) - step * looks[0]

        return look

    for name in honest:
        setattr(time, name, back(name))
    gmtime = time.gmtime
    time.gmtime = lambda *given: gmtime(*(given or (time.time(),)))  # type: ignore[assignment, misc]


def _at_call(folder: str, then: object) -> None:
    """Call `then(number, path)` before every call that changes something in `folder`."""
    count, own = [0], os.fsync

    def touch(path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(folder):
            count[0] += 1
            then(count[0], path)  # type: ignore[operator]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if (event == "open" and isinstance(arguments[2], int) and arguments[2] & writes) or event in (
            "os.mkdir",
            "os.rename",
        ):
            touch(arguments[0])

    def fsync(handle: int) -> None:
        touch(os.readlink(f"/proc/self/fd/{handle}"))
        own(handle)

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]
    _AT_END.append(lambda: print(f"calls {count[0]}", file=sys.stderr))


def kill_at(folder: str, n: int) -> None:
    """SIGKILL at the n-th call that changes something in `folder`."""
    _at_call(folder, lambda i, _: os.kill(os.getpid(), signal.SIGKILL) if i == n else None)


def fail_from(folder: str, n: int, name: str) -> None:
    """From the n-th call on, all that would change something in `folder` fail."""

    def then(i: int, path: object) -> None:
        if i >= n:
            code = getattr(errno, name)
            raise OSError(code, os.strerror(code), path)

    _at_call(folder, then)


def variable(name: str, value: str) -> None:
    """An environment variable."""
    os.environ[name] = value


def internet(url: str) -> None:
    """Whatever `requests` asks for comes from `url`."""
    from requests.adapters import HTTPAdapter

    honest = HTTPAdapter.send

    def send(self: HTTPAdapter, request: object, **options: object) -> object:
        request.url = url + request.path_url  # type: ignore[attr-defined]
        return honest(self, request, **options | {"proxies": {}})  # type: ignore[arg-type]

    HTTPAdapter.send = send  # type: ignore[method-assign, assignment]


_CONDITIONS = {f.__name__: f for f in (tmpfs, readonly, nobody, clock, kill_at, fail_from, variable, internet)}
_AT_END: list[object] = []


def _child(job: dict, out: str, err: str) -> None:  # type: ignore[type-arg]
    from bench.cli.main import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, handle in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), handle)
    code = 1
    try:
        for name, *arguments in job.get("conditions", []):
            if name in _CONDITIONS:
                _CONDITIONS[name](*arguments)
        code = main(job["argv"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:
        traceback.print_exc()
    for last in _AT_END:
        last()  # type: ignore[operator]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(jobs: list[dict]) -> list[dict]:  # type: ignore[type-arg]
    """Fork for every job, send the signals that are asked for, and wait."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for i, job in enumerate(jobs):
            files = f"{folder}/{i}.out", f"{folder}/{i}.err"
            begin, pid = time.perf_counter(), os.fork()
            if pid == 0:
                _child(job, *files)
            started.append((job, pid, begin, files))
        answers = []
        for job, pid, begin, files in started:
            code = _wait(pid, begin, job.get("signals", []))
            texts = [open(f, errors="replace").read() if os.path.exists(f) else "" for f in files]  # noqa: SIM115
            seconds = time.perf_counter() - begin
            answers.append({"code": code, "stdout": texts[0], "stderr": texts[1], "seconds": seconds})
        return answers


def _wait(pid: int, begin: float, signals: list[tuple[float | str, str]]) -> int:
    """The exit code; `signals` are sent that many seconds after the start, or when the file of that name is there."""
    for after, name in signals:
        while not os.path.exists(after) if isinstance(after, str) else time.perf_counter() - begin < after:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, getattr(signal, name))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve() -> None:
    """Answer until the input ends; the first line names the modules to import before anything is forked."""
    import torch

    for name in json.loads(sys.stdin.readline()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line)["jobs"])), flush=True)


if __name__ == "__main__":
    serve()
