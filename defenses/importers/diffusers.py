"""Unconditional U-Nets of the diffusers library, from a folder or the hub."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.importers.checkpoint import Checkpoint
from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView

if TYPE_CHECKING:
    from defenses.data.dataset import DatasetInfo

_LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}
_SEPARATE = ("sample_size", "in_channels", "out_channels")


def unet(source: str, _info: DatasetInfo) -> Checkpoint:
    """Return a U-Net that diffusers saved, or that the hub has by its id ("google/ddpm-cifar10-32"), under the VP SDE.

    Args:
        source: a folder of `save_pretrained` (of a model, or of a pipeline with a folder `unet`), or an id of the hub.
        _info: of the data set it was trained on; unused, since the config has the shape.

    Raises:
        UserError: it cannot be loaded, does not predict noise of as many channels as it takes, has another noise
            schedule than DDPM's, or its weights do not fit its config.
    """
    network, problems = _pretrained(source)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if problems.get(key):
            raise UserError(f"{source} does not fit its config: {key.replace('_', ' ')}: {next(iter(problems[key]))}")
    config = dict(network.config)
    if config["out_channels"] != config["in_channels"] or config.get("class_embed_type") or config["num_class_embeds"]:
        raise UserError(f"{source} is no plain noise predictor: it has classes, or more channels out than in")
    _check_schedule(source)
    options = {k: v for k, v in config.items() if not k.startswith("_") and k not in _SEPARATE}
    args = {"in_channels": config["in_channels"], "size": config["sample_size"], "sde": "vp", "config": options}
    tensors = {f"unet.{n}": v for n, v in network.state_dict().items()}
    return Checkpoint("ddpm", "unet-diffusers", args, tensors, {"method": "score-sde"})


def _pretrained(source: str) -> tuple[Any, JsonView]:
    from diffusers import UNet2DModel

    options: dict[str, object] = {"output_loading_info": True, "low_cpu_mem_usage": False}
    if (Path(source) / "unet").is_dir():
        options["subfolder"] = "unet"
    try:
        with _quiet():
            network_and_info: tuple[object, Mapping[str, object]] = UNet2DModel.from_pretrained(source, **options)  # type: ignore[no-untyped-call]
    except Exception as error:  # of the hub, the connection, the file or the config
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        text = "name a folder of diffusers' save_pretrained, or an id of the hub that can be reached"
        raise UserError(f'cannot load "{source}" through diffusers ({line[:160]}); {text}') from None
    return network_and_info


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's log, as on .bin files, which it reads without running code."""
    from diffusers.utils.logging import get_verbosity, set_verbosity

    before = get_verbosity()
    set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_verbosity(before)


def _check_schedule(source: str) -> None:
    """Refuse a scheduler beside the model other than DDPM's, which is assumed if there is none."""
    from diffusers import DDPMScheduler

    options = {"subfolder": "scheduler"} if (Path(source) / "scheduler").is_dir() else {}
    try:
        with _quiet():
            schedule = DDPMScheduler.load_config(source, **options)
    except Exception:  # no scheduler is published with it
        return
    for key, value in {**_LINEAR, "prediction_type": "epsilon"}.items():
        if schedule.get(key, value) != value:
            raise UserError(f"{source} was trained under another schedule: its {key} is {schedule[key]}, not {value}")
