"""The facts in docs/quantization.md and docs/quantizers/: formats, settings and kernels, read from the files themselves.

python -m benchmarks.quantizers            # says which pages are not up to date
python -m benchmarks.quantizers --write    # puts the facts between their marks; what is written around them stays
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from unibody.core.quantization.kernels import Kernel
from unibody.generated.registry import QUANTIZERS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/quantization.md"
PAGES = ROOT / "docs/quantizers"
EXAMPLES = {  # options that one would choose
    "bitsandbytes": "--load-in-4bit --bnb-4bit-quant-type nf4 --bnb-4bit-compute-dtype bfloat16",
    "gptq": "--bits 4 --group-size 64 --dataset calibration.txt",
    "awq": "--bits 4 --group-size 64 --dataset calibration.txt",
    "auto-round": "--bits 4 --group-size 64 --dataset calibration.txt",
    "hqq": "--nbits 4 --group-size 64",
    "quanto": "--weights int8",
    "compressed-tensors": """--config-groups '{"W4A16": ["Linear"]}' --ignore '["lm_head"]'""",
    "quark": """--global-quant-config '{"weight": {"dtype": "uint4", "qscheme": "per_group", "group_size": 64, "symmetric": false}}'""",
    "torchao": "--quant-type int8_dynamic_activation_int4_weight --group-size 32",
}
GPU = "run on an H100"  # with torch 2.11 for CUDA 13.0 and Triton 3.6: tests/quantizers/test_gpu.py
VERIFIED = {  # by layer and kernel, the kernel, or its device; the first that there is
    "QuarkFloat8Linear scaled_mm": "no GPU: the same call on a CPU",
    "QuarkFloat8Linear triton": "no GPU: interpreted and compiled only",
    "QuarkFloat8Linear torch": "run on a CPU",
    "QuarkInt8Linear int8_product": "run on a CPU",
    "QuarkE5M2Linear torch": "run on a CPU",
    "AqlmLinear triton": "no GPU: interpreted and compiled only",
    "AqlmLinear torch": "run on a CPU",
    "QuarkPlainLinear torch": "run on a CPU",
    "TorchAoEmbedding torch": "run on a CPU",
    "TorchAoInt4Linear torch": "run on a CPU",
    "GPTQLinear int4pack_cuda": GPU,
    "int4pack_cuda": "no GPU: traced; on a CPU with a stand-in",
    "eetq": "no GPU: on a CPU with a stand-in",
    "fbgemm": "no GPU: on a CPU with a stand-in",
    "aqlm": "no GPU: on a CPU with a stand-in",
    "marlin": "no GPU: on a CPU with a stand-in",
    "machete": "no GPU: on a CPU with a stand-in",
    "exllama_v2": "no GPU: on a CPU with a stand-in",
    "int8_product": f"run on a CPU; {GPU}",
    "torch": f"run on a CPU; {GPU}",
    "cuda": GPU,
    "cpu": "run on a CPU",
}
READS = "never, others' checkpoints are read"  # how a method quantizes that has no algorithm here


def layer_classes(module: Any) -> list[Any]:
    """The packed layers of a generated file, in the order of its `__all__`."""
    public = [getattr(module, name) for name in module.__all__]
    return [value for value in public if hasattr(value, "kernels")]


def load(entry: Any) -> Any:
    """The generated file of an entry of the registry."""
    return import_module(f"unibody.generated.quantizers.{entry['module']}")


def definition(entry: Any) -> str:
    return f"modular/quantizers/modular_{entry['module'].removeprefix('quantizer_')}.py"


def how(entry: Any) -> str:
    """When a method quantizes plain weights."""
    if not entry["quantizers"]:
        return "configuration only"
    if not all(hasattr(layer, "quantize") for layer in layer_classes(load(entry))):
        return READS
    calibrated = any(getattr(load(entry), name).requires_calibration for name in entry["quantizers"].values())
    return "with calibration" if calibrated else "while loading"


def methods() -> str:
    """A row for each method: page, lines of definition and file, configuration and layers."""
    rows = ["| method | definition | generated | configuration | layers | quantizes |", "|---|--:|--:|---|---|---|"]
    for method, entry in QUANTIZERS.items():
        names = ", ".join(f"`{layer.__name__}`" for layer in layer_classes(load(entry)))
        places = (definition(entry), f"generated/quantizers/{entry['module']}.py")
        files = " | ".join(f"[{len((ROOT / place).read_text('utf-8').splitlines())}](../{place})" for place in places)
        rows.append(f"| [{method}](quantizers/{method}.md) | {files} | `{entry['config']}` | {names} | {how(entry)} |")
    return "\n".join(rows)


def kernels(entries: Any) -> str:
    """A row for each kernel of each layer, best first."""
    rows = ["| layer | kernel | device | bits | groups | inputs | N and K divide by | verified |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for entry in entries:
        for layer in layer_classes(load(entry)):
            rows += [f"| `{layer.__name__}` | {describe(layer.__name__, kernel)} |" for kernel in layer.kernels]
    return "\n".join(rows)


def describe(layer: str, kernel: Kernel) -> str:
    needs = f" ({kernel.package})" if kernel.package else ""
    shape = "any" if tuple(kernel.multiples) == (1, 1) else f"{kernel.multiples[0]}, {kernel.multiples[1]}"
    cells = [
        f"`{kernel.name}`{needs}",
        (kernel.device or "any")
        + (" from {}.{}".format(*kernel.capability) if kernel.capability > (0, 0) else "")
        + (" below {}.{}".format(*kernel.below) if kernel.below else ""),
        ", ".join(map(str, kernel.bits)) or "all",
        ", ".join(map(str, kernel.group_size)) or "all",
        ", ".join(kernel.dtypes) or "any",
        shape,
        next(VERIFIED[key] for key in (f"{layer} {kernel.name}", kernel.name, kernel.device) if key in VERIFIED),
    ]
    return " | ".join(cells)


def usual_value(node: ast.expr) -> str:
    """A default as a reader writes it: of `field(default_factory=…)` what the factory makes."""
    factory = node.keywords[0].value if isinstance(node, ast.Call) else None
    if isinstance(factory, ast.Lambda):
        return ast.unparse(factory.body)
    return {"dict": "{}", "list": "[]"}[ast.unparse(factory)] if factory is not None else ast.unparse(node)


def settings(entry: Any) -> str:
    """A row for each field of the configuration: its default, and what its comment says."""
    text = (ROOT / definition(entry)).read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    (config,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == entry["config"])
    rows = ["| field | default | |", "|---|---|---|"]
    for node in config.body:
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith(("ClassVar", "KW_ONLY")):
            default = "" if node.value is None else f"`{usual_value(node.value)}`"
            comment = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")[2]
            rows.append(f"| `{ast.unparse(node.target)}` | {default} | {comment} |")
    return "\n".join(rows)


def facts(method: str) -> str:
    """What the page of a method says by itself."""
    entry = QUANTIZERS[method]
    tables = (load(entry).__doc__ or "").partition("\n\n")[2].strip()
    files = (
        f"[definition](../../{definition(entry)}), [generated file](../../generated/quantizers/{entry['module']}.py)"
    )
    parts = [f"{files}; plain weights are quantized: {how(entry)}.", f"## Format\n\n{tables}"]
    parts.append(f"## Settings of `{entry['config']}`\n\n{settings(entry)}")
    if entry["quantizers"]:
        last = any(layer.kernels[-1].name != "torch" for layer in layer_classes(load(entry)))
        rule = "the first that fits runs the layer" + "; those after `torch`, where they are named" * last
        parts.append(f"## Kernels\n\nBest first; {rule}.\n\n{kernels([entry])}")
        if how(entry) != READS:
            options = EXAMPLES.get(method, "")
            parts.append(f"## Example\n\n```\n{f'unibody quantize MODEL {method} OUT {options}'.strip()}\n```")
    return "\n\n".join(parts)


def between(text: str, name: str, found: str) -> str:
    """The text with what was found between the marks of this name."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return re.sub(f"{start}.*{end}", lambda _: f"{start}\n{found}\n{end}", text, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    found = {PAGE: between(between(text, "methods", methods()), "kernels", kernels(QUANTIZERS.values()))}
    for method in QUANTIZERS:
        file = PAGES / f"{method}.md"
        written = (
            file.read_text(encoding="utf-8") if file.exists() else f"# {method}\n\n<!-- facts -->\n<!-- /facts -->\n"
        )
        found[file] = between(written, "facts", facts(method))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers")
    parser.add_argument("--write", action="store_true", help="write the pages that are not up to date")
    write, status = parser.parse_args().write, 0
    for file, text in pages().items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            print(f"{'wrote' if write else 'not up to date:'} {file.relative_to(ROOT)}")
            status = 0 if write else 1
            if write:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
    sys.exit(status)


if __name__ == "__main__":
    main()
