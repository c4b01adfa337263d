"""The lines below the tables: what the numbers mean, and what has to be known of attacks and cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.analysis.caveats import UNCERTIFIED
from bench.analysis.rows import ROW
from bench.spec.cell import KNOWN

if TYPE_CHECKING:
    import pandas as pd

    from bench.spec.aggregation import Aggregation

_OVERALL = "mean: right held-out draws of the deployed defense, as a share per image, averaged over the images"
_WORST = (
    "worst case: per image the worst of the clean image and all attacks, chosen on selection draws and counted on "
    "held-out draws; uniform noise is a yardstick and no candidate"
)
_TARGETED = "targeted: robust = draws that do not give the target"
_INTERVAL = "[ ]: Wilson 95% interval over images (n = images, not images times draws)"
_SEEDS = (
    "±: sample standard deviation over the seeds of the training, each trained model a defense of its own; means and "
    "intervals are of the images' means over seeds"
)
_KNOWN = (
    "seed known: the attacker knows the noise of the one draw on which its images are judged, the same for all images; "
    "no candidate for the worst case"
)
_INCOMPLETE = "*: incomplete, so without a rank (ranks are among complete rows); the full table says what is missing"


def has_seeds(frame: pd.DataFrame) -> bool:
    """Whether a defense of a summary has several training seeds."""
    return bool((frame["n_seeds"] > 1).any())


def _shared(frame: pd.DataFrame) -> list[str]:
    notes = [_OVERALL, _WORST, _INTERVAL]
    notes += [_SEEDS] if has_seeds(frame) else []
    notes += [_KNOWN] if frame["view"].str.endswith(KNOWN).any() else []
    return notes + ([_TARGETED] if (frame["targets"] != "none").any() else [])


def of_comparison(frame: pd.DataFrame, *, starred: bool) -> tuple[str, ...]:
    """What the numbers of the comparison mean.

    Args:
        frame: what `summary` gave.
        starred: whether a number has a star.
    """
    return (*_shared(frame), *([_INCOMPLETE] if starred else []))


def of_all_rows(frame: pd.DataFrame, said: Aggregation) -> tuple[str, ...]:
    """What the numbers of the full table mean.

    Args:
        frame: what `summary` gave.
        said: draws of a majority vote and of a mean logit.
    """
    notes = _shared(frame)
    if any(frame[name].notna().any() for name in frame if str(name).startswith("rob_m")):
        notes.append("Rob(M): all of M draws right, C(right, M) / C(draws, M), averaged over images")
    if (frame["rejected_mean"] > 0).any():
        notes.append(
            "refused: by a detector; a refusal is an error in all columns but right or refused, which is of attacked "
            "images alone; `purebench detect` has the worst case and the detectors' own figures"
        )
    voters = "all" if said.k is None or said.rule else f"the first {said.k}"
    what = "mean logit" if said.rule else "majority vote, mean logit"
    notes.append(f"{what}: of {voters} held-out draws of an image; a tie is wrong")
    if (frame["targets"] != "none").any():
        notes.append("attack success under a targeted threat: draws that give the target, over originally right ones")
    notes.append(
        "median size: of the perturbation, in the norm of the threat, over originally right images, their number in "
        "brackets; ∞ = failed; [ ]: distribution-free 95% interval between two order statistics"
    )
    if has_seeds(frame):
        notes.append("median size over seeds of the training: means of the medians, and of the ends of their intervals")
    notes.append("evaluations: one image through a network forward = 1, backward = 2; of the attack, not the verdict")
    return tuple(notes)


def of_sequential(said: Aggregation, records: pd.DataFrame) -> tuple[str, ...]:
    """How a majority is known of more draws than are made of all images, and what that took.

    Args:
        said: by what rule.
        records: of the board, see `bench.analysis.results.Results`.
    """
    if said.rule is None or "majority_draws" not in records:
        return ()
    took = records["majority_draws"].mean()
    text = (
        f"majority vote of randomised defenses: of {said.k} held-out draws by a sequential rule, error "
        f"{said.sequential:g}: a prefix, until the others would hardly change the decision; mean draws made {took:.1f}"
    )
    return (f"{text}; no other column uses the further ones",)


def of_preset(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose protocol the numbers follow, and how it differs from our own."""
    preset = manifest.get("preset") or {}
    told = ": ".join(str(preset[key]) for key in ("source", "differs") if preset.get(key))
    return (f"preset {preset['name']}: {told}",) if preset else ()


def of_certificates(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Which exact gradients are not certified, and why.

    Args:
        reasons: by defense.
    """
    if not reasons:
        return ()
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (f"{UNCERTIFIED}: exact gradients that nothing certifies ({told}); `purebench certify` measures them",)


def warnings(cells: pd.DataFrame) -> tuple[str, ...]:
    """What a reader has to know of the attacks that ran (short budgets) and of single cells (short of memory)."""
    ran = cells[cells["status"] == "ok"]
    pairs = list(zip(ran["attack"], ran["warnings"], strict=True)) if "warnings" in cells else []
    if "notes" in cells:
        noted = cells[cells["notes"].notna()]
        pairs += zip(noted["defense"] + ", " + noted["attack"], noted["notes"], strict=True)
    return tuple(dict.fromkeys(f"{name}: {text}" for name, texts in pairs for text in texts))


def with_warnings(frame: pd.DataFrame, cells: pd.DataFrame, uncertified: Mapping[str, str]) -> pd.DataFrame:
    """The summary with what has to be known of each row's attack, if it ran, and gradients: a CSV has no footnotes.

    Args:
        frame: what `summary` gave.
        cells: what it is of.
        uncertified: defenses whose exact gradients are not certified, and why.
    """
    texts: dict[tuple[str, ...], dict[str, None]] = {}
    ran = cells[cells["status"] == "ok"]
    for row, found in zip(_rows(ran), ran["warnings"], strict=True) if "warnings" in ran else ():
        texts.setdefault(row, {}).update(dict.fromkeys(found))
    for row, view, defense in zip(_rows(frame), frame["view"], frame["defense"], strict=True):
        if str(view).startswith("exact") and (reason := uncertified.get(defense)):
            texts.setdefault(row, {})[f"gradient certificate: {reason}"] = None
    return frame.assign(warnings=["; ".join(texts.get(row, ())) for row in _rows(frame)])


def _rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Of which row of the tables each line is."""
    return list(zip(*(frame[name].astype(str) for name in ROW), strict=True))


_ENVIRONMENT = ("torch", "threads", "device", "processor")


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
