"""The manifest of a results folder: board, defenses, plan and runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, cast

from bench.spec.cell import SCHEMA
from bench.store.environment import RunRecord, describe_run
from bench.store.folder import Store, write_atomic
from bench.store.parts import refuse_newer, sha256
from defenses.utils.checksums import is_whole, with_checksum
from defenses.utils.errors import UserError
from defenses.utils.hints import warn
from defenses.utils.json_values import Json, JsonView

_OPTIONAL = "preset", "presets", "protocols", "notes"  # facts that only some boards have


class Manifest(TypedDict, total=False):
    """A manifest; boards of attacks have all keys, those of other tracks some of them and their own.

    Args:
        schema: of the whole folder.
        defenses: fingerprints by title.
        preset, presets, protocols, notes: only some boards have them.
        plan: SHA-256 of plan.jsonl.
        sum: of the manifest itself, see `defenses.utils.checksums`.
    """

    schema: int
    board: str
    title: str
    dataset: str
    split: str
    indices: str
    seed: int
    budget: str
    defenses: dict[str, Json]
    preset: dict[str, object]
    presets: list[dict[str, object]]
    protocols: dict[str, object]
    notes: list[str]
    runs: list[RunRecord]
    plan: str | None
    sum: str


Facts = Callable[[Manifest], Mapping[str, object]]  # from the present manifest to its new facts


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; empty where it is missing or damaged."""
    return _parse(_raw(folder)) or {}


def read_runs(folder: Path) -> list[Json]:
    """Return the runs of a results folder of any kind; none where it has no manifest.

    Raises:
        UserError: the manifest is damaged.
    """
    name = "plan.json" if (folder / "plan.json").is_file() else "manifest.json"  # of a poisoning board, or others
    raw = _raw(folder, name)
    content = _parse(raw)
    if raw is not None and content is None:
        raise UserError(f"{folder / name} is damaged; run the same again, which writes it anew")
    return [dict(run) for run in content["runs"]] if content and "runs" in content else []


def _raw(folder: Path, name: str = "manifest.json") -> bytes | None:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return b""  # unreadable: damaged, not missing


def _parse(raw: bytes | None) -> Manifest | None:
    """Return the contents of a manifest; None where it is missing or damaged."""
    content = _json(raw)
    runs = content.get("runs", []) if isinstance(content, dict) and is_whole(content) else None
    if not isinstance(runs, list) or not all(isinstance(r, dict) and isinstance(r.get("id"), str) for r in runs):
        return None
    return cast("Manifest", content)


def _json(raw: bytes | None) -> object:
    try:
        return json.loads(raw or b"")
    except (ValueError, RecursionError):
        return None


def check_schema(folder: Path) -> None:
    """Refuse a folder that a newer version wrote.

    Raises:
        UserError: its manifest has a newer schema.
    """
    refuse_newer(folder / "manifest.json", _json(_raw(folder)))


def check_manifest(folder: Path) -> None:
    """Refuse a damaged manifest or plan.

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


def check_board(folder: Path, name: str, keys: Collection[str] | None = None) -> None:
    """Refuse the folder of another board, whose rows would hide this one's.

    Args:
        folder: of results.
        name: of the board.
        keys: of the cells of a board that is named after its file, which may have been renamed: a folder with a plan of
            these cells is its own, under any name. None: the name decides.

    Raises:
        UserError: the folder holds the results of another board, or of a newer version.
    """
    check_schema(folder)
    other = read_manifest(folder).get("board", name)
    if other == name or (keys is not None and plans(folder, keys)):
        return
    problem = f'{folder} holds results of the board "{other}", not of "{name}"; choose another folder with --out'
    remedy = "" if keys is None else f', or write name = "{other}" into the board if it is that one, changed'
    raise UserError(problem + remedy)


def check_one_board(a: Path, b: Path) -> None:
    """Refuse two results folders whose boards have different names; a folder without one is of any board.

    Raises:
        UserError: it names both boards.
    """
    one, other = (read_manifest(folder).get("board") for folder in (a, b))
    if one and other and one != other:
        raise UserError(f'{a} holds results of the board "{one}", {b} of "{other}"; name results of one board')


def plans(folder: Path, keys: Collection[str]) -> bool:
    """Return True if the plan of a folder has these cells and no others.

    Args:
        folder: of results; it need not exist.
        keys: of the cells, each once.
    """
    lines = _plan_keys(folder)
    return len(lines) == len(keys) and set(lines) == set(keys)


def planned(folder: Path) -> set[str]:
    """Return the keys of the cells in the plan of a folder; none where it is missing or damaged."""
    return set(_plan_keys(folder))


def _plan_keys(folder: Path) -> list[str]:
    try:
        lines = (folder / "plan.jsonl").read_text(encoding="utf-8").splitlines()
        return [str(json.loads(line)["key"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []  # missing, or damaged


def earlier_name(folder: Path, name: str) -> str:
    """Return the name under which a folder keeps the results of a board, if it is another one; else "".

    Args:
        folder: of results.
        name: of the board.
    """
    other = str(read_manifest(folder).get("board", name))
    return "" if other == name else other


@contextmanager
def record_run(
    folder: Path, name: str, defenses: Mapping[str, Mapping[str, object]], device: str = "cpu", **facts: object
) -> Iterator[Callable[[], None]]:
    """Record a run in the manifest of a folder of JSON-lines files, to which several commands may add defenses.

    Args:
        folder: the results folder.
        name: name in place of a board's.
        defenses: fingerprints by title.
        device: where models run.
        **facts: further facts of the results, as the data set.

    Yields:
        A function to call before each computation: its first call writes the manifest with a new run. Without a call
        nothing is written.

    Raises:
        UserError: the folder holds the results of another name, or of a newer version.
    """
    import torch

    check_board(folder, name)
    run: RunRecord = {}
    stated = {"schema": SCHEMA, "board": name, **facts}

    def write() -> None:
        _write(Store(folder), lambda old: stated | {"defenses": {**old.get("defenses", {}), **defenses}}, run)

    def begin() -> None:
        if not run:
            run.update(describe_run(torch.get_num_threads(), 0, device))
            write()

    start = time.perf_counter()
    yield begin
    if run:
        run["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        run["seconds"] = round(time.perf_counter() - start, 3)
        write()


def update_manifest(store: Store, facts: Mapping[str, object], run: RunRecord | None = None) -> None:
    """Write a board's facts, and add or replace a run; write nothing where nothing changes.

    A damaged manifest is moved to manifest.json.damaged, with a warning.
    """
    _write(store, lambda _: facts, run)


def _write(store: Store, facts: Facts, run: RunRecord | None) -> None:
    raw, plan = _raw(store.folder), _plan_hash(store.folder)
    # A manifest of an older version lacks these keys; where nothing else differs it is left as it is.
    checked = (_parse(raw) or {}).keys() & {"plan", "sum"}
    if raw == _text(raw, facts, run, plan) or (not checked and raw == _dump(_content(raw, facts, run))):
        return
    path = store.folder / "manifest.json"
    with store.lock("manifest", wait=True):
        raw = _raw(store.folder)
        if raw is not None and _parse(raw) is None:
            moved = path.with_name("manifest.json.damaged")
            os.replace(path, moved)
            warn(f"{path} is damaged; it is now {moved.name}, and a new one begins")
        write_atomic(path, _text(raw, facts, run, _plan_hash(store.folder)))


def _plan_hash(folder: Path) -> str | None:
    plan = folder / "plan.jsonl"
    return sha256(plan) if plan.is_file() else None


def _text(raw: bytes | None, facts: Facts, run: RunRecord | None, plan: str | None) -> bytes:
    return _dump(with_checksum(_content(raw, facts, run) | {"plan": plan}))


def _dump(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _content(raw: bytes | None, facts: Facts, run: RunRecord | None) -> dict[str, object]:
    old: Manifest = _parse(raw) or {}
    content = {key: value for key, value in old.items() if key not in _OPTIONAL} | dict(facts(old))
    if run is not None:
        content["runs"] = [*(r for r in old.get("runs", []) if r["id"] != run["id"]), run]
    return content


def forced_defenses(manifest: Manifest) -> set[str]:
    """Return the digests of defenses that were run with --force although they return probabilities."""
    return {digest for run in manifest.get("runs", []) for digest in run.get("probabilities", {}).values()}


def shards_of(runs: Iterable[RunRecord]) -> dict[str, bool]:
    """Return the shards that runs were of, as "3/16"; True of one whose run came to its end."""
    shards: dict[str, bool] = {}
    for run in runs:
        if (shard := run.get("shard")) is not None:
            shards[shard] = shards.get(shard, False) or "finished" in run
    return shards


def resumed_anyway(manifest: JsonView) -> dict[str, str]:
    """Return the reasons, by label, why results that were taken over may be of another model."""
    return {label: reason for run in manifest.get("runs", []) for label, reason in run.get("resumed", {}).items()}
