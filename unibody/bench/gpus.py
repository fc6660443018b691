"""What NVIDIA's driver tells of the GPUs, through pynvml; and why it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Gpus:
    """The GPUs of the machine; none, and the reason in `missing`, without the package, the driver or a device."""

    def __init__(self) -> None:
        self.handles: list[Any] = []
        self.missing = ""
        try:
            import pynvml

            pynvml.nvmlInit()
            self.handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except ImportError:
            self.missing = "pynvml is not installed: pip install nvidia-ml-py"
        except Exception as error:  # noqa: BLE001  no driver or no permission: each has its own class
            self.missing = f"pynvml finds no GPU ({error})"
        else:
            self.missing = "" if self.handles else "pynvml finds no GPU"

    def ask(self, question: Callable[[Any, Any], Any]) -> tuple[list[Any], str]:
        """What `question(pynvml, handle)` gives for each GPU that answers, and why others do not."""
        if not self.handles:
            return [], self.missing
        import pynvml

        answers, refusals = [], []
        for handle in self.handles:
            try:
                answers.append(question(pynvml, handle))
            except pynvml.NVMLError as error:
                refusals.append(str(error))
        refused = f"of {len(refusals)} of {len(self.handles)} GPUs: {refusals[0]}" if refusals else ""
        return answers, refused
