"""Depth or width? Students of one teacher, made smaller along each line, trained with it and without it.

>>> from tfcompress.study.students import run_students
>>> run_students("digits", "runs/students/digits")  # doctest: +SKIP
PosixPath('runs/students/digits/report.html')
"""

from .config import PRESETS, StudentsConfig
from .run import report, run_students

__all__ = ["PRESETS", "StudentsConfig", "report", "run_students"]
