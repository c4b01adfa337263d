"""FAB for PyTorch: see pyautoattack."""

from pyautoattack.fab_pt import *
