"""``choose``: one option for each item, the least damage within budgets, as an integer programme."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

_LARGEST = 1e3  # damage as the solver sees it: it stops at a gap of 1e-6
_CUTS = 100  # answers within the solver's tolerance of a budget and not within the budget itself


def choose(damages, costs, limits):
    """One option for every item: the smallest sum of damages whose sums of costs stay within the limits.

    minimise sum_ic d_ic x_ic, subject to sum_c x_ic = 1 for every item i, sum_ic c_kic x_ic <= limit_k for every budget
    k, x binary: the programme of Yao Z et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, solved by
    HiGHS (``scipy.optimize.milp``). The limits hold to the last byte, and the sum is within
    a millionth of the least.

    Args:
        damages: (items, options), >= 0; infinite for an option that an item has not.
        costs: (budgets, items, options), finite where the damage is.
        limits: (budgets,).

    Returns:
        int array (items,): the option of every item; None where no choice is within the limits.

    Raises:
        ValueError: shapes that don't fit, a negative or NaN damage, an item without an option.

    >>> damages = [[0.0, 1.0, 9.0], [0.0, 2.0, 3.0]]
    >>> bytes_of = [[[40, 20, 10], [80, 40, 20]]]
    >>> choose(damages, bytes_of, [60]).tolist(), choose(damages, bytes_of, [29])
    ([0, 2], None)
    """
    damages, costs = np.asarray(damages, "float64"), np.asarray(costs, "float64")
    limits = np.asarray(limits, "float64")
    _check(damages, costs, limits)
    open_, best = np.isfinite(damages), None
    while True:  # the solver's tolerances are absolute: once a sum is known, larger damages are out and the rest scaled
        found = _solve(np.where(open_, damages, 0.0), open_, costs, limits)
        if found is None or best is not None and _sum(damages, found) >= _sum(damages, best):
            return best if best is not None else found
        best, known = found, _sum(damages, found)
        if known == 0 or known > 1e-3 * damages[open_].max():
            return best
        open_ = open_ & (damages <= known)


def _check(damages, costs, limits):
    if damages.ndim != 2 or costs.shape != (len(limits), *damages.shape):
        raise ValueError("Expected damages (items, options), costs (budgets, items, options) and a limit a budget. "
                         f"Received: {damages.shape}, {costs.shape}, {limits.shape}.")
    if np.isnan(damages).any() or (damages < 0).any() or not np.isfinite(damages).any(axis=1).all():
        raise ValueError("Damages are >= 0, and every item has an option of finite damage. Received: "
                         f"{damages.tolist()}.")
    if not np.isfinite(costs[:, np.isfinite(damages)]).all():
        raise ValueError("Every option of finite damage has finite costs. Received others.")


def _sum(damages, chosen):
    return float(damages[np.arange(len(chosen)), chosen].sum())


def _solve(damages, open_, costs, limits):
    items, options = damages.shape
    scale = damages.max() / _LARGEST or 1.0
    costs = np.where(open_, costs, 0.0)
    one_each = LinearConstraint(np.kron(np.eye(items), np.ones(options)), 1, 1)
    sizes = np.maximum(np.abs(costs).max(axis=(1, 2)), 1e-30)
    rows = [LinearConstraint((costs[k] / sizes[k]).ravel(), -np.inf, limits[k] / sizes[k]) for k in range(len(limits))]
    cuts = []
    for _ in range(_CUTS):
        result = milp(damages.ravel() / scale, integrality=np.ones(items * options), bounds=Bounds(0, open_.ravel()),
                      constraints=[one_each, *rows, *cuts], options={"mip_rel_gap": 0.0})
        if result.x is None:
            return None
        chosen = result.x.reshape(items, options).argmax(axis=1)
        at = np.arange(items), chosen
        if all(costs[k][at].sum() <= limits[k] for k in range(len(limits))):
            return chosen
        taken = np.zeros((items, options))
        taken[at] = 1.0
        cuts.append(LinearConstraint(taken.ravel(), -np.inf, items - 1))
    return None
