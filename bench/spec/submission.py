"""A submitted row: what its zip holds, what is checked, and its limits; the program and the site read them here."""

from __future__ import annotations

SCHEMA = 1  # of submission.json
DESCRIPTION, CARD, BOARD = "submission.json", "card.toml", "board.toml"
CRATE = "ro-crate-metadata.json"
RESULTS, CODE = "results", "code"  # folders of the zip
KEPT = "submissions"  # folder of a results folder: what a row was submitted with, beside its results
MOST_FILES = 10_000
MOST_BYTES = 4 << 30  # unpacked
MOST_RATIO = 200  # unpacked bytes for a byte of the zip; `purebench submit pack` compresses nothing
MOST_TEXT = 64 << 20  # bytes of JSON and TOML, code apart
MOST_IMAGES, MOST_DRAWS = 100_000, 10_000  # of a cell: images, and draws of an image, those for selection included
MOST_ROWS = 5_000_000  # of all records, and of all draws
MOST_DECODED = 1 << 30  # bytes of the tables in memory
_LIMITS = f"at most {MOST_FILES:,} files, {MOST_BYTES >> 30} GiB unpacked, {MOST_RATIO} times the size of the zip"
_LIMITS += f", and {MOST_TEXT >> 20} MiB of JSON and TOML beside the code"

HOLDS = {
    DESCRIPTION: "Size and SHA-256 of every other file, SHA-256 of the weights, commit and versions of the run.",
    CARD: "Title, authors, venue, url, licence and summary of the defense, and its published claims.",
    BOARD: "The board of the run: data, threat, draws, attacks with their parameters, the defense.",
    CRATE: "RO-Crate metadata: the runs with their software, and every file with size and SHA-256.",
    f"{RESULTS}/": "The results folder with the cells of this one defense: plan, manifest, parts with records, draws "
    "and adversarial images, kept challenges, certificates, audits.",
    f"{CODE}/": "The code of a defense or an attack in files of one's own, and the files beside it that it read, as "
    "weights.",
}

# by name, in the order in which they are made; `bench.submissions.check` has a function for each
CHECKS = {
    "zip": f"No name leads out of the folder or is there twice, nothing is a link or encrypted; {_LIMITS}.",
    "files": f"{DESCRIPTION} lists every file, and size and SHA-256 of each agree; nothing else is in the zip.",
    "results": "Manifest, plan and parts are whole, of one defense, and each planned cell is finished without error; "
    f"a cell has at most {MOST_IMAGES:,} images and {MOST_DRAWS:,} draws of each; tables have the columns of a run "
    f"alone, at most {MOST_ROWS:,} rows, and {MOST_DECODED >> 30} GiB in memory.",
    "keys": "The key of each cell is computed again from the identity in its line, and the line says the same; each "
    "kept challenge is of a cell of the row. Where one differs, no table is read.",
    "board": f"{BOARD} is the board of these cells.",
    "images": "Number, label and SHA-256 of each image are those of the data set, or of the board.",
    "ball": "Each stored image lies in [0, 1] and in the ball, within the tolerance of a run: 1e-6, and the larger of "
    "1e-6 and 1e-5 eps.",
    "draws": "Each image has the selection and held-out draws that its cell names, and its counts are those of the "
    "draws.",
    "audit": "An audit of this defense is there, of today's version of purebench audit, and not of earlier code.",
    "card": "The card is complete, and its claims can be read.",
    "code": "The code of one's own that made the results is there, by its hashes.",
    "crate": f"{CRATE} describes every file of the zip but {DESCRIPTION}, and size and SHA-256 of each agree.",
}
AGAINST = {
    "label": "The board has no row of this label, and none of these cells.",
    "same board": "Name, budget, threats and attacks are the board's: it lacks no attack that all other rows of its "
    "kind have, and attacks of one label have the same parameters.",
    "same images": "Data set, split, index list and blocks are the board's. Where they, or the name of the board, are "
    "others, that alone is said.",
    "same audit": "Where the board has an audit of this defense, its outcomes are the same.",
    "same draws": "Seed and numbers of draws are the board's.",
}
RERUN = {
    "rerun": "With --rerun N, at most N stored images of each cell are judged again, as purebench verify does. This "
    "runs the code of the zip; nothing else does.",
}
REFUSED = (
    "A zip that fails one of the checks: purebench submit add names the first failure, and changes nothing.",
    "A label that the board has: a row is replaced by withdrawing the earlier one.",
    "Results of another board, of other images, or of other draws.",
)
