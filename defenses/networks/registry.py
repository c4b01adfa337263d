"""Registry of networks by kind; constructors are imported when a network is built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_type_hints

from defenses.utils.errors import UserError, gathered, unknown
from defenses.utils.validation import Count, Counts, Flag, Number, Numbers, under, validated

if TYPE_CHECKING:
    from torch import nn

Role = Literal[
    "classifier",
    "score network",
    "noise predictor",
    "energy of images in [-1, 1]",
    "energy of images in [0, 1]",
    "generator",
    "discriminator",
    "noise generator",
    "autoencoder",
    "variational autoencoder",
]

_KINDS: Mapping[str, tuple[Role, str]] = {
    "small-cnn": ("classifier", "defenses.networks.small_cnn:SmallCNN"),
    "resnet20": ("classifier", "defenses.networks.resnet:resnet20"),
    "resnet56": ("classifier", "defenses.networks.resnet:resnet56"),
    "resnet110": ("classifier", "defenses.networks.resnet:resnet110"),
    "wrn-28-10": ("classifier", "defenses.networks.wide_resnet:WideResNet"),
    "ncsnv2": ("score network", "defenses.networks.ncsnv2:NCSNv2"),
    "score-mlp": ("score network", "defenses.networks.score:ScoreMLP"),
    "score-conv": ("score network", "defenses.networks.score:ScoreConv"),
    "noise-mlp": ("noise predictor", "defenses.networks.noise_mlp:NoiseMLP"),
    "unet-diffusers": ("noise predictor", "defenses.networks.unet_diffusers:DiffusersUNet"),
    "ncsnpp": ("noise predictor", "defenses.networks.ncsnpp:NCSNpp"),
    "energy-conv": ("energy of images in [-1, 1]", "defenses.networks.energy:energy_conv"),
    "energy-mlp": ("energy of images in [-1, 1]", "defenses.networks.energy:energy_mlp"),
    "energy-mlp-leaky": ("energy of images in [-1, 1]", "defenses.networks.energy_leaky:energy_mlp_leaky"),
    "noise-generator": ("noise generator", "defenses.networks.noise_generator:NoiseGenerator"),
    "timm": ("classifier", "defenses.networks.external:timm_network"),
    "robustbench": ("classifier", "defenses.networks.external:robustbench_network"),
    "igebm-mlp": ("energy of images in [0, 1]", "defenses.networks.igebm:igebm_mlp"),
    "igebm-resnet": ("energy of images in [0, 1]", "defenses.networks.igebm:igebm_resnet"),
    "dcgan-discriminator": ("discriminator", "defenses.networks.dcgan:discriminator"),
    "dcgan-generator": ("generator", "defenses.networks.dcgan:Generator"),
    "vae": ("variational autoencoder", "defenses.networks.vae:VAE"),
    "autoencoder": ("autoencoder", "defenses.networks.autoencoder:Autoencoder"),
    "classifier-mlp": ("classifier", "defenses.networks.classifier_mlp:classifier_mlp"),
    "wrn-biased": ("classifier", "defenses.networks.wide_resnet_biased:BiasedWideResNet"),
}

# Kinds of values by the annotations of constructors.
_ARGUMENTS: dict[Any, Any] = {bool: Flag, int: Count, float: Number, Sequence[int]: Counts, tuple[int, ...]: Counts}
_ARGUMENTS |= {Sequence[float]: Numbers, Sequence[float] | None: Numbers | None}


class NetworkLoader(Protocol):
    """Function from the name of weights to the trained network."""

    def __call__(self, name: str, *roles: Role) -> nn.Module:
        """Return the network of a name.

        Args:
            name: of the weights.
            *roles: accepted roles; none: any.

        Raises:
            UserError: unknown name, or a network of another role.
        """


def kinds(*roles: Role) -> list[str]:
    """Return all kinds of network, or those of some roles, in alphabetical order."""
    return sorted(kind for kind, (role, _) in _KINDS.items() if not roles or role in roles)


def _entry(kind: str) -> tuple[Role, str]:
    if kind not in _KINDS:
        raise unknown("network kind", kind, _KINDS)
    return _KINDS[kind]


def role_of(kind: str) -> Role:
    """Return the role of networks of a kind; see `build_network` for inputs and outputs of each role.

    Raises:
        UserError: unknown kind.
    """
    return _entry(kind)[0]


def check_role(kind: str, roles: Sequence[Role], context: str) -> None:
    """Refuse networks of other roles.

    Args:
        kind: of the network.
        roles: the accepted roles.
        context: the message's words before the kind, as "recipe of adp: network.kind is".

    Raises:
        UserError: unknown kind, or one of another role.
    """
    role = role_of(kind)
    if role not in roles:
        accepted = " or ".join(map(_with_article, roles))
        raise UserError(f'{context} "{kind}", {_with_article(role)}; it must be {accepted}: {", ".join(kinds(*roles))}')


def _with_article(role: Role) -> str:
    return f"{'an' if role[0] in 'ae' else 'a'} {role}"


def _maker(kind: str) -> Any:
    """Import and return the constructor of a kind."""
    module, name = _entry(kind)[1].split(":")
    return getattr(importlib.import_module(module), name)


def build_network(kind: str, *, seed: int = 0, **args: Any) -> nn.Module:
    """Return a network with fresh weights.

    By role (`role_of`): classifiers, score networks and autoencoders take images [B, C, H, W] in [0, 1]; energies take
    them in [-1, 1], the scale of their Langevin dynamics (IGEBM's in [0, 1]), discriminators and noise generators in
    [-1, 1], generators latent vectors [B, D]. Classifiers return logits [B, K], score networks and autoencoders images,
    energies and discriminators [B], generators and noise generators images in [-1, 1]. Noise predictors take noisy data
    of their SDE (attribute `sde`) and times [B] in [0, 1], and return the noise.

    Args:
        kind: one of `kinds()`.
        seed: seed of the initial weights; the global generator does not change.
        **args: the constructor's keyword arguments.

    Raises:
        UserError: unknown kind or argument; mean or std of another number of channels.
    """
    import torch

    maker = _maker(kind)
    check_names(f'network "{kind}"', maker, args)
    try:
        bound = inspect.signature(maker).bind(**args)
    except TypeError as error:
        raise UserError(f'network "{kind}": {error}') from None
    bound.apply_defaults()
    _check_channels(kind, bound.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return maker(**args)  # type: ignore[no-any-return]


def _check_channels(kind: str, args: Mapping[str, Any]) -> None:
    channels = args.get("in_channels")
    for name in ("mean", "std"):
        values = args.get(name)
        if channels and values and len(values) not in (1, channels):
            raise UserError(f'network "{kind}": {name} is of {len(values)} channels, and the images have {channels}')


def checked_args(kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's constructor arguments, converted to the constructor's types.

    Args:
        kind: one of `kinds()`.
        args: by name.

    Raises:
        UserError: unknown kind or argument; a value of another type, or a whole number below 1, as all are counts.
    """
    maker = _maker(kind)
    check_names(f'network "{kind}"', maker, args)
    maker = getattr(maker, "func", maker)  # of a partial
    hints = get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)

    def read(name: str) -> Any:
        kind = hints.get(name, Any)
        return validated(_ARGUMENTS.get(kind, kind), args[name], name=under(f"recipe: network.args.{name}"))

    return dict(zip(args, gathered(read, args), strict=True))


def check_names(label: str, maker: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Refuse arguments that a constructor does not name; a constructor with **more checks its arguments itself.

    Args:
        label: of the constructed object, for messages.
        maker: the constructor.
        args: by name.

    Raises:
        UserError: unknown argument.
    """
    parameters = inspect.signature(maker).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in args:
        if name not in parameters:
            raise unknown(f"argument of {label}", name, parameters)


def data_args(kind: str, shape: tuple[int, int, int], num_classes: int) -> dict[str, int]:
    """Return the constructor arguments of a kind that the data determine.

    Args:
        kind: one of `kinds()`.
        shape: (C, H, W) of an image.
        num_classes: number of classes.

    Raises:
        UserError: unknown kind, or images that are not square for a kind that needs square ones.
    """
    channels, height, width = shape
    parameters = inspect.signature(_maker(kind)).parameters
    if "size" in parameters and height != width:
        raise UserError(f'network "{kind}" takes square images, not {height}x{width}')
    args = {"in_channels": channels, "size": height, "num_classes": num_classes}
    return {n: v for n, v in args.items() if n in parameters}


def deployed(network: nn.Module) -> nn.Module:
    """Return a network ready for evaluation: evaluation mode, no weight gradients, channels-last convolutions.

    Channels-last order is faster on a CPU and changes no value.
    """
    import torch
    from torch import nn

    network = network.eval().requires_grad_(False)
    if any(isinstance(m, nn.Conv2d) for m in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network
