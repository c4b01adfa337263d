"""Read published claims from TOML files; those of purebench lie in `leaderboards/claims`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import leaderboards
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_number

CLAIMS = Path(leaderboards.__file__).parent / "claims"
KINDS = ("claim", "re-evaluation")
EVIDENCE = ("paper", "code", "log", "secondary")
_TEXTS = ("defense", "paper", "kind", "dataset", "threat", "attack", "source", "evidence")  # required
_MAY_BE_EMPTY = ("threat", "attack")
_SHARES = ("clean", "robust")
_WEIGHTS = re.compile(r"sha256:[0-9a-f]{64}|robustbench:[\w-]+/[\w-]+/[\w-]+")


@dataclass(frozen=True)
class Claim:
    """A published accuracy of a defense.

    Args:
        defense: a registered name, or another one for tables.
        paper: where it was published.
        kind: "claim" (of the defense's authors) or "re-evaluation" (of others).
        dataset: name of the data set.
        threat: norm and radius, as "Linf 8/255"; "" where there is no ball of a norm.
        clean: accuracy on clean images in [0, 1]; None: not told.
        robust: accuracy under the attack in [0, 1]; None: not told.
        attack: in words.
        source: where the numbers were read.
        evidence: what was read: "paper" (its text), "code" (its authors' repository), "log" (their logs or raw data)
            or "secondary" (a later table or a summary).
        year: of the paper.
        url: of the paper.
        network: in words.
        weights: of its networks, each "sha256:<64 hex digits>" of a weights file or of the published file that was
            imported, or "robustbench:<dataset>/<threat model>/<id>"; empty: unknown.
        n: number of images; None: not told.
        images: which ones, in words.
        protocol: further facts on the attack, in words.
        aggregation: of an image's draws: "mean", or as "worst of 10", "majority of 10", "certificate".
        like: gradient mode or attack label of the rows of purebench that follow the protocol, as "bpda"; "": unknown.
        note: further facts.
    """

    defense: str
    paper: str
    kind: str
    dataset: str
    threat: str
    clean: float | None
    robust: float | None
    attack: str
    source: str
    evidence: str
    year: int | None = None
    url: str = ""
    network: str = ""
    weights: tuple[str, ...] = ()
    n: int | None = None
    images: str = ""
    protocol: str = ""
    aggregation: str = "mean"
    like: str = ""
    note: str = ""

    @property
    def norm(self) -> str:
        """Norm of the threat; "" if there is none."""
        return self.threat.partition(" ")[0]

    @property
    def eps(self) -> Fraction | None:
        """Radius of the threat; None if there is none."""
        return Fraction(self.threat.partition(" ")[2]) if self.threat else None


_KEYS = tuple(f.name for f in fields(Claim))


def read_claims(path: str | Path = CLAIMS) -> list[Claim]:
    """Read the claims of a TOML file, or of all TOML files of a folder.

    A file has a table [[claims]] for each claim; keys above the first hold for all claims of the file that do not say
    otherwise.

    Args:
        path: the file or folder. Default: the claims that come with purebench.

    Raises:
        UserError: no such file, not TOML, unknown or missing key, a value of the wrong kind or out of range.
    """
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.toml"))
        if not files:
            raise UserError(f"{path} holds no TOML files of claims")
        return [claim for file in files for claim in read_claims(file)]
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None
    tables = raw.pop("claims", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{path} has no claims; write a table [[claims]] for each")
    claims = []
    for number, table in enumerate(tables, 1):
        try:
            claims.append(_claim(raw | table))
        except UserError as error:
            raise UserError(f"{path}: claim {number}: {error}") from None
    return claims


def _claim(raw: Mapping[str, Any]) -> Claim:
    for key in raw:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    values = {key: value for key, value in raw.items() if key not in _SHARES}
    for key in _TEXTS:
        if key not in raw:
            raise UserError(f'the key "{key}" is missing')
    for key, value in values.items():
        if key not in ("year", "n", "weights"):
            _check_text(key, value)
    for key, choices in (("kind", KINDS), ("evidence", EVIDENCE)):
        if raw[key] not in choices:
            raise unknown(key, raw[key], choices)
    values |= {key: _share(key, raw.get(key, "")) for key in _SHARES}
    if values["clean"] is None and values["robust"] is None:
        raise UserError('it has no number; write robust = "0.4321"')
    for key in ("year", "n"):
        if key in raw and (type(raw[key]) is not int or raw[key] < 1):
            raise UserError(f"{key} is {raw[key]!r}; it must be a whole number, at least 1")
    return Claim(**values | {"weights": _weights(raw.get("weights", [])), "threat": _threat(raw["threat"])})


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UserError(f"{key} is {value!r}; it must be a text")
    if key in _TEXTS and key not in _MAY_BE_EMPTY and not value.strip():
        raise UserError(f"{key} is empty; say it")


def _share(key: str, value: Any) -> float | None:
    """Return an accuracy, which may be a text; None for an empty one."""
    if value == "":
        return None
    number = None if isinstance(value, bool) or not isinstance(value, str | int | float) else as_number(str(value))
    if number is None or not 0 <= number <= 1:
        raise UserError(f"{key} is {value!r}; it must be a share between 0 and 1, as 0.4321")
    return float(number)


def _threat(text: str) -> str:
    """Return a threat in canonical form."""
    if not text:
        return ""
    norm, space, eps = text.partition(" ")
    if not space:
        raise UserError(f'threat is "{text}"; write norm and radius, as "Linf 8/255"')
    threat = ThreatModel(norm, eps)  # type: ignore[arg-type]
    return f"{threat.norm} {threat.eps}"


def _weights(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise UserError(f"weights is {names!r}; it must be a list of texts")
    for name in names:
        if not isinstance(name, str) or not _WEIGHTS.fullmatch(name):
            raise UserError(
                f'weights holds {name!r}; write "sha256:" and 64 hex digits, or "robustbench:cifar10/Linf/Wong2020Fast"'
            )
    return tuple(names)
