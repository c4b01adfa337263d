"""Hold what authors report in RobustBench's `model_info` JSON against the best known number in the same file."""

from __future__ import annotations

from pathlib import Path

from bench.analysis.claim_files import Claim, read_claims
from bench.analysis.claims import NOT_COMPARABLE, Verdict, claim_row, compare_shares
from bench.report.model_info import ModelInfo, read_model_info
from bench.spec.threat import NORMS
from bench.stats.proportions import wilson
from bench.store.kinds import Paths, paths_of

_IMAGES = {"imagenet": 5000}  # on which RobustBench evaluates; 10,000 of all others
_NOTE = "published numbers, unpaired"
AUTOATTACK = "autoattack_robust"  # accuracy under AutoAttack in [0, 1], None if unknown: more than a row of claims has


def further_claims(paths: Paths) -> tuple[list[Claim], list[dict[str, object]]]:
    """Read claims that do not come with purebench.

    Args:
        paths: TOML files of claims, JSON files of RobustBench's `model_info`, or folders: of TOML files, and of JSON
            files at any depth.

    Returns:
        The claims, and a row of `reported_row` for each JSON file.

    Raises:
        UserError: see `read_claims` and `reported_row`.
    """
    claims, rows = [], []
    for path in paths_of(paths):
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path] if path.suffix == ".json" else []
        rows += [reported_row(file) for file in files]
        claims += read_claims(path) if not files or any(path.glob("*.toml")) else []
    return claims, rows


def reported_row(path: str | Path) -> dict[str, object]:
    """Return a row of `bench.claims_table` for an entry: its `reported` accuracy, and the lowest that is known.

    It has the accuracy under AutoAttack as well, by the name `AUTOATTACK`.

    Both are numbers of RobustBench's own file on 10,000 images (ImageNet: 5,000), so they are of one network.

    Args:
        path: a file of RobustBench's folder `model_info`, as cifar10/Linf/Wong2020Fast.json; the norm is that of its
            folder's name.

    Raises:
        UserError: see `read_model_info`.
    """
    info, path = read_model_info(path), Path(path)
    known = [share for share in map(info.share, ("autoattack_acc", "external")) if share is not None]
    return _row(info, path, known) | {AUTOATTACK: info.share("autoattack_acc")}


def _row(info: ModelInfo, path: Path, known: list[float]) -> dict[str, object]:
    """Return the row of claims for an entry, of which some robust accuracies are known."""
    best = min(known, default=float("nan"))
    claim = _claim(info, path)
    row = {"defense": path.stem, "n_images": claim.n, "clean_mean": info.share("clean_acc"), "robust_mean": best}
    row |= {"robust_low": float("nan"), "robust_high": float("nan"), "clean_low": 0.0, "clean_high": 1.0}
    if known:
        low, high = wilson(best * (claim.n or 0), claim.n or 0)
        row |= {"robust_low": float(low), "robust_high": float(high)}
    if not known or claim.robust is None:
        missing = "reports no robust accuracy" if claim.robust is None else "has no measured robust accuracy"
        return claim_row(str(path), claim, row, Verdict(NOT_COMPARABLE, f"the entry {missing}"))
    verdict = compare_shares(claim, row)
    doubt = "; RobustBench marks its AutoAttack number as unreliable" if info.raw.get("unreliable") else ""
    return claim_row(str(path), claim, row, Verdict(verdict.word, verdict.reason, _NOTE + doubt))


def _claim(info: ModelInfo, path: Path) -> Claim:
    """Return what the entry reports."""
    norm, dataset = path.parent.name, str(info.raw.get("dataset") or "")
    has_ball = norm in NORMS and info.eps is not None
    return Claim(
        defense=path.stem,
        paper=str(info.raw.get("name") or path.stem),
        kind="claim",
        dataset=dataset,
        threat=f"{norm} {info.eps}" if has_ball else "",
        clean=None,
        robust=info.share("reported"),
        attack="as reported by the authors",
        source=f"model_info {path.name}",
        evidence="secondary",
        url=str(info.raw.get("link") or ""),
        network=str(info.raw.get("architecture") or ""),
        n=_IMAGES.get(dataset, 10_000),
    )
