"""python -S __main__.py SITE_PACKAGES TOOL ELF_MACHINE PROGRAM [FLAGS]: what a "pushed binary" executes."""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from emulated_phone.benchmark_model.main import main  # noqa: E402

main(*sys.argv[1:4], sys.argv[4:])
