from .analysis.detection import detection as detection
from .analysis.images import load_images as load_images
from .analysis.leaderboard import leaderboard as leaderboard
from .analysis.loaders import load_audits as load_audits
from .analysis.loaders import load_certificates as load_certificates
from .analysis.loaders import load_runs as load_runs
from .analysis.pairs import pairs as pairs
from .analysis.ranks import rank_ranges as rank_ranges
from .analysis.results import load_cells as load_cells
from .analysis.results import load_draws as load_draws
from .analysis.results import load_results as load_results
from .analysis.summary import summary as summary
from .analysis.worst_case import worst_per_image as worst_per_image
from .api.benchmark import benchmark as benchmark
from .api.benchmark import clean_accuracy as clean_accuracy
from .spec.threat import ThreatModel as ThreatModel
from .spec.view import ViewSpec as ViewSpec
from .tracks.corruptions.tables import load_corruptions as load_corruptions
from .tracks.poisoning.tables import load_poisoning as load_poisoning
from .tracks.smoothing.tables import load_smoothing as load_smoothing

__version__: str
