"""How a program that tests start in several processes ends, where its end is not what they test."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from torch import distributed


def end() -> NoReturn:
    """Waits for the others, leaves them, and ends at once: a thread of gloo that still works would meet a process in ruins."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
