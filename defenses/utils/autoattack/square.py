"""Square Attack: see pyautoattack."""

from pyautoattack.square import *
