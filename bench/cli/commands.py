"""Table of the commands. A command's module is imported when it is used."""

from __future__ import annotations

# name: (module in `bench.cli`, one line of help), in the order of `purebench --help`
COMMANDS = {
    "run": ("run", "Run a board: attack, judge, write records and tables. Finished cells are skipped."),
    "status": ("status", "Show which cells of a board are finished."),
    "plan": ("plan", "Show what a board would run, and what that would take."),
    "ls": ("ls", "List defenses, attacks, data sets, index lists, boards or presets, or search them by words."),
    "show": ("show", "Describe a defense, attack, data set, index list, preset or board by name."),
    "new": ("new", "Write a commented board to start from."),
    "merge": ("merge", "Write one results folder of those of several machines that ran one board."),
    "table": ("table", "Print the table of a results folder."),
    "compare": ("compare", "Compare two defenses, or two attacks, on the same images."),
    "diff": ("diff", "Compare two runs of a board, image by image; exits with 1 if they differ beyond ties."),
    "claims": (
        "claims",
        "Hold published claims against results, with the sampling error of both; exits with 1 if one is refuted.",
    ),
    "site": (
        "site",
        "Write results as static pages: leaderboards to sort and filter, a page for each row, how to repeat them.",
    ),
    "submit": (
        "submit",
        "Pack a row for a leaderboard, check one without running its code, or add one to a board's results.",
    ),
    "report": (
        "report",
        "Write the reproducibility report on results: protocol, checklists, numbers, audits, how to repeat them.",
    ),
    "figures": ("figures", "Draw results as pictures, SVG, PDF or PNG: ranks, attacks, audits, certified radii."),
    "columns": ("columns", "Say what the columns of the frames of bench mean: dtype, unit, meaning."),
    "export": ("export", "Write results as Parquet or CSV, for DuckDB, R or polars."),
    "detect": ("detect", "Print AUROC, true positive rates and accuracy with rejection of detectors."),
    "certify": (
        "certify",
        "Measure the gradient certificate of a defense, or of those of a board, whose results folder keeps them; "
        "exits with 1 if one fails, else with 3 if one is not measurable.",
    ),
    "audit": (
        "audit",
        "Check whether the attacks on a defense are fit to judge it; exits with 1 if not, with 3 if its certificate is "
        "not measurable.",
    ),
    "smooth": ("smooth", "Certify L2 radii of a defense under Gaussian noise (randomised smoothing), resumably."),
    "corruptions": (
        "corruptions",
        "Measure the accuracy of defenses by common corruption and severity, resumably; nothing is attacked.",
    ),
    "poison": (
        "poison",
        "Run a board of attacks on training data: poison, train, clean, and measure the success of the trigger. "
        "Finished trials are skipped.",
    ),
    "train": ("train", "Train a defense by its recipe, resumably."),
    "tune": ("tune", "Choose parameters of deployment on validation images, by clean accuracy and a transfer."),
    "import": ("import_weights", "Write a published checkpoint as weights; names and shapes must agree."),
    "doctor": ("doctor", "Check the installed libraries, and say how to mend what is broken."),
    "model-info": ("model_info", "Write or read RobustBench's model_info JSON."),
    "judge": ("judge", "Judge precomputed adversarial images, and write the same records as a run."),
    "challenge": (
        "challenge",
        "Judge images against a row of a results folder, under its own held-out draws: does its worst case fall?",
    ),
    "verify": ("verify", "Judge the stored images of a results folder again, and report what has changed."),
}
