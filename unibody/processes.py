"""The end of a program that is one of several processes."""

from __future__ import annotations

import atexit
import gc
import time

from torch import distributed


def leave_at_exit() -> None:
    """Lets this process take leave of the others when the program ends, however it ends."""
    atexit.unregister(leave)
    atexit.register(leave)


def leave() -> None:
    """Ends the group of processes, and the threads of gloo.

    Those let go of the last tensors that they sent some time after these have arrived, and abort the program if Python is no longer
    there. They are waited for where the group is destroyed, which it is when nothing holds it; where the weights of a model in parts
    do, the threads get a moment.
    """
    if not distributed.is_initialized():
        return
    gc.collect()
    backend = distributed.get_backend()
    distributed.destroy_process_group()
    if "gloo" in backend:
        time.sleep(0.1)
