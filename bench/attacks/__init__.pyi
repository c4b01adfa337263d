from .base import Attack as Attack
from .base import Unsupported as Unsupported
from .registry import attack_names as attack_names
from .registry import find_attack as find_attack
