"""Footnotes of tables: definitions of their numbers, and warnings about attacks and cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bench.analysis.caveats import FAILED_AUDIT, RESUMED, UNCERTIFIED
from defenses.utils.json_values import JsonView

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.ranks import RankRanges
    from bench.spec.aggregation import Aggregation
    from bench.store.environment import RunRecord

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
_FLOAT32 = "all verdicts are in float32"
_RANK = "rank: the ranks that paired differences on the same images leave open (95%)"
_INCOMPLETE = "*: incomplete, so without a rank (ranks are among complete rows); the full table says what is missing"


def has_seeds(frame: pd.DataFrame) -> bool:
    """Return True if a defense of a summary has several training seeds."""
    return bool((frame["n_seeds"] > 1).any())


def _shared(frame: pd.DataFrame) -> list[str]:
    notes = [_OVERALL, _WORST, _INTERVAL]
    notes += [_SEEDS] if has_seeds(frame) else []
    notes += [_KNOWN] if frame["seed_known"].any() else []
    notes += of_compute(frame)
    return notes + ([_TARGETED] if (frame["targets"] != "none").any() else [])


def of_compute(frame: pd.DataFrame) -> list[str]:
    """Return a note for each arithmetic but plain float32, with the attacks that searched in it."""
    rows = frame[frame["compute"].ne("") & frame["view"].ne("")]
    plain = set(frame.loc[frame["compute"].eq(""), "attack"])
    notes = []
    for label, of in rows.groupby("compute", sort=False):
        pairs = zip(of["attack"], of["defense"], strict=True)
        names = dict.fromkeys(f"{attack} on {defense}" if attack in plain else attack for attack, defense in pairs)
        text = ", ".join(map(str, names))
        notes.append(f"{label}: these attacks searched in it, which may be weaker than float32: {text}; {_FLOAT32}")
    return notes


def of_comparison(frame: pd.DataFrame, *, starred: bool) -> tuple[str, ...]:
    """Return the footnotes of the comparison.

    Args:
        frame: a summary.
        starred: True if a number has a star.
    """
    return (*_shared(frame), *([_INCOMPLETE] if starred else []))


def of_ranks(ranges: RankRanges) -> tuple[str, ...]:
    """Return the footnote on the column of ranks; none where no setting has two."""
    return (_RANK,) if any(len(by_label) > 1 for by_label in ranges.values()) else ()


def of_all_rows(frame: pd.DataFrame, aggregation: Aggregation) -> tuple[str, ...]:
    """Return the footnotes of the full table.

    Args:
        frame: a summary.
        aggregation: number of draws of a majority vote and of a mean logit.
    """
    notes = _shared(frame)
    if any(frame[name].notna().any() for name in frame if str(name).startswith("rob_m")):
        notes.append("Rob(M): all of M draws right, C(right, M) / C(draws, M), averaged over images")
    if (frame["rejected_mean"] > 0).any():
        notes.append(
            "refused: by a detector; a refusal is an error in all columns but right or refused, which is of attacked "
            "images alone; `purebench detect` has the worst case and the detectors' own figures"
        )
    voters = "all" if aggregation.k is None or aggregation.rule else f"the first {aggregation.k}"
    columns = "mean logit" if aggregation.rule else "majority vote, mean logit"
    notes.append(f"{columns}: of {voters} held-out draws of an image; a tie is wrong")
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


def of_sequential(aggregation: Aggregation, records: pd.DataFrame) -> tuple[str, ...]:
    """Return the footnote of a majority by a sequential rule; none without such a rule.

    Args:
        aggregation: the rule.
        records: records of the board, see `bench.analysis.results.Results`.
    """
    if aggregation.rule is None or "majority_draws" not in records:
        return ()
    draws = records["majority_draws"].mean()
    text = (
        f"majority vote of randomised defenses: of {aggregation.k} held-out draws by a sequential rule, error "
        f"{aggregation.sequential:g}: a prefix, until the others would hardly change the decision; "
        f"mean draws made {draws:.1f}"
    )
    return (f"{text}; no other column uses the further ones",)


def of_preset(manifest: JsonView) -> tuple[str, ...]:
    """Return a footnote for each preset of a board: its source, and how it differs from the default protocol."""
    presets = [p for p in (manifest.get("preset"), *(manifest.get("presets") or ())) if p]
    texts = (": ".join(str(p[key]) for key in ("source", "differs") if p.get(key)) for p in presets)
    return tuple(f"preset {p['name']}: {text}" for p, text in zip(presets, texts, strict=True))


def of_data(manifest: Mapping[str, object]) -> tuple[str, ...]:
    """Return the footnotes on the data of a board."""
    notes = manifest.get("notes")
    return tuple(f"data: {note}" for note in notes if isinstance(note, str)) if isinstance(notes, list) else ()


def of_resumed(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return a footnote for each defense whose results were taken over although they may be of another model.

    Args:
        reasons: reasons by defense.
    """
    text = "resumed with --resume-anyway, so its cells may be of different models or attacks"
    return tuple(f"{RESUMED} {label}: {text} ({reason})" for label, reason in reasons.items())


def of_certificates(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return the footnote of uncertified exact gradients; none without any.

    Args:
        reasons: reasons by defense.
    """
    if not reasons:
        return ()
    texts = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (f"{UNCERTIFIED}: exact gradients that nothing certifies ({texts}); `purebench certify` measures them",)


_ENVIRONMENT = ("torch", "threads", "device", "processor")


def mixed(lines: Iterable[JsonView], manifest: JsonView) -> list[str]:
    """Return the footnotes of defenses whose cells come from different environments.

    Args:
        lines: lines of cells, each with "defense", "status" and "run".
        manifest: see `read_manifest`.

    Returns:
        One footnote per defense whose finished cells come from runs that differ in the version of torch, threads,
        device or processor, as "adp: cells from 2 environments: torch 2.15.0 / 2.16.0".
    """
    by_run = {r["id"]: _environment(r) for r in manifest.get("runs", [])}
    by_defense: dict[str, dict[tuple[str, ...], None]] = {}
    for line in lines:
        if line["status"] == "ok":
            environment = by_run.get(line.get("run"), ("unknown",) * len(_ENVIRONMENT))
            by_defense.setdefault(line["defense"], {})[environment] = None
    notes = []
    for defense, environments in by_defense.items():
        columns = [list(dict.fromkeys(column)) for column in zip(*environments, strict=True)]
        pairs = zip(_ENVIRONMENT, columns, strict=True)
        differ = "; ".join(f"{name} {' / '.join(sorted(values))}" for name, values in pairs if len(values) > 1)
        if differ:
            notes.append(f"{defense}: cells from {len(environments)} environments: {differ}")
    return notes


def _environment(run: RunRecord) -> tuple[str, ...]:
    hardware, packages = run.get("hardware") or {}, run.get("versions") or {}
    values = (packages.get("torch"), run.get("threads"), hardware.get("device"), hardware.get("processor"))
    return tuple("unknown" if value is None else str(value) for value in values)


def of_audits(failed: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return a footnote for each defense that fails its audit.

    Args:
        failed: names of the failed checks by title.
    """
    text = "fails the audit, so its numbers have no rank"
    return tuple(f"{FAILED_AUDIT} {title} {text}: {', '.join(names)}" for title, names in failed.items())
