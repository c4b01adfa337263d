"""Numbers as text: percentages, intervals, counts."""

from __future__ import annotations

import math

ABSENT = "–"


def percent(value: float, digits: int = 2) -> str:
    """Return a share in percent with some decimals; a dash for NaN."""
    return ABSENT if math.isnan(value) else f"{100 * value:.{digits}f}"


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """Return a share with its interval in percent, as "83.33 [43.65, 96.99]"; a dash for NaN."""
    shares = (percent(share, digits) for share in (value, low, high))
    return ABSENT if math.isnan(value) else "{} [{}, {}]".format(*shares)


def points(value: float, low: float, high: float) -> str:
    """Return a difference in points of 100 with its interval, if any, as "+11.71 [+7.32, +15.64]"; a dash for NaN."""
    if math.isnan(value):
        return ABSENT
    ends = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
    return f"{value:+.2f}{ends}"


def number(value: float, digits: int = 4) -> str:
    """Return a number with some significant digits; a dash for NaN."""
    if math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def count(value: float) -> str:
    """Return a number of images; with one decimal if it is an expected number."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def rank_range(low: int, high: int) -> str:
    """Return a range of ranks as text; one rank alone where it is sure."""
    return str(low) if low == high else f"{low}–{high}"


def second_hand(evidence: str) -> str:
    """Return the mark of a claim that was read in a later work, not in the paper itself; "" for another."""
    return " (secondary)" if evidence == "secondary" else ""
