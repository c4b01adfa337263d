"""The pages of audits: all of them as a matrix, and each audited defense by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.figures.pictures import of_audits
from bench.report.format import number
from bench.site.audit_curves import AUDIT
from bench.site.commits import of_site
from bench.site.images_page import link_of
from bench.site.model import Site, SiteBoard, SiteRow, slugs
from bench.site.outcomes import audit_texts, check_texts, measured_texts
from bench.site.plots import Plots
from bench.site.records import records
from bench.site.text import page
from defenses.utils.text import counted

_LISTED = 12  # images of a check, listed
_SHORT = {"✓ passes": "✓ pass", "✗ fails": "✗ fail"}
Check = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Audit:
    """An audit of a defense in a results folder.

    Args:
        checks: its rows of `bench.load_audits`, at least one.
        rows: boards and rows of defenses of the same fingerprint; those of the same data and threat first.
    """

    checks: tuple[Check, ...]
    rows: tuple[tuple[SiteBoard, SiteRow], ...]

    @property
    def label(self) -> str:
        """Label of the defense."""
        return str(self.checks[0]["defense"])

    @property
    def fingerprint(self) -> str:
        """Digest of the defense, which is the name of its page."""
        return str(self.checks[0]["fingerprint"])

    @property
    def threat(self) -> str:
        """Norm and radius."""
        return f"{self.checks[0]['norm']} {self.checks[0]['eps']}".strip()

    @property
    def key(self) -> tuple[str, ...]:
        """Values of `bench.site.audit_curves.AUDIT`, which tell it from other audits."""
        return tuple(str(self.checks[0][name]) for name in AUDIT)


def audits_of(site: Site) -> list[Audit]:
    """Return the audits of a site, in the order of its folders."""
    if "audits" not in site.frames:
        return []
    found: dict[tuple[str, ...], list[Check]] = {}
    for check in records(site.frames["audits"]):
        found.setdefault(tuple(str(check[name]) for name in AUDIT), []).append(check)
    return [Audit(tuple(checks), tuple(_rows(site, checks[0]))) for checks in found.values()]


def _rows(site: Site, check: Check) -> list[tuple[SiteBoard, SiteRow]]:
    """Return the rows of the audited defense, those of the same data, threat and folder first."""
    same = [
        (board, row)
        for board in site.boards
        for row in board.rows
        if check["fingerprint"] in str(row.values["fingerprint"]).split("; ")
    ]

    def place(found: tuple[SiteBoard, SiteRow]) -> tuple[bool, bool]:
        board = found[0]
        setting = (str(board.setting["dataset"]), board.setting["norm"], board.setting["eps"])
        return setting != (check["dataset"], check["norm"], check["eps"]), board.source.name != check["results"]

    return sorted(same, key=place)


def check_anchors(audits: Iterable[Audit]) -> dict[str, str]:
    """Return the anchors of checks by name, in the order of the audits."""
    names = list(dict.fromkeys(str(check["check"]) for audit in audits for check in audit.checks))
    return {name: f"c-{slug}" for name, slug in zip(names, slugs(names), strict=True)}


def audits_page(site: Site, audits: list[Audit], plots: Plots) -> str:
    """Return the page of all audits: defenses and checks; its pictures are added to `plots`."""
    anchors = check_anchors(audits)
    pages = _pages(audits)
    lines = [
        (
            audit,
            audit_texts(audit.checks[0]),
            [_cell(audit, name, anchors if pages[audit.fingerprint][0] is audit else {}) for name in anchors],
        )
        for audit in audits
    ]
    return page(
        "audits.html.j2",
        title="Audits",
        depth=0,
        site=site.title,
        made=of_site(site, {str(audit.checks[0]["results"]) for audit in audits}),
        lines=lines,
        anchors=anchors,
        plots=_plots(site, plots),
    )


def _plots(site: Site, plots: Plots) -> list[dict[str, object]]:
    """Return the pictures of all audits, of one threat after another."""
    if "audits" not in site.frames:
        return []
    return plots.shown(of_audits(site.frames["audits"]), "all/of", "")


def _cell(audit: Audit, name: str, anchors: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the outcome of a check; None if the audit does not have it."""
    found = next((check for check in audit.checks if check["check"] == name), None)
    if found is None:
        return None
    texts = check_texts(found)
    return {**texts, "words": _SHORT.get(texts["words"], texts["words"]), "anchor": anchors.get(name, "")}


def _pages(audits: list[Audit]) -> dict[str, list[Audit]]:
    found: dict[str, list[Audit]] = {}
    for audit in audits:
        found.setdefault(audit.fingerprint, []).append(audit)
    return found


def audit_pages(site: Site, audits: list[Audit], plots: Plots) -> dict[str, str]:
    """Return the page of each audited defense by path; their pictures are added to `plots`."""
    anchors = check_anchors(audits)
    return {f"a/{name}.html": _page(site, name, found, anchors, plots) for name, found in _pages(audits).items()}


def _page(site: Site, fingerprint: str, audits: list[Audit], anchors: Mapping[str, str], plots: Plots) -> str:
    pictures = [picture for audit in audits for picture in site.curves.get(audit.key, ())]
    return page(
        "audit.html.j2",
        title=f"Audit of {audits[0].label}",
        depth=1,
        site=site.title,
        made=of_site(site, {str(audit.checks[0]["results"]) for audit in audits}),
        crumbs=(("../audits.html", "Audits"),),
        fingerprint=fingerprint,
        audits=[_audit(audit, anchors if at == 0 else {}) for at, audit in enumerate(audits)],
        rows=list(dict.fromkeys((b.slug, b.title, r.slug, r.label) for audit in audits for b, r in audit.rows)),
        certificate=[measured_texts(found) for found in site.certificates.get(fingerprint, ())],
        plots=plots.shown(pictures, f"a/{fingerprint}", "../"),
    )


def _audit(audit: Audit, anchors: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of an audit; failed checks first.

    Args:
        audit: the audit.
        anchors: of its checks; empty for a further audit of the same defense.
    """
    first, statuses = audit.checks[0], [check["status"] for check in audit.checks]
    order = {"fail": 0, "not measurable": 1, "pass": 2}
    counts = [f"{statuses.count(s)} {s}" for s in (*order, "not applicable") if s in statuses]
    facts = [
        ("data", f"{first['dataset']}, {counted(int(first['n_images'] or 0), 'image')}"),
        ("threat", audit.threat),
        ("outcome", audit_texts(first)["words"]),
        ("checks", ", ".join(counts)),
        ("attacks", f"{first['budget']} budget"),
        ("folder", str(first["results"])),
    ]
    checks = [
        {**check_texts(c), "anchor": anchors.get(str(c["check"])), "figures": _numbers(c), "shown": _images(audit, c)}
        for c in sorted(audit.checks, key=lambda c: order.get(str(c["status"]), len(order)))
    ]
    return {"facts": facts, "checks": checks, "label": audit.label, "threat": audit.threat}


def _numbers(check: Check) -> list[tuple[str, str, float | None]]:
    """Return (name, text, value) of the numbers of a check."""
    found = (check["numbers"] or {}).items()
    return [(str(name), "not finite" if value is None else number(value, 3), value) for name, value in found]


def _images(audit: Audit, check: Check) -> Markup:
    """Return the images that speak against the evaluation, linked to their verdicts where a board shows them."""
    indices = [int(index) for index in check["images"] or ()]
    links = Markup(" ").join(_link(audit, index) for index in indices[:_LISTED])
    more = len(indices) - _LISTED
    return links + (f" and {more} more" if more > 0 else "")


def _link(audit: Audit, index: int) -> Markup:
    check = audit.checks[0]
    for board, row in audit.rows:
        setting = (str(board.setting["dataset"]), board.setting["norm"], board.setting["eps"])
        address = link_of(row, index) if setting == (check["dataset"], check["norm"], check["eps"]) else ""
        if address:
            return Markup('<a href="../b/{}/{}">{}</a>').format(board.slug, address, index)
    return Markup(str(index))
