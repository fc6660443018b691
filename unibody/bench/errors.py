"""What ends a benchmark: bad input, or a database, commit or folder that cannot be used."""

from __future__ import annotations

from unibody.errors import UnibodyError


class BenchmarkError(UnibodyError):
    """Says what cannot be done, why, and what to do."""
