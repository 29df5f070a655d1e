"""Starts the worker on the socket that was handed down as descriptor 3. Run by duckserve, not by people."""

import faulthandler
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from duckserve_worker.serve import Worker  # noqa: E402

if __name__ == "__main__":
    faulthandler.enable()
    # Programs that the model starts must not keep the socket open.
    os.set_inheritable(3, False)
    os.set_blocking(3, True)
    Worker(3).run()
