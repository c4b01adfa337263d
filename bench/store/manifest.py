"""The manifest: on what, with what and by which command results were made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.board.board import Board
from bench.spec.cell import SCHEMA
from bench.store.folder import Store, write_atomic
from bench.store.parts import refuse_newer, sha256
from defenses.utils.checksums import is_whole, sealed
from defenses.utils.errors import UserError

_ENVIRONMENT = ("torch", "threads", "device", "processor")

_OPTIONAL = "preset", "protocols"  # facts of some boards
Facts = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # of what the manifest says now

_PACKAGES = (
    *("purebench", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "safetensors"),
    *("foolbox", "torchattacks", "autoattack", "pyautoattack", "robustbench"),
)


def versions() -> dict[str, str]:
    """Installed versions of everything that results depend on; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    here = Path(__file__).parents[1]

    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--", ".", "../defenses")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_run(threads: int, workers: int, device: str) -> dict[str, Any]:
    """One entry of the manifest's runs."""
    return {
        "id": uuid.uuid4().hex[:12],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["purebench", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "purebench" else "(from Python)",
        "versions": versions(),
        "git": _git(),
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system(), "device": device},
        "threads": threads,
        "workers": workers,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; empty when there is none, or it is damaged."""
    return _parse(_raw(folder)) or {}


def _raw(folder: Path) -> bytes | None:
    try:
        return (folder / "manifest.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return b""  # there, and not to be read


def _parse(raw: bytes | None) -> dict[str, Any] | None:
    """The contents of a manifest; None when there is none or it is none."""
    content = _json(raw)
    runs = content.get("runs", []) if isinstance(content, dict) and is_whole(content) else None
    if not isinstance(runs, list) or not all(isinstance(r, dict) and isinstance(r.get("id"), str) for r in runs):
        return None
    return dict(content)


def _json(raw: bytes | None) -> Any:
    try:
        return json.loads(raw or b"")
    except (ValueError, RecursionError):
        return None


def check_schema(folder: Path) -> None:
    """Refuse a folder of a newer version.

    Raises:
        UserError: its manifest says so.
    """
    refuse_newer(folder / "manifest.json", _json(_raw(folder)))


def check_manifest(folder: Path) -> None:
    """Refuse to read by a manifest or a plan that is not what was written.

    Raises:
        UserError: the manifest is damaged or of a newer version, or the plan is not the one that it names.
    """
    check_schema(folder)
    raw, remedy = _raw(folder), "run the board again, which writes it anew"
    content = _parse(raw)
    if raw is not None and content is None:
        raise UserError(f"{folder / 'manifest.json'} is damaged; {remedy}")
    plan = folder / "plan.jsonl"
    if content and content.get("plan") and plan.is_file() and content["plan"] != sha256(plan):
        raise UserError(f"{plan} is damaged, or of another run; {remedy}")


def check_board(folder: Path, board: Board) -> None:
    """Two boards in one folder would hide each other's rows.

    Raises:
        UserError: the folder holds the results of a board of another name, or of a newer version.
    """
    _check_name(folder, board.name)


def _check_name(folder: Path, name: str) -> None:
    check_schema(folder)
    other = read_manifest(folder).get("board", name)
    if other != name:
        raise UserError(
            f'{folder} holds results of the board "{other}", not of "{name}"; choose another folder with --out'
        )


@contextmanager
def journal(
    folder: Path, name: str, defenses: Mapping[str, Mapping[str, Any]], device: str = "cpu", **facts: Any
) -> Iterator[Callable[[], None]]:
    """The manifest of a folder of ledgers, to which several commands may add defenses.

    Args:
        folder: of the results.
        name: what stands in place of a board's name.
        defenses: fingerprints by title.
        device: where models run.
        **facts: what else the results are of, as the data set.

    Yields:
        What is called before anything is computed: the first call writes the manifest, with a run of its own. Where
        nothing is computed, nothing is written.

    Raises:
        UserError: the folder holds the results of another name, or of a newer version.
    """
    import torch

    _check_name(folder, name)
    run: dict[str, Any] = {}
    stated = {"schema": SCHEMA, "board": name, **facts}

    def write() -> None:
        _write(Store(folder), lambda old: stated | {"defenses": {**old.get("defenses", {}), **defenses}}, run)

    def begin() -> None:
        if not run:
            run.update(describe_run(torch.get_num_threads(), 0, device))
            write()

    begun = time.perf_counter()
    yield begin
    if run:
        run["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        run["seconds"] = round(time.perf_counter() - begun, 3)
        write()


def update_manifest(store: Store, board: Board, run: dict[str, Any] | None = None) -> None:
    """Write the board's facts, and add or replace a run. Where all is there already, nothing is written.

    A damaged manifest is moved to manifest.json.damaged, with a warning.
    """
    _write(store, lambda _: _facts(board), run)


def _write(store: Store, facts: Facts, run: dict[str, Any] | None) -> None:
    raw, plan = _raw(store.folder), _plan_hash(store.folder)
    old = (_parse(raw) or {}).keys() & {"plan", "sum"}  # a manifest of an older version is left, if that is all
    if raw == _text(raw, facts, run, plan) or (not old and raw == _dump(_content(raw, facts, run))):
        return
    path = store.folder / "manifest.json"
    with store.lock("manifest", wait=True):
        raw = _raw(store.folder)
        if raw is not None and _parse(raw) is None:
            moved = path.with_name("manifest.json.damaged")
            os.replace(path, moved)
            print(f"warning: {path} is damaged; it is now {moved.name}, and a new one begins", file=sys.stderr)
        write_atomic(path, _text(raw, facts, run, _plan_hash(store.folder)))


def _plan_hash(folder: Path) -> str | None:
    plan = folder / "plan.jsonl"
    return sha256(plan) if plan.is_file() else None


def _text(raw: bytes | None, facts: Facts, run: dict[str, Any] | None, plan: str | None) -> bytes:
    return _dump(sealed(_content(raw, facts, run) | {"plan": plan}))


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _content(raw: bytes | None, facts: Facts, run: dict[str, Any] | None) -> dict[str, Any]:
    old = _parse(raw) or {}
    content = {key: value for key, value in old.items() if key not in _OPTIONAL} | dict(facts(old))
    if run is not None:
        content["runs"] = [*(r for r in content.get("runs", []) if r["id"] != run["id"]), run]
    return content


def _facts(board: Board) -> dict[str, Any]:
    said = zip(_OPTIONAL, (board.preset.as_dict() if board.preset else {}, board.protocols.as_dict()), strict=True)
    return {
        "schema": SCHEMA,
        "board": board.name,
        "title": board.title,
        "dataset": board.dataset,
        "split": board.split,
        "indices": board.indices,
        "seed": board.seed,
        "budget": board.budget,
        "defenses": {d.title: dict(d.fingerprint) for d in board.defenses},
        **{key: value for key, value in said if value},
    }


def mixed(lines: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of cells that were not all computed alike.

    Args:
        lines: of cells, each with "defense", "status" and "run".
        manifest: see `read_manifest`.

    Returns:
        One footnote per defense whose finished cells come from runs that differ in the version of torch, threads,
        device or processor, as "adp: cells from 2 environments: torch 2.15.0 / 2.16.0".
    """
    environments = {r["id"]: _environment(r) for r in manifest.get("runs", [])}
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for line in lines:
        if line["status"] == "ok":
            environment = environments.get(line.get("run"), ("unknown",) * len(_ENVIRONMENT))
            found.setdefault(line["defense"], {})[environment] = None
    notes = []
    for defense, seen in found.items():
        values = [list(dict.fromkeys(column)) for column in zip(*seen, strict=True)]
        pairs = zip(_ENVIRONMENT, values, strict=True)
        differ = "; ".join(f"{name} {' / '.join(sorted(given))}" for name, given in pairs if len(given) > 1)
        if differ:
            notes.append(f"{defense}: cells from {len(seen)} environments: {differ}")
    return notes


def _environment(run: Mapping[str, Any]) -> tuple[str, ...]:
    hardware, packages = run.get("hardware") or {}, run.get("versions") or {}
    found = (packages.get("torch"), run.get("threads"), hardware.get("device"), hardware.get("processor"))
    return tuple("unknown" if value is None else str(value) for value in found)
