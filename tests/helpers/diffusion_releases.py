"""Files of the formats in which diffusion models were published, made from random weights, and the command on them."""

import torch

from bench.cli.main import main
from defenses.data.dataset import dataset_info
from defenses.networks.registry import build_network

DIGITS = dataset_info("digits")
OPTIONS = {"channels": 8, "multipliers": [1, 2], "blocks": 2, "attention": [4]}
DDPMPP = {"in_channels": 1, "size": 8, **OPTIONS}


def checkpoint(**changes):
    """What score_sde saves: names with DataParallel's prefix, noise levels, a nameless average."""
    network = build_network("ncsnpp", seed=1, **DDPMPP)
    model = {"module.sigmas": torch.linspace(50, 0.01, 1000, dtype=torch.float64)}
    model |= {f"module.{n}": v.clone() for n, v in network.state_dict().items()}
    average = [p.detach() + 1 for p in network.parameters()]
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": average}
    return {"optimizer": {"state": {}, "param_groups": []}, "model": model, "ema": ema, "step": 8} | changes, network


def saved(path, content):
    torch.save(content, path)
    return path


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def release_names(ngf):
    """(name, shape) of every tensor in NCSNv2's release, written out from its modules."""
    wide, out = 2 * ngf, []

    def conv(name, a, b, k=3, bias=True):
        out.append((f"{name}.weight", (b, a, k, k)))
        if bias:
            out.append((f"{name}.bias", (b,)))

    def norm(name, channels):
        out.extend((f"{name}.{part}", (channels,)) for part in ("alpha", "gamma", "beta"))

    def block(name, a, b, down=False, dilated=False):
        middle, pooled = (a if down else b), down and not dilated
        conv(f"{name}.conv1", a, middle)
        norm(f"{name}.normalize2", middle)
        conv(f"{name}.conv2.conv" if pooled else f"{name}.conv2", middle, b)
        if down:
            conv(f"{name}.shortcut.conv" if pooled else f"{name}.shortcut", a, b, 1 if pooled else 3)
        norm(f"{name}.normalize1", a)

    def units(name, channels, blocks):
        for i in range(1, blocks + 1):
            for j in (1, 2):
                conv(f"{name}.{i}_{j}_conv", channels, channels, bias=False)

    def refine(name, inputs, to, end=False):
        for i, channels in enumerate(inputs):
            units(f"{name}.adapt_convs.{i}", channels, 2)
        units(f"{name}.output_convs", to, 3 if end else 1)
        if len(inputs) > 1:
            for i, channels in enumerate(inputs):
                conv(f"{name}.msf.convs.{i}", channels, to)
        for i in (0, 1):
            conv(f"{name}.crp.convs.{i}", to, to, bias=False)

    conv("begin_conv", 1, ngf)
    norm("normalizer", ngf)
    conv("end_conv", ngf, 1)
    block("res1.0", ngf, ngf), block("res1.1", ngf, ngf)
    block("res2.0", ngf, wide, down=True), block("res2.1", wide, wide)
    for part in ("res3", "res4"):
        block(f"{part}.0", wide, wide, down=True, dilated=True), block(f"{part}.1", wide, wide)
    refine("refine1", [wide], wide), refine("refine2", [wide, wide], wide)
    refine("refine3", [wide, wide], ngf), refine("refine4", [ngf, ngf], ngf, end=True)
    return out


def ncsnv2_states(ngf=4):
    generator = torch.Generator().manual_seed(0)
    average = {n: 0.05 * torch.randn(s, generator=generator) for n, s in release_names(ngf)}
    raw = {"module.sigmas": torch.ones(232)} | {f"module.{n}": v + 0.01 for n, v in average.items()}
    return [raw, {"state": {}}, 0, 300000, average]


def run(*arguments):
    return main(["import", *map(str, arguments)])
