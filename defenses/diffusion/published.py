"""Published diffusion models, brought into the weights format of this package; after that they load by their name.

Every tensor of a file goes to its place by name and shape; one that is missing, unknown or of another shape is refused.
Files of torch.save are read with `weights_only`, so none can run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

# NCSNv2's names in the release, and here.
_RENAMED = (
    (re.compile(r"^(res\d\.\d)\.(conv2|shortcut)\.conv\."), r"\1.\2."),
    (re.compile(r"\.msf\.convs\."), ".fuse."),
    (re.compile(r"\.crp\.convs\."), ".pools."),
)
_UNIT = re.compile(r"\.(adapt_convs\.\d+|output_convs)\.(\d)_(\d)_conv\.")
_LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}


def read_torch(path: Path) -> Any:
    """The content of a torch.save file, without pickled code.

    Raises:
        UserError: it is not there, is damaged, or holds more than tensors and plain values.
    """
    import torch

    if not path.is_file():
        raise UserError(f"{path} is not there; download it first")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged part makes it raise
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(f"{path} cannot be read safely ({type(error).__name__}: {line[:120]})") from None


def _placed(path: Path, network: nn.Module, given: Mapping[str, Tensor]) -> nn.Module:
    """The network with the given tensors."""
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given or name not in wanted:
            problem = "is missing" if name not in given else "is not one of the network's"
            raise UserError(f'{path} does not fit the network: tensor "{name}" {problem}')
        if given[name].shape != wanted[name].shape:
            shapes = f"{list(given[name].shape)}, not {list(wanted[name].shape)}"
            raise UserError(f'{path} does not fit the network: tensor "{name}" is {shapes}')
    network.load_state_dict(dict(given))
    return network


def _stripped(path: Path, state: Any) -> dict[str, Tensor]:
    """Tensors without the prefix of DataParallel and without the noise levels, which are no weights."""
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{path} does not hold a network's tensors where the release has them")
    names = {str(name).removeprefix("module."): value for name, value in state.items()}
    names.pop("sigmas", None)
    return names


def score_sde(path: Path, **args: Any) -> nn.Module:
    """A checkpoint of score_sde's DDPM++, as `checkpoint_8.pth` of cifar10_ddpmpp_deep_continuous under VP.

    The file holds {optimizer, model, ema, step}. The average is a list without names, in the order of the parameters:
    the names are those of `model` in the same file, and their order must be that of the network here.

    Args:
        path: the file.
        **args: of `networks.ncsnpp.NCSNpp`, where the file is not of the deep CIFAR-10 model.

    Returns:
        The network with the averaged weights.

    Raises:
        UserError: the file is not readable or of another network.
    """
    from defenses.networks import build_network

    content = read_torch(path)
    if not isinstance(content, Mapping) or not {"model", "ema"} <= set(content):
        raise UserError(f"{path} is no checkpoint of score_sde; it must hold model and ema")
    named = _stripped(path, content["model"])
    average = content["ema"].get("shadow_params") if isinstance(content["ema"], Mapping) else None
    if not isinstance(average, Sequence) or len(average) != len(named):
        count = len(average) if isinstance(average, Sequence) else "no"
        raise UserError(f"{path}: its average has {count} tensors and its model {len(named)}")
    network = build_network("ncsnpp", **args)
    _placed(path, network, named)
    own = [name for name, _ in network.named_parameters()]
    if own != list(named):
        first = next(a for a, b in zip(own, named, strict=True) if a != b)
        raise UserError(f'{path}: from "{first}" on its parameters, and so its average, stand in another order')
    return _placed(path, network, dict(zip(own, average, strict=True)))


def ncsnv2(path: Path, *, average: bool = False, **args: Any) -> nn.Module:
    """A checkpoint of NCSNv2, as `best_checkpoint_with_denoising.pth` of CIFAR-10: [model, ..., average].

    Args:
        path: the file.
        average: the averaged weights, which NCSNv2 itself samples with; ADP's release takes the raw ones.
        **args: of `networks.ncsnv2.NCSNv2`.

    Returns:
        The network, f without the division by sigma.

    Raises:
        UserError: the file is not readable or of another network.
    """
    from defenses.networks import build_network

    content = read_torch(path)
    if not isinstance(content, Sequence) or len(content) < (5 if average else 1):
        wanted = "five entries, the last the average" if average else "entries, the first the weights"
        raise UserError(f"{path} is no checkpoint of NCSNv2; it must be a list of {wanted}")
    named = {_ncsnv2_name(n): v for n, v in _stripped(path, content[-1 if average else 0]).items()}
    return _placed(path, build_network("ncsnv2", **{"pool": "max", **args}), named)


def _ncsnv2_name(name: str) -> str:
    for pattern, here in _RENAMED:
        name = pattern.sub(here, name)

    def unit(found: re.Match[str]) -> str:
        part, block, stage = found.groups()
        where = part.replace("adapt_convs", "adapt").replace("output_convs", "output")
        return f".{where}.convs.{2 * (int(block) - 1) + int(stage) - 1}."

    return _UNIT.sub(unit, name)


def diffusers_unet(source: str) -> tuple[nn.Module, dict[str, Any]]:
    """A U-Net that diffusers saved, or one of the hub by its id, as "google/ddpm-cifar10-32".

    Args:
        source: a folder of `save_pretrained` (of the model, or of a pipeline with the folder `unet`), or an id.

    Returns:
        (the network under the VP SDE, its arguments for `build_network`).

    Raises:
        UserError: there is none, it does not predict noise of as many channels as it takes, its noise schedule is not
            DDPM's, or its weights do not fit its config.
    """
    from defenses.networks import build_network

    unet, info = _pretrained(source)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(key):
            raise UserError(f"{source} does not fit its config: {key.replace('_', ' ')}: {next(iter(info[key]))}")
    config = dict(unet.config)
    if config["out_channels"] != config["in_channels"] or config.get("class_embed_type") or config["num_class_embeds"]:
        raise UserError(f"{source} is no plain noise predictor: it has classes, or more channels out than in")
    _check_schedule(source)
    size = config["sample_size"]
    ours = ("sample_size", "in_channels", "out_channels")
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in ours}
    args = {"in_channels": config["in_channels"], "size": size, "sde": "vp", "config": kept}
    network = build_network("unet-diffusers", **args)
    return _placed(Path(source), network, {f"unet.{n}": v for n, v in unet.state_dict().items()}), args


def _pretrained(source: str) -> tuple[Any, Mapping[str, Any]]:
    from diffusers import UNet2DModel

    options: dict[str, Any] = {"output_loading_info": True, "low_cpu_mem_usage": False}
    if (Path(source) / "unet").is_dir():
        options["subfolder"] = "unet"
    try:
        found: tuple[Any, Mapping[str, Any]] = UNet2DModel.from_pretrained(source, **options)  # type: ignore[no-untyped-call]
    except Exception as error:  # of the hub, the network, the file or the config
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        text = "name a folder of diffusers' save_pretrained, or an id of the hub that can be reached"
        raise UserError(f'cannot load "{source}" through diffusers ({line[:160]}); {text}') from None
    return found


def _check_schedule(source: str) -> None:
    """Refuse a scheduler beside the model that is not DDPM's; where there is none, DDPM's is taken for granted."""
    from diffusers import DDPMScheduler

    options = {"subfolder": "scheduler"} if (Path(source) / "scheduler").is_dir() else {}
    try:
        found = DDPMScheduler.load_config(source, **options)
    except Exception:  # no scheduler is published with it
        return
    for key, value in {**_LINEAR, "prediction_type": "epsilon"}.items():
        if found.get(key, value) != value:
            raise UserError(f"{source} was trained under another schedule: its {key} is {found[key]}, not {value}")


_READERS = ("score-sde", "ncsnv2", "diffusers")


def import_weights(kind: str, source: str, name: str, dataset: str, *, out: Path, **args: Any) -> Path:
    """Bring published weights into this package's format: <out>/<dataset>/<name>.safetensors and its .json.

    Then `load_model("diffpure", dataset, weights_root=out, network=name)` takes them.

    Args:
        kind: "score-sde", "ncsnv2" or "diffusers".
        source: the file, folder or id.
        name: what the weights are called here; "adp" for NCSNv2 as ADP takes it.
        dataset: name of the data set.
        out: folder of weights.
        **args: see `score_sde` and `ncsnv2`.

    Returns:
        The weights' file.

    Raises:
        UserError: see the readers; or the folder cannot be written to.
    """
    from defenses.weights_io import save_network

    if kind not in _READERS:
        raise unknown("kind of published weights", kind, _READERS)
    if kind == "diffusers":
        network, found = diffusers_unet(source)
        made, here = "unet-diffusers", found
    elif kind == "score-sde":
        network, made = score_sde(Path(source), **args), "ncsnpp"
        here = {"in_channels": 3, "size": 32, "sde": "vp", **args}
    else:
        network = ncsnv2(Path(source), **args)
        made = "ncsnv2"
        here = {"in_channels": 3, "pool": "max", **{k: v for k, v in args.items() if k != "average"}}
    path = out / dataset / f"{name}.safetensors"
    save_network(path, network, made, here, {"imported": kind, "source": Path(source).name, "options": args})
    return path
