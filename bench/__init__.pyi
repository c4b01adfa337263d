from .analysis.compare import compare as compare
from .analysis.results import load_cells as load_cells
from .analysis.results import load_draws as load_draws
from .analysis.results import load_results as load_results
from .analysis.summary import clean_and_robust as clean_and_robust
from .analysis.summary import summary as summary
from .analysis.worst_case import worst_per_image as worst_per_image
from .api.benchmark import benchmark as benchmark
from .api.certify import certify as certify
from .api.clean_accuracy import clean_accuracy as clean_accuracy
from .api.judge import judge as judge
from .api.run_preset import run_preset as run_preset
from .audit.audit_defense import audit_defense as audit_defense
from .report.of_results import table as table
from .spec.threat import ThreatModel as ThreatModel
from .spec.view import ViewSpec as ViewSpec

__version__: str
