"""Diffusion purifiers from their cards: what a card's parameters mean."""

from __future__ import annotations

from typing import Any

from defenses.networks.registry import Trained
from defenses.purifiers.diffusion.samplers import (
    Ancestral,
    DenoiseOnce,
    Diffused,
    FlowODE,
    PredictorCorrector,
    ReverseSDE,
)
from defenses.utils.errors import unknown

_SAMPLERS = ("predictor-corrector", "ode")


def score_sde(trained: Trained, *, network: str, sampler: str, snr: float, **own: Any) -> Diffused:
    """Predictor and corrector, or the probability-flow ODE.

    Args:
        trained: gives the trained network of a name.
        network: name of the noise predictor's weights.
        sampler: "predictor-corrector" or "ode".
        snr: of the corrector; the ODE has none.
        **own: see `Diffused`.

    Raises:
        UserError: another sampler.
    """
    if sampler not in _SAMPLERS:
        raise unknown("sampler", sampler, _SAMPLERS)
    if sampler == "ode":
        return FlowODE(trained(network, "noise predictor"), **own)
    return PredictorCorrector(trained(network, "noise predictor"), snr=snr, **own)


def diffpure(trained: Trained, *, network: str, **own: Any) -> Diffused:
    """The reverse SDE.

    Args:
        trained: gives the trained network of a name.
        network: name of the noise predictor's weights.
        **own: see `Diffused`.
    """
    return ReverseSDE(trained(network, "noise predictor"), **own)


def gdmp(trained: Trained, *, network: str, **own: Any) -> Diffused:
    """DDPM's sampler, guided.

    Args:
        trained: gives the trained network of a name.
        network: name of the noise predictor's weights.
        **own: see `Ancestral`.
    """
    return Ancestral(trained(network, "noise predictor"), **own)


def denoise_once(trained: Trained, *, network: str, **own: Any) -> Diffused:
    """The one-shot denoiser.

    Args:
        trained: gives the trained network of a name.
        network: name of the noise predictor's weights.
        **own: see `DenoiseOnce`.
    """
    return DenoiseOnce(trained(network, "noise predictor"), **own)
