"""The page that says how a row is submitted: what a zip holds, what is checked, what is refused."""

from __future__ import annotations

from bench.site.commits import of_site
from bench.site.model import Site
from bench.site.text import block, page
from bench.spec.submission import AGAINST, CHECKS, HOLDS, REFUSED, RERUN

COMMANDS = (
    ("pack", "purebench submit pack results/digits-linf --defense mine --card card.toml --out mine.zip"),
    ("check", "purebench submit check mine.zip --to results/digits-linf"),
    ("add", "purebench submit add mine.zip --to results/digits-linf"),
)


def submit_page(site: Site) -> str:
    """Return the page."""
    return page(
        "submit.html.j2",
        title="Submit",
        depth=0,
        site=site.title,
        made=of_site(site),
        holds=HOLDS,
        commands=[(name, block([command])) for name, command in COMMANDS],
        checks={**CHECKS, **RERUN},
        against=AGAINST,
        refused=REFUSED,
    )
