from .analysis.claim_files import read_claims as read_claims
from .analysis.claims import claims_table as claims_table
from .analysis.claims import judge_claim as judge_claim
from .analysis.results import load_cells as load_cells
from .analysis.results import load_draws as load_draws
from .analysis.results import load_results as load_results
from .analysis.summary import summary as summary
from .analysis.worst_case import worst_per_image as worst_per_image
from .api.benchmark import benchmark as benchmark
from .api.benchmark import clean_accuracy as clean_accuracy
from .spec.threat import ThreatModel as ThreatModel
from .spec.view import ViewSpec as ViewSpec

__version__: str
