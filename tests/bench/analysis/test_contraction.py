"""Rank correlation of contraction and robust accuracy: against SciPy's, and the rows on which they differ."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bench import contraction_agreement

ROWS = pd.DataFrame(
    {
        "defense": list("abcdef"),
        "contraction": [0.1, 0.2, 0.3, 0.6, 0.9, 0.9],
        "robust": [0.5, 0.0, 0.3, 0.2, 0.1, 0.6],
    }
)


def test_it_is_spearmans_and_names_the_rows():
    found, told = contraction_agreement(ROWS)
    assert found.value == pytest.approx(spearmanr(-ROWS["contraction"], ROWS["robust"]).statistic)
    assert -1 <= found.low < found.value < found.high <= 1
    assert told["says"].tolist() == ["", "robust, and broken", "", "", "", "broken, and robust"]
    assert contraction_agreement(ROWS)[0] == found


def test_constant_and_missing_values():
    assert np.isnan(contraction_agreement(ROWS.assign(robust=[0.0] * 5 + [0.1]).iloc[:5])[0].value)
    for rows in (ROWS.iloc[:2], ROWS.assign(robust=float("nan"))):
        with pytest.raises(ValueError, match="at least 3 rows"):
            contraction_agreement(rows)
