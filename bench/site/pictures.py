"""Pictures of images on pages: panels cut out of a sheet, with a caption."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from bench.site.gallery import Gallery, Shown

_SIDE = 64  # least pixels of a screen across a panel
_PANELS = Markup(
    '<svg width="{shown_w}" height="{shown_h}" viewBox="{box}" aria-hidden="true">'
    '<image href="../../i/{name}.png" width="{all_w}" height="{all_h}"/></svg>'
)


def figures(gallery: Gallery, norm: str, links: Mapping[int, str], count: int | None = None) -> list[Markup]:
    """Return the images of a gallery as figures of a page of a board.

    Args:
        gallery: the images.
        norm: of the threat.
        links: addresses of images by dataset index.
        count: most figures; None: all.
    """
    return [_figure(gallery, i, norm, links) for i in range(len(gallery.shown[:count]))]


def caption(shown: Shown, norm: str) -> str:
    """Return what became of an image, as "7 → 3 in 61 of 65 draws, Linf 0.200", with a space that is not broken."""
    found = "refused" if shown.prediction < 0 else str(shown.prediction)
    if not shown.draws:
        found = "no verdict"
    text = f"{shown.label} → {found}" if shown.prediction != shown.label else f"{shown.label} stays {found}"
    if shown.draws > 1:
        text += f" in {shown.votes} of {shown.draws} draws"
    size = "beyond eps" if math.isinf(shown.size) else f"{shown.size:.0f}" if norm == "L0" else f"{shown.size:.3f}"
    return text if math.isnan(shown.size) else f"{text}, {norm}\N{NO-BREAK SPACE}{size}"


def _figure(gallery: Gallery, image: int, norm: str, links: Mapping[int, str]) -> Markup:
    sheet, shown = gallery.sheet, gallery.shown[image]
    if sheet is None:
        return Markup()
    times = max(1, -(-_SIDE // min(sheet.width, sheet.height)))  # whole: every pixel is as large
    width, height = sheet.size
    x, y = sheet.place(image)
    panels = _PANELS.format(
        shown_w=times * sheet.across,
        shown_h=times * sheet.height,
        box=f"{x} {y} {sheet.across} {sheet.height}",
        name=gallery.name,
        all_w=width,
        all_h=height,
    )
    name = Markup("image {}").format(shown.index)
    name = Markup('<a href="{}">{}</a>').format(links[shown.index], name) if shown.index in links else name
    text = Markup("{}: {}").format(name, caption(shown, norm))
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(panels, text)
