"""Settings of every test process: one thread, no network, and `tests/oracle` importable as `oracle`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Two threads on a busy machine spin against each other: the same forward takes a hundred times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # the default; triton.compile warns where nobody chose
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

sys.path.insert(0, str(Path(__file__).parent))
