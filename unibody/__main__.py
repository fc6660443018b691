"""`python -m unibody` is the `unibody` command."""

from __future__ import annotations

from unibody.cli import main

if __name__ == "__main__":
    main()
