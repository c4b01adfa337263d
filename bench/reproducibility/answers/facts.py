"""Answers from the setting, the numbers, the claims and the kind of a results folder."""

from __future__ import annotations

from collections import Counter

from bench.analysis.claims import NOT_COMPARABLE, NOT_REACHED, REFUTED
from bench.report.attack_warnings import listed
from bench.reproducibility.answers.answer import Answer, Answerer, absent, decided, of_rows
from bench.reproducibility.answers.row_attacks import targeting
from bench.reproducibility.subject import Subject, finished
from bench.site.model import SiteRow
from bench.site.text import percent
from defenses.utils.names import portable
from defenses.utils.text import counted

_NO_ATTACK = "nothing here is attacked at test time"
_CORRUPTIONS, _RADII = "accuracy under corruptions", "certified radii"


def threat(subject: Subject) -> Answer:
    """Return if norm, radius and targets are told."""
    if not subject.boards:
        return absent(_NO_ATTACK)
    texts = [f"{b.setting['dataset']} {b.setting['split']}, {b.threat}" for b in subject.boards]
    return decided(True, "; ".join(texts), "protocol")


def knowledge(subject: Subject) -> Answer:
    """Return if the attackers know the defenses."""
    if not subject.lines:
        return absent(_NO_ATTACK)
    counts = Counter(str(line.get("knowledge") or "unknown") for line in subject.lines)
    text = ", ".join(f"{name} in {n} cells" for name, n in sorted(counts.items()))
    return decided("white-box" in counts, text, "protocol")


def goals(subject: Subject) -> Answer:
    """Return what attackers want, know and can do."""
    if not subject.boards:
        return absent(_NO_ATTACK)
    targeted = any(board.setting["targets"] != "none" for board in subject.boards)
    goal = "the target class" if targeted else "any wrong class"
    modes = {str(a["gradient"]).partition(":")[0] for row in subject.attacked for a in row.attacks} - {""}
    views = f"; gradients: {', '.join(sorted(modes))}" if modes else ""
    return decided(True, f"{goal}, within the ball and [0, 1]{views}", "protocol")


def ball(subject: Subject) -> Answer:
    """Return that images outside the ball are no successes."""
    if not subject.attacked:
        return absent(_NO_ATTACK)
    return decided(True, "every image is checked: one outside the ball or [0, 1] is no success", "protocol")


def one_line(subject: Subject) -> Answer:
    """Return if the defenses can be loaded by name."""
    from defenses.zoo.cards import list_models

    named = {str(f.get("name")) for f in (subject.manifest.get("defenses") or {}).values()}
    if not named:
        return absent("the folder names no defense")
    own = sorted(map(portable, named - set(list_models())))
    text = f"defenses.load_model(name, dataset) loads {len(named) - len(own)} of {len(named)} by name"
    return decided(not own, f"{text}; not {listed(own)}" if own else text, "defenses")


def clean(subject: Subject) -> Answer:
    """Return if clean accuracy is reported."""
    if any(track.source.kind == _CORRUPTIONS for track in subject.tracks):
        return decided(True, "the tables have the clean images", "results")
    return of_rows(
        subject.rows, lambda row: row.values["clean_mean"] is not None, "clean accuracy", "results",
        none="no row of a board is here",
    )  # fmt: skip


def rejection(subject: Subject) -> Answer:
    """Return if defenses that refuse images have rates over thresholds."""
    rows = [row for row in subject.rows if _refuses(row)]
    if not rows:
        return absent("no defense here refuses images")
    return of_rows(
        rows,
        lambda row: subject.has_scores(row.label),
        "scores, of which purebench detect gives AUROC and rates",
        "results",
    )


def _refuses(row: SiteRow) -> bool:
    return any((a.get("rejected_mean") or 0) > 0 for a in row.attacks)


def per_image(subject: Subject) -> Answer:
    """Return if attacks are compared image by image."""
    return of_rows(subject.attacked, _has_worst, "the worst attack is chosen for each image", "results")


def worst_case(subject: Subject) -> Answer:
    """Return if the worst case is the mean over images of the worst attack on each."""
    return of_rows(subject.attacked, _has_worst, "worst case", "results")


def _has_worst(row: SiteRow) -> bool:
    return row.values["worst_mean"] is not None


def claims(subject: Subject) -> Answer:
    """Return if published numbers stand beside the measured ones."""
    rows = [row for row in subject.attacked if row.values["paper"]]
    answer = of_rows(
        rows, lambda row: bool(row.claims), "a published accuracy", "claims", none="no defense of a paper is here"
    )
    verdicts = Counter(str(claim["verdict"]) for row in rows for claim in row.claims)
    told = ", ".join(f"{n} {verdict}" for verdict, n in sorted(verdicts.items()))
    return Answer(answer.state, f"{answer.evidence}; {told}" if told else answer.evidence, answer.section)


def contradictions(subject: Subject) -> Answer:
    """Return the claims that the numbers contradict, which need an explanation."""
    against = [c for row in subject.attacked for c in row.claims if c["verdict"] in (REFUTED, NOT_REACHED)]
    if against:
        named = listed(list(dict.fromkeys(str(claim["defense"]) for claim in against)))
        return Answer("by hand", f"explain {counted(len(against), 'contradiction')}: {named}", "claims")
    compared = [c for row in subject.attacked for c in row.claims if c["verdict"] != NOT_COMPARABLE]
    return absent("no claim contradicts" if compared else "no claim can be compared", "claims")


def broken(subject: Subject) -> Answer:
    """Return how many defenses keep nothing, which the reader weighs."""
    if not subject.attacked:
        return absent(_NO_ATTACK)
    high = [row.label for row in subject.attacked if row.values["worst_high"] is not None and _kept(row) < 0.05]
    text = f"no more than 5 % withstand, at the upper end: {len(high)} of {len(subject.attacked)} defenses"
    return Answer("by hand", f"{text}; name what you compare with", "results")


def _kept(row: SiteRow) -> float:
    return float(row.values["worst_high"])


def broader(subject: Subject) -> Answer:
    """Return if the folder is of another threat than a ball."""
    if subject.source.kind in (_CORRUPTIONS, _RADII):
        return decided(True, subject.source.kind, "results")
    return decided(False, f"this folder has {subject.source.kind} alone; purebench corruptions, purebench smooth")


def corruptions(subject: Subject) -> Answer:
    """Return if common corruptions are measured."""
    if subject.source.kind == _CORRUPTIONS:
        return decided(True, "accuracy by corruption and severity", "results")
    return decided(False, "not in this folder; purebench corruptions")


def gaussian(subject: Subject) -> Answer:
    """Return if Gaussian noise is measured."""
    if subject.source.kind == _RADII:
        return decided(False, "one deviation in each table", "results")
    if subject.source.kind == _CORRUPTIONS:
        return decided(True, "gaussian_noise by severity, where the tables have it", "results")
    return decided(False, "not in this folder; purebench corruptions --only gaussian_noise")


def provable(subject: Subject) -> Answer:
    """Return if radii are certified."""
    if subject.source.kind == _RADII:
        return decided(True, "certified L2 radii", "results")
    return decided(False, "no certified radius is here; purebench smooth")


def targets(subject: Subject) -> Answer:
    """Return if targeted and untargeted attacks are used."""
    if not subject.boards:
        return absent(_NO_ATTACK)
    kinds = _kinds(subject)
    lacking = [label for label, found in kinds.items() if len(found) < 2]
    text = _told_targets(subject)
    if len(set().union(*kinds.values())) < 2:
        return decided(False, text, "protocol")
    both = f"; both on {len(kinds) - len(lacking)} of {counted(len(kinds), 'defense')}"
    return decided(not lacking, text + both + (f"; not {listed(lacking)}" if lacking else ""), "protocol")


def targets_told(subject: Subject) -> Answer:
    """Return which kinds of attacks are used."""
    return decided(True, _told_targets(subject), "protocol") if subject.boards else absent(_NO_ATTACK)


def _told_targets(subject: Subject) -> str:
    kinds = set().union(*_kinds(subject).values())
    own = sorted({part for row in subject.attacked for found in finished(row) for part in targeting(row, found)})
    told = " and ".join(sorted(kinds)) + ("" if len(kinds) == 2 else " alone")
    return f"{told}; target classes of their own choice: {listed(own)}" if own else told


def _kinds(subject: Subject) -> dict[str, set[str]]:
    """Return which of targeted and untargeted attacks each defense met, by label."""
    kinds: dict[str, set[str]] = {}
    for board in subject.boards:
        goal = "targeted" if board.setting["targets"] != "none" else "untargeted"
        for row in board.rows:
            met = kinds.setdefault(row.label, {goal})
            met.add(goal)
            if any(targeting(row, found) for found in finished(row)):
                met.add("targeted")
    return kinds


def undefended(subject: Subject) -> Answer:
    """Return what the attacks leave of an undefended model."""
    rows = [row for row in subject.attacked if row.about.undefended]
    found = [row for row in rows if row.values["worst_mean"] is not None]
    if not found:
        return decided(False, "no undefended model is on the board") if subject.attacked else absent(_NO_ATTACK)
    shares = [f"{row.label}: {percent(row.values['worst_mean'], row.values['n_images'])} %" for row in found]
    return decided(True, f"worst case of {'; '.join(shares)}", "results")


def domain(subject: Subject) -> Answer:
    """Return which data the numbers are on."""
    names = list(dict.fromkeys(board.setting["dataset"] for board in subject.boards))
    names = names or [str(subject.manifest.get("dataset") or "images")]
    return decided(True, f"images alone: {', '.join(names)}", "protocol")


FIELDS: dict[str, Answerer] = {
    function.__name__: function
    for function in (
        *(threat, knowledge, goals, ball, one_line, clean, rejection, per_image, worst_case, claims, contradictions),
        *(broken, broader, corruptions, gaussian, provable, targets, targets_told, undefended, domain),
    )
}
