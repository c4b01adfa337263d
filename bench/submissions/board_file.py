"""The board of a row as a board file, made of its manifest and cells."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, cast

from bench.board.views import ATTACK
from bench.spec.cell import NULLS, PRECOMPUTED, RENAMED_FROM, TRANSFER, digest, label_of
from bench.spec.submission import CODE
from bench.store.manifest import Manifest
from bench.store.parts import CellRecord
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import portable, short_names
from defenses.utils.parameters import canonical
from defenses.zoo.composition import renamed

_NAMES = {stored: name for name, stored in RENAMED_FROM.items()}
_VIEW = {"gradient": "exact", "eot": 1, "runs": None, "output": "logits", "seed": "fresh"}  # what a view is by itself


def board_of(manifest: Manifest, label: str, lines: Sequence[CellRecord]) -> Json:
    """Return the tables of a board of one defense, and of those that its attacks are made on.

    Args:
        manifest: of the results.
        label: of the defense.
        lines: its cells, at least one, each with the identity that its key is made of.

    Raises:
        KeyError, TypeError, ValueError, IndexError: an identity that is none.
    """
    first = cast("Json", lines[0])
    eps = list(dict.fromkeys(str(line["eps"]) for line in lines))
    facts: Json = {"name": manifest.get("board"), "title": manifest.get("title"), "dataset": portable(first["dataset"])}
    facts |= {key: first[key] for key in ("split", "indices", "budget", "seed")}
    board: Json = {key: value for key, value in facts.items() if value is not None}
    board["block"] = max(line["images"] for line in lines)
    board["nulls"] = [*NULLS, *([TRANSFER] if any(_is_transfer(line) for line in lines) else [])]
    board["threat"] = {key: first[key] for key in ("norm", "targets", "knowledge")}
    board["threat"]["eps"] = eps[0] if len(eps) == 1 else eps
    if verdict := _verdict(manifest, lines):
        board["verdict"] = verdict
    board |= next(({"compute": _compute(line)} for line in lines if "compute" in line["identity"]), {})
    bare = {digest(line["identity"]["source"]) for line in lines if _is_transfer(line)}
    trained = {t: f for t, f in (manifest.get("defenses") or {}).items() if label_of(t) == label}
    own = {digest(fingerprint): title for title, fingerprint in trained.items()}
    sources = _sources(lines, own, bare)
    board["defense"] = [_without_params(_entry(label, trained), bool(bare & own.keys())), *sources.values()]
    labels = {key: str(entry["label"]) for key, entry in sources.items()} | own
    if attacks := _attacks(lines, labels):
        board["attack"] = [attack | {"on": [label]} for attack in attacks] if sources else attacks
    return board


def _is_transfer(line: CellRecord) -> bool:
    """Return True for the null attack on the classifier of another defense; a user's own may have its label."""
    name, params, _ = line["identity"]["attack"]
    is_null = {"name": name, "params": params} == {key: canonical(ATTACK[key]) for key in ("name", "params")}
    return is_null and line["attack"] == TRANSFER and "source" in line["identity"]


def _compute(line: CellRecord) -> Json:
    """Return the arithmetic of a cell's search."""
    precision, channels_last = line["identity"]["compute"]
    return {"precision": precision, "channels_last": channels_last}


def _verdict(manifest: Manifest, lines: Iterable[CellRecord]) -> Json:
    """Return the draws of a random defense, and what is computed of them."""
    of_random = [line["identity"]["verdict"] for line in lines if line["stochastic"] and not line.get("seed_known")]
    if not of_random:  # a source may be random, and nothing is counted on it
        return {}
    draws = {"draws": of_random[0][0], "selection": of_random[0][1]}
    return {key: value for key, value in (draws | dict(manifest.get("protocols") or {})).items() if value}


def _entry(label: str, trained: Mapping[str, JsonView]) -> Json:
    """Return the entry of a defense, given the fingerprints of its trainings by title."""
    fingerprint = next(iter(trained.values()))
    entry: Json = {"name": _located(str(fingerprint["name"])), "label": label}
    params = renamed(fingerprint.get("parameters") or {}, _located)
    if "threat_model" in fingerprint:
        params = {"threat_model": fingerprint["threat_model"]}
    if params := _without_none(params):
        entry["params"] = params
    if fingerprint.get("stochastic") is True:
        entry["stochastic"] = True
    several = any(f.get("training_seed") is not None for f in trained.values())  # that of seed 0 does not say so
    seeds = [int(f.get("training_seed") or 0) for f in trained.values()] if several else []
    return entry | ({"seeds": seeds} if seeds else {})


def _without_params(entry: Json, bare: bool) -> Json:
    """Return an entry without parameters if it is that of the null attack, which a board knows by their absence."""
    return {key: value for key, value in entry.items() if key != "params" or not bare}


def _sources(lines: Iterable[CellRecord], own: Container[str], bare: Container[str]) -> dict[str, Json]:
    """Return the entries of the defenses that attacks are made on, by the digest of their fingerprint.

    Cells do not know their labels: they are called by their names, those of one name are numbered.

    Args:
        lines: cells.
        own: digests of the trainings of the defense itself.
        bare: those of the null attack.
    """
    found: dict[str, JsonView] = {}
    for line in lines:
        source = line["identity"].get("source")
        if source and digest(source) not in own:
            found.setdefault(digest(source), source)
    names = [f"{short_names([str(source['name'])])[0]} as a source" for source in found.values()]
    labels = [f"{name} {names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    entries = {key: _entry(of, {of: source}) for (key, source), of in zip(found.items(), labels, strict=True)}
    return {key: _without_params(entry, key in bare) for key, entry in entries.items()}


def _located(name: str) -> str:
    """Return a name as it is called beside the code of the submission."""
    return f"{CODE}/{name}" if ".py:" in name else name


def _without_none(params: JsonView) -> Json:
    return {key: value for key, value in params.items() if value is not None}


def _attacks(lines: Iterable[CellRecord], sources: Mapping[str, str]) -> list[Json]:
    """Return the attacks in the order of the plan, each with its views.

    Args:
        lines: cells.
        sources: labels of the defenses that attacks are made on, by the digest of their fingerprint.
    """
    entries: dict[str, Json] = {}
    for line in lines:
        name, params, _ = line["identity"]["attack"]
        if name in NULLS or _is_transfer(line):
            continue
        named = _located(_NAMES.get(name, name))
        entry = entries.setdefault(line["attack"], {"label": line["attack"], "name": named, "views": []})
        if named == PRECOMPUTED:
            entry["name"] = line["attack"]
        if params := _without_none(params):
            entry["params"] = params
        seen = line["identity"]["view"]
        if source := line["identity"].get("source"):  # its view counts, not that of the judged defense
            entry["source"] = sources[digest(source)]
            seen = line["identity"].get("source_view") or list(_VIEW.values())
        gradient, eot, runs, output, *known = seen
        view = {"gradient": gradient, "eot": eot, "runs": runs, "output": output, "seed": (*known, "fresh")[0]}
        view = {key: value for key, value in view.items() if value != _VIEW[key]}
        if view not in entry["views"]:
            entry["views"].append(view)
    plain = [{key: value for key, value in entry.items() if key != "views"} for entry in entries.values()]
    return [e if any(e["views"]) else p for e, p in zip(entries.values(), plain, strict=True)]


def as_toml(board: Mapping[str, Any]) -> str:
    """Return the tables of a board as TOML: the keys of the board, then its tables."""
    lines = [f"{key} = {_value(value)}" for key, value in board.items() if not _is_table(value)]
    for key, value in board.items():
        for table in value if isinstance(value, list) and _is_table(value) else [value] if _is_table(value) else ():
            head = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            lines += ["", head, *(f"{name} = {_value(inner)}" for name, inner in table.items())]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _value(value: object) -> str:
    """Return a value of TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "_").isidentifier() else json.dumps(key)
