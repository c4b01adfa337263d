"""Defenses against adversarial examples, behind one interface: `load_model`, `list_models`, `Defense`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # public names: __init__.pyi
