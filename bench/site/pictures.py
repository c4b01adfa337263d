"""Pictures of images on pages: panels cut out of a sheet, with a caption."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup, escape

from bench.site.gallery import Gallery, Shown

_SIDE = 64  # least pixels of a screen across a panel


def figures(
    gallery: Gallery, norm: str, links: Mapping[int, str], count: int | None = None, *, sheet_id: str = "sheet"
) -> list[Markup]:
    """Return the images of a gallery as figures of a page of a board; the first one holds the sheet of all.

    Args:
        gallery: the images.
        norm: of the threat.
        links: addresses of images by dataset index.
        count: most figures; None: all.
        sheet_id: of the sheet on the page.
    """
    return [_figure(gallery, i, norm, links, sheet_id) for i in range(len(gallery.shown[:count]))]


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


def _figure(gallery: Gallery, image: int, norm: str, links: Mapping[int, str], sheet_id: str) -> Markup:
    sheet, shown = gallery.sheet, gallery.shown[image]
    if sheet is None:
        return Markup()
    times = max(1, -(-_SIDE // min(sheet.width, sheet.height)))  # whole: every pixel is as large
    (all_width, all_height), (x, y) = sheet.size, sheet.place(image)
    whole = f'<use href="#{sheet_id}"/>'  # a third of the length
    if image == 0:
        size = f'width="{all_width}" height="{all_height}"'
        whole = f'<image id="{sheet_id}" href="../../i/{gallery.name}.png" {size}/>'
    box = f"{x} {y} {sheet.across} {sheet.height}"
    size = f'width="{times * sheet.across}" height="{times * sheet.height}"'
    name = f"image {shown.index}"
    name = f'<a href="{escape(links[shown.index])}">{name}</a>' if shown.index in links else name
    return Markup(
        f'<figure><svg {size} viewBox="{box}" aria-hidden="true">{whole}</svg>'
        f"<figcaption>{name}: {escape(caption(shown, norm))}</figcaption></figure>"
    )
