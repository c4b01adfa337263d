"""Write the page of the catalogue again: `python -m faults.write` in the folder `tests`."""

from faults.catalogue import PAGE, page
from faults.groups import load

if __name__ == "__main__":
    load()
    PAGE.write_text(page(), encoding="utf-8")
