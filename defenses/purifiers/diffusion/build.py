"""Build diffusion purifiers from the parameters of their cards."""

from __future__ import annotations

from typing import Any

from defenses.networks.registry import NetworkLoader
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


def score_sde(trained: NetworkLoader, *, network: str, sampler: str, snr: float, **parameters: Any) -> Diffused:
    """Return predictor and corrector, or the probability-flow ODE.

    Args:
        trained: function from a name to the trained network.
        network: name of the noise predictor's weights.
        sampler: "predictor-corrector" or "ode".
        snr: of the corrector; the ODE has none.
        **parameters: see `Diffused`.

    Raises:
        UserError: unknown sampler.
    """
    if sampler not in _SAMPLERS:
        raise unknown("sampler", sampler, _SAMPLERS)
    if sampler == "ode":
        return FlowODE(trained(network, "noise predictor"), **parameters)
    return PredictorCorrector(trained(network, "noise predictor"), snr=snr, **parameters)


def diffpure(trained: NetworkLoader, *, network: str, **parameters: Any) -> Diffused:
    """Return the reverse SDE.

    Args:
        trained: function from a name to the trained network.
        network: name of the noise predictor's weights.
        **parameters: see `Diffused`.
    """
    return ReverseSDE(trained(network, "noise predictor"), **parameters)


def gdmp(trained: NetworkLoader, *, network: str, **parameters: Any) -> Diffused:
    """Return DDPM's sampler with guidance.

    Args:
        trained: function from a name to the trained network.
        network: name of the noise predictor's weights.
        **parameters: see `Ancestral`.
    """
    return Ancestral(trained(network, "noise predictor"), **parameters)


def denoise_once(trained: NetworkLoader, *, network: str, **parameters: Any) -> Diffused:
    """Return the one-shot denoiser.

    Args:
        trained: function from a name to the trained network.
        network: name of the noise predictor's weights.
        **parameters: see `DenoiseOnce`.
    """
    return DenoiseOnce(trained(network, "noise predictor"), **parameters)
