"""Rooms of ``tfcompress.convert``: what is read (source, calibration), what runs in a child (worker, jobs), what is checked (gate)."""
