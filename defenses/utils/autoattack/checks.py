"""The checks of a model before it is attacked: see pyautoattack."""

from pyautoattack.checks import *
