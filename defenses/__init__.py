"""Defenses against adversarial examples, behind one interface: `load_model`, `list_models`, `Defense`."""

import lazy_loader

from defenses.utils.autoattack_finder import provide_autoattack

provide_autoattack()  # robustbench imports it; worker processes import this package too
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
