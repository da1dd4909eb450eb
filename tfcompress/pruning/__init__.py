"""Pruning: a criterion scores weights, a granularity turns scores into masks, a schedule says how many."""
