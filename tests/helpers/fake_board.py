"""Results folders whose every count is known, written by the real store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.evaluation.certificates import stored
from bench.spec.cell import digest
from bench.store.folder import CellResult, Store
from bench.store.manifest import update_manifest

HOSTILE = '</td><script>alert("1")</script>|_x_ [a](javascript:b) \\input{/etc/passwd} & 50% \x1b[31m\u202e=1'
SEL, HELD = 4, 15


def line(defense, attack, **more):
    """A planned cell as `Cell.columns` gives it."""
    view = more.pop("view", "exact")
    base = {
        "defense": defense, "attack": attack, "view": view, "gradient": view.split(",")[0], "eot": 1, "runs": None,
        "dataset": "digits", "split": "test", "indices": "first-6", "block": 0, "images": 6, "norm": "Linf",
        "eps": "1/5", "targets": "none", "knowledge": "white-box", "seed": 0, "draws": 1, "selection": 0,
        "stochastic": False, "minimisation": False, "budget": "full", "warnings": [],
    } | more  # fmt: skip
    key = "-".join(str(base.get(k)) for k in ("defense", "attack", "view", "eps", "block", "training_seed"))
    return {"key": hashlib.sha256(key.encode()).hexdigest()[:20]} | base


def result(planned, correct, correct_sel=None, *, wrong=1, problems=None, size=0.2, **columns):
    """The result of a cell: per image how many held-out and selection draws are right; the others say `wrong`."""
    n, stochastic = planned["images"], planned["stochastic"]
    held, sel = (HELD, SEL) if stochastic else (1, 0)
    correct = np.array(correct)
    chosen = np.array(correct_sel) if stochastic else correct
    ok = np.array([not p for p in problems]) if problems else np.ones(n, bool)
    index = np.arange(planned["block"], planned["block"] + n, dtype=np.int32)
    records = {
        "cell": [planned["key"]] * n, "index": index, "sha": [f"{i:016x}" for i in index],
        "label": np.zeros(n, np.int16), "target": np.full(n, -1, np.int16),
        "correct": (correct * ok).astype(np.int32), "draws": (ok * held).astype(np.int32),
        "correct_sel": (chosen * ok).astype(np.int32), "draws_sel": (ok * (sel or held)).astype(np.int32),
        "hits": np.zeros(n, np.int32), "hits_sel": np.zeros(n, np.int32), "rejected": np.zeros(n, np.int32),
        "margin": np.zeros(n, np.float32),
        **{name: np.full(n, size, np.float32) for name in ("linf", "l2", "l1", "l0")},
        "in_box": ok, "in_ball": ok, "finite": ok, "beyond": np.zeros(n, bool),
        "queries": np.full(n, 10.0), "forwards": np.full(n, 10.0), "backwards": np.full(n, 5.0),
        "seconds": np.full(n, 0.5), "status": ["ok" if o else "error" for o in ok],
        "error": problems or [""] * n,
    } | columns  # fmt: skip
    rows = [(i, d, d >= sel, int(d - sel < correct[i]) if d >= sel else int(d < chosen[i]))
            for d in range(sel + held) for i in range(n) if ok[i]]  # fmt: skip
    right = np.array([r[3] for r in rows], bool)
    logits = np.zeros((len(rows), 3), np.float16)
    logits[np.arange(len(rows)), np.where(right, 0, wrong)] = 2
    draws = {
        "cell": pa.array([planned["key"]] * len(rows), pa.string()).dictionary_encode(),
        "index": index[[r[0] for r in rows]], "draw": np.array([r[1] for r in rows], np.int16),
        "held_out": np.array([r[2] for r in rows], bool), "pred": np.where(right, 0, wrong).astype(np.int16),
        "margin": np.zeros(len(rows), np.float32), "rejected": np.zeros(len(rows), bool),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 3),
    }  # fmt: skip
    totals = {"seconds_attack": 3.0, "seconds_verdict": 1.0, "forwards": 60, "backwards": 30, "queries": 60}
    done = planned | {"status": "ok", "error": None} | totals
    return CellResult(done, records, draws, np.zeros((n, 1, 2, 2), np.float32))


def failed(planned, status, error):
    return CellResult(planned | {"status": status, "error": error})


def write(folder: Path, results, plan=None) -> Path:
    store = Store(folder)
    for r in results:
        store.save(r)
    planned = plan or [{k: v for k, v in r.line.items() if k in line("", "", training_seed=0)} for r in results]
    (folder / "plan.jsonl").write_text("".join(json.dumps(p) + "\n" for p in planned))
    defenses = {p["defense"]: {"name": p["defense"]} for p in planned}
    (folder / "manifest.json").write_text(json.dumps({"defenses": defenses}))
    stored.add(folder, {digest(f): {"passed": True} for f in defenses.values()})
    return folder


def recorded(folder, results, plan, run="a", started="2026-01-01T00:00:00Z", **facts):
    """As `write`, with a manifest that names the board and the run that made the cells."""
    for r in results:
        r.line["run"] = run
    columns = {*line("", ""), "training_seed"}
    write(folder, results, [{k: v for k, v in p.items() if k in columns} for p in plan])
    (folder / "manifest.json").unlink()
    about = {"schema": 1, "board": "fake", "title": "Fake", "defenses": {"plain": {"name": "plain"}}} | facts
    entry = {"id": run, "started": started, "finished": started, "seconds": 1.0, "versions": {"torch": run}}
    update_manifest(Store(folder), about, entry)
    return folder


def deterministic(name="plain", **more):
    return [
        result(line(name, "none", **more), [1, 1, 1, 1, 1, 0], size=0),
        result(line(name, "uniform", **more), [1, 1, 1, 1, 0, 0]),
        result(line(name, "apgd", **more), [1, 1, 0, 0, 1, 0]),
        result(line(name, "square", **more), [1, 0, 1, 0, 1, 1], size=0.1),
    ]


def stochastic(name="noisy"):
    more = {"stochastic": True, "draws": HELD, "selection": SEL, "view": "exact, 8 EOT x S runs"}
    return [
        result(line(name, "none", **more), [15, 15, 15, 15, 12, 3], [4, 4, 4, 4, 4, 1], size=0),
        result(line(name, "uniform", **more), [15, 15, 15, 12, 12, 3], [4, 4, 4, 4, 4, 1]),
        result(line(name, "apgd", **more), [15, 9, 6, 0, 9, 3], [4, 1, 2, 0, 3, 1]),
        result(line(name, "square", **more), [12, 3, 9, 6, 8, 0], [3, 2, 1, 1, 3, 0]),
    ]


def row(frame, defense, attack, **more):
    match = (frame["defense"] == defense) & (frame["attack"] == attack)
    for name, value in more.items():
        match &= frame[name] == value
    assert match.sum() == 1
    return frame[match].iloc[0]
