"""The tables in docs/quantization.md: what each method's file holds, and what can run its layers; read from the files themselves.

python -m benchmarks.quantizers            # prints them
python -m benchmarks.quantizers --write    # puts them into docs/quantization.md
"""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from unibody.core.quantization.kernels import Kernel
from unibody.generated.registry import QUANTIZERS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/quantization.md"
VERIFIED = {"cuda": "no GPU: interpreted and compiled only"}


def layer_classes(module: Any) -> list[Any]:
    """The packed layers of a generated file, in the order of its `__all__`."""
    public = [getattr(module, name) for name in module.__all__]
    return [
        value for value in public if isinstance(value, type) and issubclass(value, getattr(module, "PackedLinear", ()))
    ]


def methods() -> str:
    """A row for each method: definition, file, configuration and layers."""
    rows = ["| method | definition | generated | configuration | layers | quantizes |", "|---|---|---|---|---|---|"]
    for method, entry in QUANTIZERS.items():
        module = import_module(f"unibody.generated.quantizers.{entry['module']}")
        definition = f"modular/quantizers/modular_{entry['module'].removeprefix('quantizer_')}.py"
        generated = f"generated/quantizers/{entry['module']}.py"
        calibrated = any(getattr(module, name).requires_calibration for name in entry["quantizers"].values())
        names = ", ".join(f"`{layer.__name__}`" for layer in layer_classes(module))
        how = "with calibration" if calibrated else "while loading" if entry["quantizers"] else "configuration only"
        rows.append(
            f"| {method} | [modular](../{definition}) | [file](../{generated}) | `{entry['config']}` | {names} | {how} |"
        )
    return "\n".join(rows)


def kernels() -> str:
    """A row for each kernel of each layer, best first."""
    rows = ["| layer | kernel | device | bits | groups | inputs | N and K divide by | verified |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for entry in QUANTIZERS.values():
        module = import_module(f"unibody.generated.quantizers.{entry['module']}")
        for layer in layer_classes(module):
            rows += [f"| `{layer.__name__}` | {describe(kernel)} |" for kernel in layer.kernels]
    return "\n".join(rows)


def describe(kernel: Kernel) -> str:
    needs = f" ({kernel.package})" if kernel.package else ""
    shape = "any" if tuple(kernel.multiples) == (1, 1) else f"{kernel.multiples[0]}, {kernel.multiples[1]}"
    cells = [
        f"`{kernel.name}`{needs}",
        kernel.device or "any",
        ", ".join(map(str, kernel.bits)) or "all",
        ", ".join(map(str, kernel.group_size)) or "all",
        ", ".join(kernel.dtypes) or "any",
        shape,
        VERIFIED.get(kernel.device, "run"),
    ]
    return " | ".join(cells)


def page() -> str:
    """The page with its tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("methods", methods()), ("kernels", kernels())):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"{start}.*{end}", lambda _, t=f"{start}\n{table}\n{end}": t, text, flags=re.DOTALL)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/quantization.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(f"{methods()}\n\n{kernels()}")


if __name__ == "__main__":
    main()
