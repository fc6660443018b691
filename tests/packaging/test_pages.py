"""Code of documentation pages runs in the lines that it has there."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pages import blocks, run

PAGE = """# A page

```python
first = start + 1
```

```python not_run.py
raise SystemExit
```

```python
second = first + 1
second / zero
```
"""


def test_a_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert blocks(PAGE) == ["first = start + 1\n", "second = first + 1\nsecond / zero\n"]
    assert run(str(page), start=1, zero=2)["second"] == 3
    with pytest.raises(ZeroDivisionError) as caught:
        run(str(page), start=1, zero=0)
    frame = traceback.extract_tb(caught.tb)[-1]
    assert (frame.filename, frame.lineno) == (str(page), PAGE.splitlines().index("second / zero") + 1)
