"""Put Gaussian noise in front of a defense, so that it can be certified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import as_number, decode
from defenses.zoo.cards import card

_NOISE, _DENOISER = "gaussian-noise", "denoise-once"


def noisy(name: str, dataset: str, params: Mapping[str, Any], sigma: float | None) -> tuple[str, dict[str, Any], float]:
    """Return a defense with Gaussian noise as its first part; `denoise-once` adds that noise itself.

    Args:
        name: a registered defense, whose noise filter in front is kept, or gets sigma; or a model of RobustBench's zoo.
        dataset: selects the card's defaults.
        params: parameters of the defense.
        sigma: standard deviation of the noise, in pixels of [0, 1]; None: that of the defense.

    Returns:
        (name, parameters, sigma) for `load_model`.

    Raises:
        UserError: no sigma, neither here nor in the defense; a time beside it; or the defense is a plug-in.
    """
    if is_plugin(name):
        advice = f"as a plain classifier it goes behind noise, gaussian-noise --set classifier={name}"
        raise UserError(
            f'"{name}" is a plug-in; {advice}; else certify it in Python, with bench.tracks.smoothing.certify.certified'
        )
    if is_zoo(name):
        name, params = _NOISE, {"classifier": {"name": name, **params} if params else name}
    merged = dict(decode(card(name).merged(dataset, params)))
    if name == _DENOISER and "t_star" in params:
        raise UserError(f"the noise says the time of {name}; leave t_star out")
    if name == _NOISE or (name == _DENOISER and (sigma is not None or merged["sigma"])):
        merged["sigma"] = merged["sigma"] if sigma is None else sigma
        return name, {**params, "sigma": merged["sigma"]}, float(merged["sigma"])
    filters = [{"name": f} if isinstance(f, str) else dict(f) for f in merged.get("filters") or []]
    if filters and filters[0].get("name") == _NOISE:
        noise = {k: v for k, v in filters.pop(0).items() if k != "name"}
        sigma = decode(card(_NOISE).merged(dataset, noise))["sigma"] if sigma is None else sigma
    if sigma is None:
        raise UserError(f'"{name}" begins with no Gaussian noise of a known sigma; say how much: --sigma 1/4')
    return name, {**params, "filters": [{"name": _NOISE, "sigma": sigma}, *filters]}, float(sigma)


def number(name: str, text: str) -> float:
    """Parse a number, at least 0, written as a fraction or decimal.

    Args:
        name: of the number, for messages.
        text: the number.

    Raises:
        UserError: it is no such number.
    """
    value = as_number(text)
    if value is None or value < 0:
        raise UserError(f'{name} "{text}" is no number from 0 on; write 0.25 or 1/4')
    return float(value)
