"""Criteria: ``(weights, model, data) -> scores``, dicts of arrays by tensor path; the smallest scores go first."""

import numpy as np


def magnitude(weights, model=None, data=None):
    """``|w|`` (Han et al. 2015, arXiv:1506.02626).

    >>> import numpy as np
    >>> magnitude({"a": np.array([-2.0, 1.0])})["a"].tolist()
    [2.0, 1.0]
    """
    return {path: np.abs(w) for path, w in weights.items()}


CRITERIA = {"magnitude": magnitude}
