"""Formats of published checkpoints, by name; their modules need torch, so they are not imported here."""

ABOUT = {  # name -> the file
    "hill-ebm": "energy of ebm-defense (Hill et al. 2021), `ebm.pth`",
    "hill-clf": "classifier of ebm-defense (Hill et al. 2021), `clf.pth`",
    "cifar-resnet": "ResNets of pytorch_resnet_cifar10 (Idelbayev 2018), as `resnet20-12fca82f.th`",
    "robustbench": "classifiers of RobustBench's architectures, as `Carmon2019Unlabeled.pt`",
    "score-sde": "score networks of score_sde_pytorch (Song et al. 2021), as `checkpoint_8.pth`",
    "ncsnv2": "score network of NCSNv2 (Song & Ermon 2020), `best_checkpoint_with_denoising.pth`",
    "diffusers": "U-Nets of diffusers, from a folder or the hub",
}
FORMATS = {  # name -> the function that returns the `Checkpoint` of a file, folder or id
    "hill-ebm": "defenses.importers.hill:energy",
    "hill-clf": "defenses.importers.hill:classifier",
    "cifar-resnet": "defenses.importers.cifar_resnet:cifar_resnet",
    "robustbench": "defenses.importers.robustbench:robustbench",
    "score-sde": "defenses.importers.score_sde:score_sde",
    "ncsnv2": "defenses.importers.ncsnv2:ncsnv2",
    "diffusers": "defenses.importers.diffusers:unet",
}
