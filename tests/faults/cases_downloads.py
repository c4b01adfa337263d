"""Downloads that end half way."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from zoo import BOARD, SMALL, make_checkpoint

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told


@case(
    "SIGKILL in the middle of the download of a model of RobustBench's zoo",
    "no file under its name; the repeated command downloads all of it",
)
def killed(ground: Ground) -> Iterator[Outcome]:
    content, cache = make_checkpoint(ground.tmp / "made").read_bytes(), ground.tmp / "cache"
    folder = cache / "purebench/weights/robustbench/cifar10/corruptions"
    with _server(content, folder, ground.tmp / "half") as (url, asked):
        told = _zoo(ground, url, cache, signals=[(str(ground.tmp / "half"), "SIGKILL")])
        assert told.code == -signal.SIGKILL, told
        left = [p for p in folder.rglob("*") if p.is_file()]
        assert [p for p in left if 0 < p.stat().st_size < len(content)]  # it was in mid-file
        assert not [p for p in left if p.name == f"{SMALL}.pt"]
        assert not (ground.tmp / "out").exists()
        yield Outcome(_zoo(ground, url, cache), code=0)
        assert (folder / f"{SMALL}.pt").read_bytes() == content
        assert len(asked) == 2
        assert {p.name for p in folder.iterdir()} == {f"{SMALL}.pt"}  # nothing of the killed one
    lines = (next((ground.tmp / "out/parts").glob("all-*")) / "cells.jsonl").read_text().splitlines()
    weights = json.loads(lines[0])["identity"]["defense"]["weights"]
    assert weights == {f"{SMALL}.pt": hashlib.sha256(content).hexdigest()}


@case("a line that breaks in the middle of that download", "one line that names the file; nothing is left")
def broken_line(ground: Ground) -> Iterator[Outcome]:
    content, cache = make_checkpoint(ground.tmp / "made").read_bytes(), ground.tmp / "cache"
    folder = cache / "purebench/weights/robustbench/cifar10/corruptions"
    with _server(content, folder, None) as (url, _):
        yield Outcome(_zoo(ground, url, cache), ("could not be downloaded", str(folder / f"{SMALL}.pt")))
        assert not list(folder.iterdir())
        assert not (ground.tmp / "out").exists()


def _zoo(ground: Ground, url: str, cache: Path, signals: list[tuple[str, str]] | None = None) -> Told:
    """Run a board on the model."""
    data, board = ground.tmp / "own.npz", ground.tmp / "zoo.toml"
    x = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    np.savez(data, x=x, y=np.arange(2), num_classes=10)
    board.write_text(BOARD.format(data=data, model=SMALL))
    places = [("XDG_CACHE_HOME", cache), ("HOME", cache), ("PUREBENCH_WEIGHTS", cache / "none")]
    conditions = [["variable", name, str(place)] for name, place in places]
    return ground.forked(board, ground.tmp / "out", *conditions, ["internet", url], signals=signals or ())


@contextmanager
def _server(content: bytes, folder: Path, mark: Path | None) -> Iterator[tuple[str, list[str]]]:
    """A server that sends the first caller half of the content; yields its address, and the paths asked for.

    Args:
        content: what is sent.
        folder: where it arrives.
        mark: made when a part has arrived, upon which the server waits; None: it hangs up there.
    """
    asked: list[str] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Disposition", 'attachment; filename="model.pt"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if len(asked) > 1 else content[: len(content) // 2])
            if len(asked) == 1 and mark is not None:
                end = time.monotonic() + 60
                while time.monotonic() < end and not any(p.is_file() and p.stat().st_size for p in folder.rglob("*")):
                    time.sleep(0.01)
                mark.touch()
                over.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
