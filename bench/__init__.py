"""purebench: tells whether a defense against adversarial examples really works."""

import lazy_loader

import defenses  # noqa: F401  provides the module `autoattack` that robustbench imports

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
