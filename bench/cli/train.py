"""`purebench train`: train the weights of a defense by its recipe."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_data_root, add_device, add_out, add_parameters, key_values, positive
from defenses.utils.errors import UserError, unknown
from defenses.utils.paths import cache_dir
from defenses.zoo.cards import card, list_models
from defenses.zoo.hub_weights import is_on_hub


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("name", help="a defense with a recipe, see purebench ls")
    sub.add_argument("--dataset", default="digits", help="digits, mnist or cifar10 (default: digits)")
    add_out(sub, "weights folder; files go to <out>/<dataset> (default: the user's cache)")
    text = "name of the weights, so that those of a changed recipe stand beside others (default: the defense)"
    sub.add_argument("--name", dest="weights", metavar="NAME", help=text)
    add_data_root(sub)
    add_device(sub, "where to train, as cuda:0 (default: a GPU if there is one, else cpu)", default=None)
    sub.add_argument("--seed", type=int, default=0, help="of the training; 1 writes <name>.seed1 (default: 0)")
    text = "of torch (default: 1; small networks are slower with more)"
    sub.add_argument("--threads", type=positive, default=1, help=text)
    text = "change the recipe, as --set batch=32 objective.eps=0.1; recipe=mnist starts from that of another data set"
    add_parameters(sub, text)
    sub.add_argument("--stability", action="store_true", help="only measure the stability of trained ebm-mcmc chains")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    trainable = [n for n in list_models() if card(n).trainer]
    if arguments.name not in trainable:
        raise unknown("recipe", arguments.name, trainable)
    if arguments.stability and arguments.name != "ebm-mcmc":
        raise UserError(f"--stability is about the chains of ebm-mcmc; {arguments.name} has none")
    if is_on_hub(arguments.out):
        raise UserError(f"nothing is written to {arguments.out}; name a folder with --out, and upload it")
    import torch

    from defenses.training.stability import write_stability
    from defenses.training.train import train

    if arguments.stability:
        print(write_stability(arguments.dataset, root=arguments.out, data_root=arguments.data_root))
        return 0
    torch.set_num_threads(arguments.threads)
    path = train(
        arguments.name,
        arguments.dataset,
        out=(arguments.out or cache_dir()) / arguments.dataset,
        data_root=arguments.data_root,
        seed=arguments.seed,
        weights=arguments.weights,
        overrides=key_values(arguments.set),
        device=arguments.device,
    )
    print(path)
    return 0
