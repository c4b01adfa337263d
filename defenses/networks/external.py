"""Classifiers of timm and RobustBench as networks, with fresh weights."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from defenses.networks.normalise import Normalise
from defenses.networks.registry import check_names
from defenses.utils.errors import UserError, unknown
from defenses.utils.isolation import robustbench_call
from defenses.utils.plugins import line_of

_ARCHITECTURES = "robustbench.model_zoo.architectures"


class ExternalClassifier(nn.Module):
    """A classifier of another library behind a normalisation.

    Args:
        network: images [B, C, H, W] -> logits [B, K].
        mean: see `Normalise`.
        std: see `Normalise`.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None):
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to logits [B, K]."""
        return self.network(self.normalise(x))  # type: ignore[no-any-return]


def timm_network(
    *,
    name: str,
    in_channels: int = 3,
    size: int = 32,
    num_classes: int = 10,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **more: Any,
) -> ExternalClassifier:
    """Return a classifier of timm.

    Args:
        name: a name of `timm.list_models()`.
        in_channels: C.
        size: H = W; passed on to networks of one fixed size, as vision transformers.
        num_classes: K.
        mean: see `Normalise`.
        std: see `Normalise`.
        **more: arguments of timm's constructor, as patch_size.

    Raises:
        UserError: unknown name, or images or arguments that the network does not take.
    """
    import timm

    if not timm.is_model(name):
        raise unknown("model of timm", name, timm.list_models())
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    args = {**({"img_size": size} if fixed else {}), "in_chans": in_channels, "num_classes": num_classes, **more}
    shape = (in_channels, size, size)
    return _checked(
        "timm", name, lambda: ExternalClassifier(timm.create_model(name, **args), mean, std), shape, num_classes
    )


def robustbench_network(
    *,
    name: str,
    in_channels: int = 3,
    size: int = 32,
    num_classes: int = 10,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **more: Any,
) -> ExternalClassifier:
    """Return an architecture of RobustBench's zoo. Many take 3x32x32 alone.

    Args:
        name: module and class (or function) in `robustbench.model_zoo.architectures`, as "wide_resnet.WideResNet".
        in_channels: C.
        size: H = W.
        num_classes: K.
        mean: see `Normalise`; passed on to an architecture with its own normalisation.
        std: see `Normalise`.
        **more: arguments of the architecture, as depth.

    Raises:
        UserError: unknown name, or images or arguments that the network does not take.
    """
    with robustbench_call():
        maker = _architecture(name)
    check_names(f'robustbench\'s "{name}"', maker, more)
    parameters = inspect.signature(maker).parameters
    data = {"num_classes": num_classes, "num_input_channels": in_channels}
    args = {**{n: v for n, v in data.items() if n in parameters}, **more}
    if "mean" in parameters:
        args |= {"mean": mean or [0.0] * in_channels, "std": std or [1.0] * in_channels}
        mean = std = None
    shape = (in_channels, size, size)
    with robustbench_call():
        return _checked("robustbench", name, lambda: ExternalClassifier(maker(**args), mean, std), shape, num_classes)


def _architecture(name: str) -> Callable[..., nn.Module]:
    """Return RobustBench's class or function of a name, as "wide_resnet.WideResNet"."""
    modules = [m.name for m in pkgutil.iter_modules(importlib.import_module(_ARCHITECTURES).__path__)]
    module, _, member = name.partition(".")
    if module not in modules or not member:
        text = 'module of RobustBench\'s architectures (write it as "wide_resnet.WideResNet")'
        raise unknown(text, module, modules)
    try:
        imported = importlib.import_module(f"{_ARCHITECTURES}.{module}")
    except ImportError as error:
        raise UserError(f'"{module}" of RobustBench\'s architectures cannot be imported: {line_of(error)}') from None
    name_of_module = imported.__name__
    makers = {n: v for n, v in vars(imported).items() if callable(v) and getattr(v, "__module__", "") == name_of_module}
    if member not in makers:
        raise unknown(f"architecture in {module}", member, makers)
    return makers[member]  # type: ignore[no-any-return]


def _checked(
    library: str, name: str, make: Callable[[], ExternalClassifier], shape: tuple[int, int, int], num_classes: int
) -> ExternalClassifier:
    """Return a network after a test with two blank images."""
    size = "x".join(map(str, shape))
    try:
        network = make()
        with torch.no_grad():
            output = tuple(network.eval()(torch.zeros(2, *shape)).shape)
    except Exception as error:
        text = f'{library}\'s "{name}" does not take images of {size} with these arguments: {line_of(error)}'
        raise UserError(text) from None
    if output != (2, num_classes):
        raise UserError(f'{library}\'s "{name}" gives {list(output[1:])} for an image, not {num_classes} logits')
    return network.train()
