"""The table of models in README.md: what each definition says, what becomes of it, how far its logits are from the reference's.

    python -m benchmarks.models            # prints the table
    python -m benchmarks.models --write    # puts it into README.md

Each class of the test zoo (`tests/oracle/zoo.json`) is built by transformers with random parameters of unit scale, saved, loaded by
the generated file and run on the same tokens; the column shows the largest difference of any value, in float32.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from unibody.generated.registry import MODELS
from unibody.generator.graph import Graph
from unibody.generator.project import find_project

ROOT = Path(__file__).parents[1]
START, END = "<!-- models -->", "<!-- /models -->"


def table() -> str:
    """The table, in Markdown."""
    rows = [
        "| model | parent | definition | generated | classes | largest difference |",
        "|---|---|--:|--:|--:|--:|",
    ]
    total_definition = total_generated = 0
    for model_type, entry in MODELS.items():
        definition = f"modular/models/modular_{entry['module'].removeprefix('modeling_')}.py"
        generated = f"generated/models/{entry['module']}.py"
        lines, written = count(definition), count(generated)
        total_definition, total_generated = total_definition + lines, total_generated + written
        apart = difference(model_type)
        rows.append(
            f"| [{model_type}]({generated}) | {', '.join(parents(definition)) or 'root'} | [{lines}]({definition}) | {written} "
            f"| {len(entry['classes'])} | {f'{apart:.0e}' if apart else 0} |"
        )
    rows.append(
        f"| all | | {total_definition} | {total_generated} | {sum(len(e['classes']) for e in MODELS.values())} | |"
    )
    return "\n".join(rows)


def count(path: str) -> int:
    return (ROOT / path).read_text(encoding="utf-8").count("\n")


def parents(definition: str) -> list[str]:
    """The definitions that one inherits from."""
    graph = Graph(find_project(ROOT))
    graph.add(ROOT / definition)
    return [Path(path).stem.removeprefix("modular_") for path in graph.parents(definition)]


def difference(model_type: str) -> float:
    """The largest difference between the values of the generated classes and the reference's."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from oracle.inputs import token_ids
    from oracle.reference import save, values
    from oracle.zoo import cases

    largest = 0.0
    for case in cases():
        if case.model_type == model_type:
            with tempfile.TemporaryDirectory() as folder, torch.no_grad():
                checkpoint = save(case, "unit", Path(folder))
                theirs = values(checkpoint.reference()(token_ids()))
                ours = values(checkpoint.load()(token_ids()))
                largest = max(largest, *(float((ours[name] - theirs[name]).abs().max()) for name in ours))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the table of models.")
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    arguments = parser.parse_args()
    text = table()
    print(text)
    if arguments.write:
        readme = ROOT / "README.md"
        page = readme.read_text(encoding="utf-8")
        inside = re.compile(f"(?<={START}\n).*?(?={END})", re.DOTALL)
        if not inside.search(page):
            sys.exit(f"README.md has no {START} … {END}")
        readme.write_text(inside.sub(lambda _: f"{text}\n", page), encoding="utf-8")


if __name__ == "__main__":
    main()
