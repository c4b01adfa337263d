"""Terms of the pages: anchor, term, meaning."""

from __future__ import annotations

GLOSSARY = (
    (
        "worst-case",
        "worst case",
        "Per image the worst of the clean image and all attacks, chosen on the selection draws and counted on the "
        "held-out ones; then the mean over images. Choosing and counting on the same draws would make a "
        "randomised defense look worse than it is. Uniform noise is a yardstick and no candidate, nor are attacks "
        "that know the seed of the judged draw. The bar runs from 0 to 100 %: the band is the interval, the line "
        "the mean.",
    ),
    (
        "rank-range",
        "rank range",
        "The ranks that the images do not exclude. A defense is worse than another one only if the 95 % interval "
        "of their paired difference on the same images lies below 0, corrected for the number of comparisons "
        "(Bonferroni). “1–4” says: no data here tells these four apart. Rows that fail their audit or lack "
        "verdicts have no rank.",
    ),
    (
        "interval",
        "[ ]: interval",
        "Wilson's 95 % interval; n is the number of images, however many draws each of them has.",
    ),
    (
        "audit",
        "audit",
        "Checks whether the attacks were fit to judge the defense: do gradients vanish, does an unbounded attack "
        "break everything, do more steps still help. A defense that fails one has no rank, because its numbers "
        "may flatter it. “Not audited” is no verdict. An audit belongs to the exact defense, by its parameters "
        "and weights. “Earlier version”: today’s checks may find something else; purebench audit makes them.",
    ),
    (
        "strongest-attack",
        "strongest attack",
        "The attack that alone breaks the most images: fewer than half of the draws withstand it. The worst case is "
        "below it where other attacks break further images; the pages of images name the attack of each.",
    ),
    (
        "images",
        "image by image",
        "An image is broken if the defense is right on it, and an attack leaves fewer than half of the held-out draws "
        "right. Broken by adaptive attacks only: no attack on the bare classifier (blind) breaks it. An image that is "
        "wrong without any attack counts as neither broken nor withstanding. Refused images count as broken.",
    ),
    (
        "clean",
        "clean",
        "Accuracy on the images themselves, of the same deployed defense and draws.",
    ),
    (
        "drop",
        "drop",
        "Clean accuracy less the worst case, in points of a percent.",
    ),
    (
        "draws",
        "kind, draws",
        "A randomised defense gives other outputs for other noise. Each image is judged in this many held-out "
        "draws; a deterministic defense needs one.",
    ),
    (
        "rob",
        "Rob(M)",
        "Chance that an image withstands M submissions of the same adversarial image: all of M draws right, "
        "averaged over images. An attacker who may try again needs one wrong answer.",
    ),
    (
        "majority",
        "majority, mean logit",
        "Accuracy of the majority of an image's draws, or of the mean of their logits: the defense that averages "
        "its own randomness away. A tie is wrong.",
    ),
    (
        "claim",
        "claim, verdict",
        "A published robust accuracy of the defense's authors, beside the worst case here. Refuted: the whole "
        "interval of the claim lies above the measured one. Not reached: it lies below, so the attacks here are "
        "the weaker ones. Consistent: they overlap. Not comparable: another data set, threat or network; only the "
        "claim's own weights can refute it. A small network trained in minutes refutes nobody. Secondary: read in a "
        "later work. Points left: what the claim's protocol leaves above the full one on the network here.",
    ),
    (
        "certificate",
        "certificate",
        "A measurement that the gradients which exact attacks used are the defense's own: float64 gradients "
        "against central differences, and others. † marks exact gradients that nothing certifies, with the "
        "reason.",
    ),
    (
        "view",
        "view",
        "What an attack may use. Exact gradients pass through every step of the defense; BPDA ones take the purifier "
        'for the identity on the way back; a blind attack knows the bare classifier alone. "Mean of 8 draws" (EOT): it '
        'averages so many predictions of a randomised defense. The files have short labels, as "exact, 8 EOT x 1 run".',
    ),
    (
        "gradients",
        "gradients met",
        "What attackers differentiated: exact, the defense itself; bpda, a stand-in for the purifier on the way "
        "back; blind, the bare classifier.",
    ),
    (
        "evaluations",
        "evaluations",
        "Passes of an image through networks that all attacks together made, forward 1 and backward 2, per image.",
    ),
    (
        "seconds",
        "seconds",
        "Of all attacks together, per image, on the machine of the run.",
    ),
    (
        "passes",
        "passes a prediction",
        "Forward passes through networks that one prediction of one image takes.",
    ),
    (
        "paper",
        "paper, venue",
        "Where the defense was published; a link to it.",
    ),
    (
        "licence",
        "licence",
        "Of the implementation that was measured.",
    ),
    (
        "parts",
        "parts",
        "What an image passes, in order, and the role of each part.",
    ),
    (
        "trainings",
        "trainings",
        "Number of trainings, each a defense of its own, that a row is the mean of.",
    ),
    (
        "attack-columns",
        "attack columns",
        "Accuracy under one attack alone; * is incomplete. “Not planned”: the board does not run it on this "
        "defense. “Not run”: it is planned and has no result. “Unsupported”: the attack cannot run on it, with "
        "the reason.",
    ),
)
