"""purebench: tells whether a defense against adversarial examples really works."""

import sys
from pathlib import Path

import lazy_loader

sys.path.insert(0, str(Path(__file__).parents[1]))  # a user's folder `defenses` may be first on the path
import defenses  # noqa: F401  provides the module `autoattack` that robustbench imports
import leaderboards  # noqa: F401

del sys.path[0]

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
