"""Networks by kind: the parts that defenses are made of, built lazily."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

_KINDS = {
    "small-cnn": "defenses.networks.small_cnn:SmallCNN",
    "resnet20": "defenses.networks.resnet:resnet20",
    "resnet56": "defenses.networks.resnet:resnet56",
    "resnet110": "defenses.networks.resnet:resnet110",
    "wrn-28-10": "defenses.networks.wide_resnet:WideResNet",
    "ncsnv2": "defenses.networks.ncsnv2:NCSNv2",
    "score-mlp": "defenses.networks.score:ScoreMLP",
    "score-conv": "defenses.networks.score:ScoreConv",
    "noise-mlp": "defenses.networks.noise_mlp:NoiseMLP",
    "unet-diffusers": "defenses.networks.unet_diffusers:DiffusersUNet",
    "ncsnpp": "defenses.networks.ncsnpp:NCSNpp",
    "energy-conv": "defenses.networks.energy:energy_conv",
    "energy-mlp": "defenses.networks.energy:energy_mlp",
    "noise-generator": "defenses.networks.noise_generator:NoiseGenerator",
    "timm": "defenses.networks.outside:timm_network",
    "robustbench": "defenses.networks.outside:robustbench_network",
    "igebm-mlp": "defenses.networks.igebm:igebm_mlp",
    "igebm-resnet": "defenses.networks.igebm:igebm_resnet",
    "dcgan-discriminator": "defenses.networks.dcgan:discriminator",
    "dcgan-generator": "defenses.networks.dcgan:Generator",
    "vae": "defenses.networks.vae:VAE",
    "autoencoder": "defenses.networks.autoencoder:Autoencoder",
    "classifier-mlp": "defenses.networks.classifier_mlp:classifier_mlp",
    "wrn-biased": "defenses.networks.wide_resnet_biased:BiasedWideResNet",
}


def kinds() -> list[str]:
    """All kinds of network."""
    return sorted(_KINDS)


def _maker(kind: str) -> Any:
    if kind not in _KINDS:
        raise unknown("network kind", kind, _KINDS)
    module, name = _KINDS[kind].split(":")
    return getattr(importlib.import_module(module), name)


def build_network(kind: str, *, seed: int = 0, **args: Any) -> nn.Module:
    """A network with fresh weights.

    Classifiers, score networks and autoencoders take images [B, C, H, W] in [0, 1]; energies take them in [-1, 1],
    where their Langevin dynamics live (IGEBM's in [0, 1]), generators latent vectors [B, D]. Classifiers return logits
    [B, K], score networks and autoencoders images, energies [B], generators images in [-1, 1]. Noise predictors take
    noisy data of their SDE (attribute `sde`) and times [B] in [0, 1], and return the noise.

    Args:
        kind: one of `kinds()`.
        seed: seed of the initial weights; the global generator is left as it was.
        **args: the constructor's keyword arguments.

    Raises:
        UserError: unknown kind or argument.
    """
    import torch

    maker = _maker(kind)
    try:
        inspect.signature(maker).bind(**args)
    except TypeError as error:
        raise UserError(f'network "{kind}": {error}') from None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return maker(**args)  # type: ignore[no-any-return]


def checked_args(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as a recipe gives them, each of the kind that the constructor says.

    Args:
        kind: one of `kinds()`.
        args: by name; what the constructor does not name is left to `build_network`.

    Raises:
        UserError: unknown kind; a value of another kind, or a whole number below 1: all of them count something.
    """
    from defenses.training.settings import Count, read

    maker = _maker(kind)
    maker = getattr(maker, "func", maker)  # of a partial
    hints = get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    wanted = {name: {int: Count, Sequence[int]: Sequence[Count]}.get(hint, hint) for name, hint in hints.items()}
    return {name: read(f"network.args.{name}", wanted.get(name, Any), value) for name, value in args.items()}


def classifies(kind: str) -> bool:
    """Whether networks of a kind give logits of classes.

    Raises:
        UserError: unknown kind.
    """
    return "num_classes" in inspect.signature(_maker(kind)).parameters


def data_args(kind: str, shape: tuple[int, int, int], num_classes: int) -> dict[str, int]:
    """The constructor arguments of a kind that the data decide.

    Args:
        kind: one of `kinds()`.
        shape: (C, H, W) of an image.
        num_classes: number of classes.

    Raises:
        UserError: unknown kind; or the kind wants square images and these are not.
    """
    channels, height, width = shape
    wanted = inspect.signature(_maker(kind)).parameters
    if "size" in wanted and height != width:
        raise UserError(f'network "{kind}" takes square images, not {height}x{width}')
    given = {"in_channels": channels, "size": height, "num_classes": num_classes}
    return {n: v for n, v in given.items() if n in wanted}


def deployed(network: nn.Module) -> nn.Module:
    """The network as it is evaluated: evaluation mode, no weight gradients, convolutions in channels-last order.

    On a CPU the memory order alone makes small residual networks several times as fast; it changes no value.
    """
    import torch
    from torch import nn

    network = network.eval().requires_grad_(False)
    if any(isinstance(m, nn.Conv2d) for m in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network
