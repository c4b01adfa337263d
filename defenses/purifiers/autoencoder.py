"""Autoencoders as purifiers: Defense-VAE (Li & Ji 2019) and MagNet's reformer (Meng & Chen, CCS 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.core.purifier import Purifier, State
from defenses.networks.registry import NetworkLoader


class Reformer(Purifier):
    """Reconstruction by an autoencoder: deterministic, differentiable end to end.

    Args:
        network: images [B, C, H, W] in [0, 1] -> the same.
    """

    steps = 1
    paths = ("network",)

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return the image as the state."""
        return {"u": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Reconstruct the image."""
        return {"u": self.network(state["u"])}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the reconstruction."""
        return state["u"]


def build_defense_vae(network: NetworkLoader) -> Reformer:
    """Return Defense-VAE: a variational autoencoder from adversarial to clean images, with the latent mean.

    Args:
        network: function from a name to the trained network.
    """
    return Reformer(network("defense-vae", "variational autoencoder"))


def build_magnet(network: NetworkLoader, *, reformer: str = "magnet") -> Reformer:
    """Return MagNet's denoising autoencoder as a reformer, without its detectors.

    Args:
        network: function from a name to the trained network.
        reformer: name of its weights.
    """
    return Reformer(network(reformer, "autoencoder", "variational autoencoder"))
