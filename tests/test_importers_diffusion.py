"""Importers of published diffusion models, on files of the releases' formats made from random weights."""

import pickle

import pytest
import torch

from bench.cli import main
from bench.data import dataset_info
from defenses import load_model
from defenses.errors import UserError
from defenses.importers import FORMATS, import_weights
from defenses.importers.diffusers import unet as diffusers_unet
from defenses.importers.ncsnv2 import ncsnv2
from defenses.importers.score_sde import score_sde
from defenses.networks import build_network
from defenses.noise import Noise
from defenses.weights_io import load_network, read_sidecar

DIGITS = dataset_info("digits")
OPTIONS = {"channels": 8, "multipliers": [1, 2], "blocks": 2, "attention": [4]}
DDPMPP = {"in_channels": 1, "size": 8, **OPTIONS}
UNET = {
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}


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


def test_score_sde_takes_the_average_by_the_names_of_the_model(tmp_path):
    content, network = checkpoint()
    path = saved(tmp_path / "checkpoint_8.pth", content)
    out = import_weights("score-sde", path, "digits", out=tmp_path / "w" / "digits", options=OPTIONS)
    assert out == tmp_path / "w" / "digits" / "score-sde.safetensors"
    found = load_network("score-sde", "digits", root=tmp_path / "w")
    for (name, p), (other, q) in zip(found.named_parameters(), network.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q + 1)


def test_names_of_the_deep_cifar10_model():
    """The first and last places of cifar10_ddpmpp_deep_continuous in the release's list of modules."""
    with torch.device("meta"):
        network = build_network("ncsnpp")
    shapes = {n: tuple(v.shape) for n, v in network.state_dict().items()}
    assert shapes["all_modules.0.weight"] == (512, 128)
    assert shapes["all_modules.2.weight"] == (128, 3, 3, 3)
    assert shapes["all_modules.3.Dense_0.weight"] == (128, 512)
    # 2 linear, 1 convolution, 8 blocks at 32 pixels, 1 that halves: the first at 16 doubles the channels.
    assert shapes["all_modules.12.Conv_2.weight"] == (256, 128, 1, 1)
    assert shapes["all_modules.13.NIN_3.W"] == (256, 256)
    last = max(int(n.split(".")[1]) for n in shapes)
    assert shapes[f"all_modules.{last}.weight"] == (3, 128, 3, 3)
    # down: 4 levels of 8 blocks, 8 attentions, 3 that halve; middle 3; up: 4 of 9, 1 attention, 3 that double; end 2
    assert last + 1 == 3 + (32 + 8 + 3) + 3 + (36 + 1 + 3) + 2


def dropped(key):
    def change(content):
        del content["model"][key]
        del content["ema"]["shadow_params"][0]

    return change


def extra(content):
    content["model"]["module.surprise"] = torch.zeros(1)
    content["ema"]["shadow_params"].append(torch.zeros(1))


def reshaped(content):
    content["model"]["module.all_modules.0.bias"] = torch.zeros(3)


def shorter(content):
    content["ema"]["shadow_params"].pop()


def reordered(content):
    names = list(content["model"])
    names[1], names[2] = names[2], names[1]
    content["model"] = {n: content["model"][n] for n in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped("module.all_modules.0.weight"), 'all_modules.0.weight" is missing'),
        (extra, 'it has a tensor "surprise" that the network has not'),
        (reshaped, r'all_modules.0.bias" is \[3\], not \[32\]'),
        (shorter, "its average has"),
        (reordered, "another order"),
        (lambda content: content.pop("ema"), "must hold model and ema"),
    ],
)
def test_score_sde_skips_nothing(tmp_path, change, message):
    content, _ = checkpoint()
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        score_sde(str(saved(tmp_path / "c.pth", content)), DIGITS, **OPTIONS)
    assert "c.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def test_pickled_code_never_runs(tmp_path, capsys):
    path = tmp_path / "c.pth"
    path.write_bytes(pickle.dumps({"model": Code(), "ema": {}}))
    for make in (score_sde, ncsnv2):
        with pytest.raises(UserError, match=r"c\.pth cannot be read safely"):
            make(str(path), DIGITS)
    saved(path, {"model": {}, "ema": Code()})
    with pytest.raises(UserError, match=r"c\.pth cannot be read safely"):
        score_sde(str(path), DIGITS)
    with pytest.raises(UserError, match="there is no file"):
        score_sde(str(tmp_path / "none.pth"), DIGITS)
    assert "code ran" not in capsys.readouterr().out


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


@pytest.mark.parametrize("average", [False, True])
def test_ncsnv2_has_a_place_for_every_tensor(tmp_path, average):
    states = ncsnv2_states()
    path = saved(tmp_path / "best_checkpoint_with_denoising.pth", states)
    import_weights("ncsnv2", path, "digits", out=tmp_path / "w" / "digits", options={"average": average})
    network = load_network("adp", "digits", root=tmp_path / "w")
    given = states[-1]
    assert sum(p.numel() for p in network.parameters()) == sum(v.numel() for v in given.values())
    shift = 0 if average else 0.01
    found = network.state_dict()
    assert torch.equal(found["res2.0.conv2.weight"], given["res2.0.conv2.conv.weight"] + shift)
    assert torch.equal(found["refine4.output.convs.5.weight"], given["refine4.output_convs.3_2_conv.weight"] + shift)
    assert torch.equal(found["refine3.adapt.1.convs.2.weight"], given["refine3.adapt_convs.1.2_1_conv.weight"] + shift)
    assert torch.equal(found["refine2.fuse.1.bias"], given["refine2.msf.convs.1.bias"] + shift)
    assert read_sidecar(tmp_path / "w" / "digits" / "adp.safetensors")["network"]["args"] == {
        "in_channels": 1,
        "ngf": 4,
    }
    assert torch.isfinite(network(torch.rand(1, 1, 8, 8))).all()


def test_ncsnv2_skips_nothing(tmp_path):
    states = ncsnv2_states()
    del states[0]["module.refine1.crp.convs.0.weight"]
    with pytest.raises(UserError, match=r'refine1.pools.0.weight" is missing'):
        import_weights("ncsnv2", saved(tmp_path / "c.pth", states), "digits", out=tmp_path)
    with pytest.raises(UserError, match="list of five entries"):
        ncsnv2(str(saved(tmp_path / "c.pth", states[:4])), DIGITS, average=True)
    with pytest.raises(UserError, match=r'"begin_conv\.weight" is missing'):
        ncsnv2(str(saved(tmp_path / "c.pth", [{"a": torch.zeros(1)}])), DIGITS)


def run(*arguments):
    return main(["import", *map(str, arguments)])


def test_the_command_writes_what_defenses_load_by_name(tmp_path, capsys):
    out = ["--dataset", "digits", "--out", tmp_path / "w"]
    file = saved(tmp_path / "n.pth", ncsnv2_states())
    assert run("ncsnv2", file, *out, "--set", "average=true") == 0
    content, _ = checkpoint()
    file = saved(tmp_path / "s.pth", content)
    options = [f"{k}={v}" for k, v in OPTIONS.items()]
    assert run("score-sde", file, *out, "--name", "ddpmpp", "--set", *options) == 0
    written = tmp_path / "w" / "digits" / "ddpmpp.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == str(written)
    said = read_sidecar(written)["recipe"]["imported"]
    assert (said["format"], said["file"], said["options"]) == ("score-sde", "s.pth", OPTIONS)
    assert len(said["file_sha256"]) == 64
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert load_model("adp", "digits", weights_root=tmp_path / "w", runs=1).logits(x, Noise.of(0, 2)).shape == (2, 10)
    defense = load_model("diffpure", "digits", weights_root=tmp_path / "w", network="ddpmpp", steps=2)
    assert defense.logits(x, Noise.of(0, 2)).shape == (2, 10)
    assert defense.provenance.fingerprint["weights"].keys() == {"ddpmpp", "undefended"}
    assert run("score-sde", file, *out, "--name", "ddpmpp", "--set", *options) == 2, "weights are not overwritten"


def test_diffpure_takes_an_import_for_cifar10(tmp_path):
    """The names and shapes of CIFAR-10 with few channels, and a classifier of the test's own."""
    from defenses.weights_io import save_network

    network = build_network("ncsnpp", seed=1, channels=8, multipliers=[1, 1], blocks=1, attention=[16])
    model = {f"module.{n}": v for n, v in network.state_dict().items()}
    ema = {"shadow_params": [p.detach() for p in network.parameters()]}
    file = saved(tmp_path / "checkpoint_8.pth", {"model": model, "ema": ema})
    options = ["channels=8", "multipliers=[1, 1]", "blocks=1"]
    assert run("score-sde", file, "--out", tmp_path / "w", "--name", "song", "--set", *options) == 0
    args = {"in_channels": 3, "num_classes": 10, "size": 32, "channels": [4, 4], "hidden": 8}
    classifier = build_network("small-cnn", **args)
    save_network(tmp_path / "w" / "cifar10" / "small.safetensors", classifier, "small-cnn", args, {})
    defense = load_model(
        "diffpure", "cifar10", network="song", classifier="small", weights_root=tmp_path / "w", steps=2
    )
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert defense.logits(x, Noise.of(0, 2)).shape == (2, 10)
    # The same network, without the way through the file.
    u, t = torch.rand(1, 3, 32, 32), torch.tensor([0.5])
    with torch.no_grad():
        torch.testing.assert_close(defense.purifier.network(u, t), network.eval()(u, t))


def bad_files(tmp_path):
    """(arguments, what the line says), for every kind of mistake."""
    good, _ = checkpoint()
    state, nan = {"f.0.weight": torch.zeros(4, 3, 3, 3)}, ncsnv2_states()
    nan[0]["module.end_conv.bias"][0] = float("nan")
    wide = {f"module.{n}": v for n, v in ncsnv2_states()[-1].items()}
    wide["module.end_conv.bias"] = torch.zeros(7)
    made = {
        "good.pth": good,
        "code.pth": Code(),
        "nan.pth": nan,
        "wide.pth": [wide],
        "energy.pth": state,
        "empty.pth": {},
    }
    for name, content in made.items():
        saved(tmp_path / name, content)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:-300])
    (tmp_path / "folder").mkdir()
    yield ["score_sde", "good.pth"], 'unknown format "score_sde"; did you mean score-sde'
    for form in FORMATS:
        if form != "diffusers":
            yield [form, "none.pth"], "there is no file"
            yield [form, "folder"], "there is no file"
            yield [form, "code.pth"], "code.pth cannot be read safely"
            yield [form, "cut.pth"], "cut.pth cannot be read safely"
            yield [form, "empty.pth"], "empty.pth "
    yield ["ncsnv2", "nan.pth", "--dataset", "digits"], 'tensor "end_conv.bias" has values that are not finite'
    yield ["ncsnv2", "wide.pth", "--dataset", "digits"], 'tensor "end_conv.bias" is [7], not [1]'
    yield ["ncsnv2", "wide.pth"], 'tensor "begin_conv.weight" is [4, 1, 3, 3], not [4, 3, 3, 3]'
    yield ["ncsnv2", "nan.pth", "--set", "average=maybe"], "average is 'maybe'; it must be true or false"
    yield ["ncsnv2", "nan.pth", "--set", "averge=true"], 'unknown option of ncsnv2 "averge"; did you mean average'
    yield ["hill-ebm", "energy.pth", "--set", "a=1"], 'unknown option of hill-ebm "a"'
    yield ["score-sde", "good.pth"], "all_modules.0.bias"
    yield ["score-sde", "good.pth", "--set", "channels=x"], "channels is x; it must be a whole number"
    yield ["score-sde", "good.pth", "--set", "multipliers=2"], "multipliers is 2; it must be a list"
    yield ["score-sde", "good.pth", "--set", "multipliers=[0, 2]"], "a value of multipliers is 0"
    yield ["score-sde", "good.pth", "--set", "sde=vq"], 'unknown sde "vq"'
    yield ["score-sde", "good.pth", "--dataset", "cifar"], 'unknown data set "cifar"'
    yield ["diffusers", "folder"], 'folder" through diffusers'


def test_every_mistake_is_one_line_and_writes_nothing(tmp_path, capfd):
    for arguments, message in bad_files(tmp_path):
        form, file, *more = arguments
        assert run(form, tmp_path / file, *more, "--out", tmp_path / "w") == 2, arguments
        out, error = capfd.readouterr()
        assert out == "", arguments
        assert message in error, arguments
        assert error.count("\n") == 1, error
        assert "code ran" not in error
    assert not (tmp_path / "w").exists()


@pytest.fixture
def folder(tmp_path):
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **UNET)
    unet.save_pretrained(tmp_path / "model")
    return tmp_path / "model", unet


def test_a_folder_of_diffusers(folder, tmp_path):
    path, unet = folder
    import_weights("diffusers", path, "digits", out=tmp_path / "w" / "digits")
    network = load_network("ddpm", "digits", root=tmp_path / "w")
    x, t = torch.rand(3, 1, 8, 8), torch.tensor([0.1, 0.2, 0.9])
    with torch.no_grad():
        torch.testing.assert_close(network(x, t), unet(x, 999 * t).sample)
    with pytest.raises(UserError, match="of another data set: its in_channels is 1, and cifar10 has 3"):
        import_weights("diffusers", path, "cifar10", out=tmp_path / "w" / "cifar10")
    defense = load_model("gdmp", "digits", weights_root=tmp_path / "w", network="ddpm", steps=2, rounds=1)
    assert torch.isfinite(defense.logits(x, Noise.of(0, 3))).all()


def test_code_in_a_folder_never_runs(folder, tmp_path, capfd):
    path, unet = folder
    unet.save_pretrained(path, safe_serialization=False)
    (path / "diffusion_pytorch_model.safetensors").unlink()
    out = ["--dataset", "digits", "--out", tmp_path / "w"]
    assert run("diffusers", path, *out) == 0
    saved(path / "diffusion_pytorch_model.bin", {"conv_in.weight": Code()})
    capfd.readouterr()
    assert run("diffusers", path, *out, "--name", "other") == 2
    out, error = capfd.readouterr()
    assert "code ran" not in out + error
    assert error.count("\n") == 1, error


def test_a_pipeline_with_its_schedule(folder, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    _, unet = folder
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "good")
    diffusers_unet(str(tmp_path / "good"), DIGITS)
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path / "cosine")
    with pytest.raises(UserError, match="another schedule: its beta_schedule is squaredcos_cap_v2, not linear"):
        diffusers_unet(str(tmp_path / "cosine"), DIGITS)


def test_weights_that_do_not_fit_their_config(folder):
    from safetensors.torch import load_file, save_file

    path, _ = folder
    file = path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors.pop("conv_in.weight")
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"conv_in\.weight"):
        diffusers_unet(str(path), DIGITS)


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    from diffusers import UNet2DModel

    def fail(*_args, **_options):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(UNet2DModel, "from_pretrained", fail)
    with pytest.raises(UserError, match='cannot load "google/ddpm-cifar10-32" through diffusers') as caught:
        diffusers_unet("google/ddpm-cifar10-32", DIGITS)
    assert "\n" not in str(caught.value)
