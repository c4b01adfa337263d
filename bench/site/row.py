"""The page of a row: a defense on a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bench.report.format import second_hand
from bench.report.row_text import NAMES
from bench.report.table import Table
from bench.site.attacks_page import attack_anchors
from bench.site.board import unranked
from bench.site.claim_texts import points_left
from bench.site.columns import audit_address, audit_words, parts, verdict_words
from bench.site.commits import of_row
from bench.site.images_page import link_of
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.outcomes import check_texts, measured_texts
from bench.site.pictures import figures
from bench.site.plots import Plots
from bench.site.repeat import repeat_of, took
from bench.site.row_attacks import attack_texts
from bench.site.row_files import FOLDER, RowFiles
from bench.site.text import block, interval, link, missing, page, percent
from bench.spec.view_words import status_words, view_words

_STRIP = 12  # pictures on the page of a row


def row_page(site: Site, board: SiteBoard, row: SiteRow, plots: Plots, files: RowFiles) -> str:
    """Return the page of a row; its pictures are added to `plots`, and it links its files."""
    attacks = _attacks(board, row)
    repeat = repeat_of(board.source, board.name, row.label, row.lines)
    return page(
        "row.html.j2",
        title=row.label,
        depth=2,
        site=site.title,
        made=of_row(board, row),
        crumbs=(("index.html", board.title),),
        board=board,
        row=row,
        verdict=headline(board, row),
        lines=_lines(row),
        random=bool(row.values["stochastic"]),
        attacks=attacks,
        most=any(attack["rob15"] is not None for attack in attacks),
        submissions=_submissions(row),
        recipes=_recipes(row),
        strip=_strip(board, row),
        claims=_claims(row.claims),
        checks=[check_texts(check) for check in row.checks],
        certificate=[measured_texts(found) for found in row.certificate],
        certificate_text=_certificate_text(row),
        audit=audit_address(row),
        composed=parts(row) or "Its parts are not known.",
        tables=_composition(row),
        commands=block([repeat.made.comment, repeat.run, "purebench table again", repeat.verify]),
        took=took(board.source, row.lines),
        python=block([*repeat.python]),
        plots=plots.shown(row.pictures, f"{board.slug}/{row.slug}", "../../"),
        files=files,
        file=f"../../{FOLDER}/{board.slug}/{row.slug}",
    )


def headline(board: SiteBoard, row: SiteRow) -> str:
    """Return what is found of a defense, in two or three sentences made from the data."""
    values, setting = row.values, board.setting
    n, mean = int(values["n_images"]), values["worst_mean"]
    if mean is None:
        return f"No verdict yet: {status_words(str(values['status']))}."
    ends = interval(values["worst_low"], values["worst_high"], n)
    where = f"On {n} {setting['split']} images of {setting['dataset']}, {board.threat}"
    holds = "stay right" if setting["targets"] == "none" else "do not give the target"
    texts = [f"{where}, at most {percent(mean, n)} % {ends} {holds}."]
    if row.ranked:
        low, high = values["rank_low"], values["rank_high"]
        of = sum(other.ranked for other in board.rows)
        texts += [
            f"Rank {low} of {of}." if low == high else f"Rank {low} to {high} of {of}: within it no data here decides."
        ]
    else:
        texts += [f"It has {unranked(row)[1]}."]
    if values["claim_verdict"]:
        share = f"{100 * values['claim_robust']:.1f} %{second_hand(values['claim_evidence'])} on {values['claim']}"
        texts += [f"Its authors claim {share}: {values['claim_verdict']} ({values['claim_reason']})."]
    return " ".join(texts)


def _lines(row: SiteRow) -> list[tuple[str, str | Markup]]:
    """Return what a row is, as (name, text)."""
    values, n = row.values, int(row.values["n_images"])
    clean = values["clean_mean"]
    shown = (
        "not run"
        if clean is None
        else f"{percent(clean, n)} % {interval(values['clean_low'], values['clean_high'], n)}"
    )
    kind = f"randomised, {values['draws']} held-out draws" if values["stochastic"] else "deterministic"
    lines: list[tuple[str, str | Markup]] = [
        ("clean", shown),
        ("kind", kind),
        ("audit", audit_words(row)[0]),
        ("certificate", str(values["certificate"])),
    ]
    if values["worst_attack"]:
        lines.append(("strongest attack", f"{values['worst_attack']} ({view_words(values['worst_view'])})"))
    if not row.about.card:
        lines.append(("card", "none; its paper and licence are not known"))
    return lines + ([("paper", link(str(values["url"] or ""), str(values["paper"])))] if values["paper"] else [])


def _attacks(board: SiteBoard, row: SiteRow) -> list[dict[str, Any]]:
    """Return the attacks on a row, as texts."""
    anchors = attack_anchors(board)
    return [{**attack_texts(found, row), "anchor": anchors[found["attack"]]} for found in row.attacks]


def _submissions(row: SiteRow) -> Table | None:
    """Return the table of Rob(M) under each attack, the strongest first; None for a deterministic defense."""
    if row.submissions is None:
        return None
    shares = row.submissions.pivot_table(index="attack", columns="m", values="share", sort=False)
    shares = shares.loc[shares[1].sort_values(kind="stable").index]
    n = int(row.values["n_images"])
    titles = {f"{a['attack']}, {a['view']}": f"{a['attack']}, {view_words(a['view'])}" for a in row.attacks}
    rows = [
        (titles.get(str(name), str(name)), *("none" if missing(share) else percent(share, n) for share in of))
        for name, *of in shares.itertuples()
    ]
    return Table(f"Rob(M) of {row.label}", ("attack, view", *(f"M = {m}" for m in shares)), tuple(rows))


def _recipes(row: SiteRow) -> list[dict[str, Any]]:
    """Return the parameters and cells of the attacks, strongest first, as texts."""
    found = [(a, row.recipes.get((a["attack"], a["view"]))) for a in row.attacks]
    return [
        {
            "name": NAMES.get(a["attack"], a["attack"]),
            "view": view_words(a["view"]),
            "text": recipe.text,
            "more": f"{recipe.knowledge}, seed {recipe.seed}",
            "cells": " ".join(recipe.keys),
            "notes": (*recipe.notes, *recipe.errors),
        }
        for a, recipe in found
        if recipe is not None
    ]


def _strip(board: SiteBoard, row: SiteRow) -> list[Markup]:
    """Return pictures of some images under the attack that breaks most of them, or the first that has any."""
    worst = (row.values["worst_attack"], row.values["worst_view"])
    found = [(m, c, row.galleries[c.cells[0]]) for m in row.evidence for c in m.columns if c.cells[0] in row.galleries]
    shown = [(m, c, g) for m, c, g in found if g.sheet is not None]
    if not shown:
        return []
    _, _, gallery = min(shown, key=lambda g: (g[1].attack, g[1].view) != worst)
    links = {image.index: address for image in gallery.shown if (address := link_of(row, image.index))}
    return figures(gallery, board.setting["norm"], links, _STRIP)


def _composition(row: SiteRow) -> list[Table]:
    """Return the tables of the parts of a defense and of its weights."""
    about, unknown = row.about, "not described"
    parts = [(part.name, part.role, part.parameters or "none") for part in about.parts]
    trained = [(name, sha, about.trainings.get(sha)) for name, sha in about.weights]
    weights = [(name, *((t.network, t.recipe, t.took) if t else (unknown,) * 3), sha) for name, sha, t in trained]
    tables = [Table("Parts", ("part", "role", "parameters"), tuple(parts), left=3)]
    tables += [Table("Weights", ("weights", "network", "training", "took", "SHA-256"), tuple(weights), left=5)]
    return [table for table in tables if table.rows]


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the claims on a row, as texts; those that can be compared first, then those of the authors."""
    order = sorted(claims, key=lambda c: (c["verdict"] == "not comparable", c["kind"] != "claim"))
    return [
        {
            **{name: c[name] for name in ("url", "network", "attack", "evidence")},
            "by": f"{c['paper']}{'' if c['kind'] == 'claim' else ' (re-evaluation)'}",
            "on": f"{c['dataset']} {c['threat']}".strip(),
            "share": c["claimed_robust"],
            "text": "not told" if c["claimed_robust"] is None else f"{100 * c['claimed_robust']:.2f}",
            "verdict": verdict_words(c["verdict"])[0],
            "kind": verdict_words(c["verdict"])[1],
            "left": points_left(c),
            "why": "; ".join(filter(None, (c["reason"], c["note"]))),
        }
        for c in order
    ]


def _certificate_text(row: SiteRow) -> str:
    state = str(row.values["certificate"])
    if state == "not needed":
        return "None needed: no attack used exact gradients of this defense."
    return f"{state[:1].upper()}{state[1:]}."
