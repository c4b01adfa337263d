"""The module `autoattack` that robustbench imports: fra31's AutoAttack, computed by pyautoattack.

robustbench 1.1.1 depends on the distribution `pyautoattack` but imports the module `autoattack`, whose calls have
another signature. Imports among these files are relative: users know the package by the name `autoattack`.
"""

from .autoattack import AutoAttack as AutoAttack
