"""Write the page of the catalogue again: `python -m faults.write` in the folder `tests`."""

import sys

from faults.catalogue import PAGE, page
from faults.groups import load

if __name__ == "__main__":
    sys.path.append(str(PAGE.parents[1] / "helpers"))
    load()
    PAGE.write_text(page(), encoding="utf-8")
