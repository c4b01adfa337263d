"""Numbers and pages of a site as HTML, by Jinja templates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from bench import __version__
from bench.report import format
from bench.report.html import environment
from defenses.utils.text import clean

if TYPE_CHECKING:
    from bench.site.commits import Made

_FINE = 10_000  # images from which on a second decimal of a percentage means something


def missing(value: object) -> bool:
    """Return True for None and NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def percent(share: float, images: int) -> str:
    """Return a share in percent, with as many decimals as the images tell apart.

    Args:
        share: in [0, 1].
        images: number of images.
    """
    return format.percent(share, 1 if images < _FINE else 2)


def interval(low: float, high: float, images: int) -> str:
    """Return an interval of shares in percent, in brackets."""
    return f"[{percent(low, images)}, {percent(high, images)}]"


def amount(value: float) -> str:
    """Return a cost: whole from ten on, with separators of thousands."""
    return f"{value:,.0f}" if value >= 10 else format.number(value, 2)


def bar(mean: float, low: float, high: float) -> Markup:
    """Return a bar of 0 to 100% with an interval and its mean, which text beside it gives."""
    low, high, mean = (round(100 * value, 1) for value in (low, high, mean))
    marks = (
        f'<rect class="b" width="100" height="8"/><rect class="i" x="{low:g}" y="1.5" width="{max(high - low, 0.6):g}" '
    )
    marks += f'height="5"/><rect class="m" x="{min(mean, 98.5):g}" width="1.5" height="8"/>'
    return Markup(f'<svg class="bar" width="100" height="8" viewBox="0 0 100 8" aria-hidden="true">{marks}</svg>')


def link(url: str, text: str) -> Markup:
    """Return a link to another site; the text alone where the address is none of the web."""
    if not url.startswith(("https://", "http://")):
        return escape(clean(text))
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(clean(url), clean(text))


def block(lines: list[str]) -> Markup:
    """Return lines of code as HTML for a block that keeps them apart."""
    return Markup("\n").join(escape(clean(line)) for line in lines)


def page(
    template: str,
    *,
    title: str,
    depth: int,
    site: str,
    made: Sequence[Made],
    crumbs: tuple[tuple[str, str], ...] = (),
    **more: Any,
) -> str:
    """Return a page of the site.

    Args:
        template: its name.
        title: of the page.
        depth: number of folders above the page.
        site: title of the site.
        made: the results that it shows, with their commits.
        crumbs: (address, text) of the pages above, within the site.
        **more: what the template shows.
    """
    helpers = {"percent": percent, "interval": interval, "amount": amount, "bar": bar, "link": link, "missing": missing}
    shared = {
        "title": title,
        "site": site,
        "made": made,
        "root": "../" * depth,
        "crumbs": crumbs,
        "version": __version__,
    }
    return environment("bench.site").get_template(template).render(**shared, **helpers, **more)
