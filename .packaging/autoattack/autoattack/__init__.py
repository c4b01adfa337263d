"""The module that robustbench imports: fra31's AutoAttack, computed by pyautoattack."""

from autoattack.autoattack import AutoAttack as AutoAttack
