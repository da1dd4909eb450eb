"""Behind ``tfcompress.convert``: reading (source, calibration), the child process (worker, jobs), checking (gate)."""
