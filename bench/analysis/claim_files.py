"""Read published claims from TOML files; those of purebench lie in `leaderboards/claims`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import leaderboards
from bench.spec.threat import ThreatModel
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError, gathered
from defenses.utils.validation import Count, Kind, number, validated

CLAIMS = Path(leaderboards.__file__).parent / "claims"
_WEIGHTS = re.compile(r"sha256:[0-9a-f]{64}|robustbench:[\w-]+/[\w-]+/[\w-]+")


def _share(value: object) -> float | None:
    """Return an accuracy, which may be a text; None for an empty one."""
    return None if value == "" else float(number(value))


def _threat(text: str) -> str:
    """Return a threat in canonical form."""
    if not text:
        return ""
    norm, space, eps = text.partition(" ")
    if not space:
        raise UserError(f'threat is "{text}"; write norm and radius, as "Linf 8/255"')
    threat = ThreatModel.of(norm, eps)
    return f"{threat.norm} {threat.eps}"


_Share = Annotated[
    float | None, Kind("a share between 0 and 1, as 0.4321", lambda v: v is None or 0 <= v <= 1, read=_share)
]
_Said = Annotated[str, Kind("a text, and not empty", str.strip)]
_Weights = Annotated[
    str, Kind('"sha256:" and 64 hex digits, or as "robustbench:cifar10/Linf/Wong2020Fast"', _WEIGHTS.fullmatch)
]


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
        like: gradient mode or attack of purebench nearest to the protocol, as "bpda", for readers; "": unknown.
        note: further facts.
    """

    defense: _Said
    paper: _Said
    kind: Literal["claim", "re-evaluation"]
    dataset: _Said
    threat: Annotated[str, Kind("a text", make=_threat)]
    clean: _Share
    robust: _Share
    attack: str
    source: _Said
    evidence: Literal["paper", "code", "log", "secondary"]
    year: Count | None = None
    url: str = ""
    network: str = ""
    weights: tuple[_Weights, ...] = ()
    n: Count | None = None
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


def interval_of(share: float | None, n: int | None) -> tuple[float, float]:
    """Return the Wilson interval of a share; NaN where share or n is not told."""
    if share is None or n is None:
        return float("nan"), float("nan")
    low, high = wilson(share * n, n)
    return float(low), float(high)


def read_claims(path: str | Path = CLAIMS) -> list[Claim]:
    """Read the claims of a TOML file, or of all TOML files of a folder.

    A file has a table [[claims]] for each claim; keys above the first hold for all claims of the file that do not say
    otherwise.

    Args:
        path: the file or folder. Default: the claims that come with purebench.

    Raises:
        UserError: no such file, not TOML, unknown or missing keys, values of the wrong kind or out of range.
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
    return claims_of(raw, str(path))


def claims_of(raw: Mapping[str, Any], where: str) -> list[Claim]:
    """Return the claims of a parsed TOML file.

    Args:
        raw: its tables [[claims]], and the keys that hold for all of them.
        where: name of the file, for messages.

    Raises:
        UserError: no claims, unknown or missing keys, values of the wrong kind or out of range.
    """
    tables, shared = raw.get("claims"), {key: value for key, value in raw.items() if key != "claims"}
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{where} has no claims; write a table [[claims]] for each")
    numbered = ((f"{where}: claim {number}", shared | table) for number, table in enumerate(tables, 1))
    return gathered(lambda claim: _claim(*claim), numbered)


def _claim(where: str, raw: Mapping[str, Any]) -> Claim:
    try:
        claim: Claim = validated(Claim, {"clean": "", "robust": "", **raw})
        if claim.clean is None and claim.robust is None:
            raise UserError('it has no number; write robust = "0.4321"')
        return claim
    except UserError as error:
        raise error.within(where) from None
