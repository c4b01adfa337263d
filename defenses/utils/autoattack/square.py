"""Square Attack: see pyautoattack."""

from pyautoattack.square import *  # noqa: F403
