"""`purebench import`: what it writes is loaded by name; a mistake is one line and writes nothing."""

import torch
from diffusion_releases import OPTIONS, Code, checkpoint, ncsnv2_states, run, saved

from defenses import load_model
from defenses.core.noise import Noise
from defenses.importers.registry import FORMATS
from defenses.networks.registry import build_network
from defenses.zoo.checkpoints import read_sidecar


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
    from defenses.zoo.checkpoints import save_network

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
    yield ["ncsnv2", "nan.pth", "--set", "average=maybe"], 'average is "maybe"; it must be true or false'
    yield ["ncsnv2", "nan.pth", "--set", "averge=true"], 'unknown option of ncsnv2 "averge"; did you mean average'
    yield ["hill-ebm", "energy.pth", "--set", "a=1"], 'unknown option of hill-ebm "a"'
    yield ["score-sde", "good.pth"], "all_modules.0.bias"
    yield ["score-sde", "good.pth", "--set", "channels=x"], "channels is x; it must be a whole number"
    yield ["score-sde", "good.pth", "--set", "multipliers=2"], "multipliers is 2; it must be a list"
    yield (
        ["score-sde", "good.pth", "--set", "multipliers=[0, 2]"],
        "multipliers is [0, 2]; it must be a list, each a whole",
    )
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
