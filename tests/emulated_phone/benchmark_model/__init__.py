"""A stand-in for benchmark_model: the real tool's flags, log, streams, exit codes and files, run by ai_edge_litert.

Held against the real outputs in tests/golden/benchmark_model. Nothing but `sys`, `os` and `time` is imported before a
model has to be loaded: a run that only sleeps starts in some 15 ms.
"""
