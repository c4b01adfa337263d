"""Options of runs on a Ray cluster."""

from __future__ import annotations

import argparse

from bench.cli import arguments as shared
from bench.execution.options import RayOptions
from defenses.utils.errors import UserError

UNSET = -1  # workers: as many as pay off; of a Ray cluster, as it has room for


def add_ray(sub: argparse.ArgumentParser) -> None:
    """Add the options of runs on a Ray cluster."""
    text = 'run on a Ray cluster: "auto" for that of this machine, or HOST:PORT of its head (--workers: all that fit)'
    sub.add_argument("--ray", type=_address, metavar="ADDRESS", help=text)
    text = "with --ray: GPUs of each worker, as 1 or 0.5 (default: 1 with --device cuda)"
    sub.add_argument("--gpus", type=_gpus, metavar="N", help=text)


def _address(text: str) -> str:
    """Parse the address of a Ray cluster."""
    host, colon, port = text.rpartition(":")
    if text != "auto" and not (host and "/" not in host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f'{text} is not "auto" or HOST:PORT')
    return text


def _gpus(text: str) -> float:
    """Parse the GPUs of a worker: a whole number, or a part of one."""
    value = shared.number_between(text, 0, float("inf"), "is not a positive number of GPUs")
    if value > 1 and not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of GPUs, or a part of one, as 0.5")
    return value


def ray_options(arguments: argparse.Namespace) -> RayOptions | None:
    """Return the options of a run on a Ray cluster; None of one on this machine.

    Raises:
        UserError: options that do not go together.
    """
    address, gpus = getattr(arguments, "ray", None), getattr(arguments, "gpus", None)
    if address is None:
        if gpus is not None:
            raise UserError("--gpus is for runs on a Ray cluster; add --ray, or leave it out")
        return None
    if arguments.workers == 0:
        raise UserError("--workers 0 runs cells in this process, --ray in workers of a cluster; leave one out")
    if arguments.device not in ("cpu", "cuda", "cuda:0"):
        raise UserError(f"--device {arguments.device}: Ray gives each worker its GPU; write --device cuda")
    if gpus is not None and arguments.device == "cpu":
        raise UserError("--gpus without an accelerator: add --device cuda, or leave it out")
    count: int | None = arguments.workers
    return RayOptions(address, None if count is None or count == UNSET else count, gpus)
