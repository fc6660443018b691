"""This library against transformers, model by model and quantizer by quantizer: the tables of benchmarks/results/.

    make oracle-transformers oracle-gptqmodel oracle-quark oracle-auto-round  # the environments that transformers runs in
    python -m benchmarks.peers                      # all of it; an hour
    python -m benchmarks.peers decoders             # one of the tables
    python -m benchmarks.peers quantizers rounds=1  # with overrides
    python -m benchmarks.peers --report             # writes README.md anew from what is kept

Each table is one run of `unibody bench`, whose summary and page are kept. Both sides read the same checkpoint, take turns in processes
and environments of their own on one thread, and have to generate the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

from unibody.bench.run import Options, run
from unibody.bench.tables import format_table, format_value

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
KEPT = ("summary.json", "summary.csv", "index.html")
TRACEBACK = re.compile(r'("traceback": )"(?:[^"\\]|\\.)*"')  # shows lines of other projects, which do not belong here
BASE = "backend=transformers_apart"


class Table(NamedTuple):
    """A run: what is swept, and which metrics are shown, by their headings."""

    title: str
    overrides: tuple[str, ...]
    metrics: dict[str, str]


TIMES = {"load": "load_model", "prefill": "prefill", "decode": "decode"}
SMALL = (
    *("model=llama_135m", "model.dtype=bfloat16", "model.config.vocab_size=8192"),
    *("scenario.sequence_length=32", "scenario.new_tokens=16", "scenario.iterations=3"),
)
TABLES = {
    "decoders": Table(
        "Decoders, float32, random weights: load, a prompt of 128 tokens, 31 more",
        (
            "model=llama_135m,tiny_llama,tiny_mistral,tiny_qwen2,tiny_qwen3,tiny_gemma,tiny_gemma2",
            "scenario.iterations=3",
        ),
        {name: f"{phase}.cpu_time.p50" for name, phase in TIMES.items()} | {"memory": "decode.memory.max_ram"},
    ),
    "encoders": Table(
        "Encoders, float32, random weights: load, and a pass over 128 tokens",
        ("model=tiny_bert,tiny_roberta", "scenario=forward", "scenario.phases=[load_model,forward]"),
        {"load": "load_model.cpu_time.p50", "pass": "forward.cpu_time.p50", "memory": "forward.memory.max_ram"},
    ),
    "quantizers": Table(
        "Quantizers, bfloat16, six layers of SmolLM2-135M's shape with random weights: a prompt of 32 tokens, 15 more",
        (
            "quantizer=none,bnb_int8,bnb_nf4,ct_w8a8,ct_w4a16,ct_fp8,torchao_int8_dynamic,hqq_4,quanto_int8,fp8",
            "model.config.num_hidden_layers=6",
            *SMALL,
        ),
        {name: f"{phase}.cpu_time.p50" for name, phase in TIMES.items()} | {"memory": "decode.memory.max_ram"},
    ),
    "packages": Table(
        "Quantizers whose checkpoints transformers reads with a package of its own, two such layers: a prompt of 32 tokens, 15 more",
        ("quantizer=gptq,awq,quark_4,rtn_4,bitnet,eetq,fbgemm_fp8", "model.config.num_hidden_layers=2", *SMALL),
        {name: f"{phase}.cpu_time.p50" for name, phase in TIMES.items()} | {"memory": "decode.memory.max_ram"},
    ),
}


def measure(name: str, more: list[str]) -> None:
    """Runs a table's benchmark and keeps its summary."""
    table, folder = TABLES[name], RESULTS / name
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        options = Options(
            config_dir=Path(os.path.relpath(ROOT / "benchmarks/config")), config_name="inference", multirun=True, baseline=BASE,
            overrides=[f"backend=unibody,{BASE.partition('=')[2]}", *table.overrides, *more],
            metrics=",".join(table.metrics.values()), output=Path(scratch), repository=ROOT,
        )  # fmt: skip
        if run(options) > 1:
            sys.exit(f"{name}: could not be measured")
        folder.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            text = Path(scratch, file).read_text(encoding="utf-8")
            (folder / file).write_text(TRACEBACK.sub(r"\1\"\"", without_places(text)), encoding="utf-8")
    (folder / "table.json").write_text(json.dumps({"load_before": load, "load_after": os.getloadavg()[0]}) + "\n")


def without_places(text: str) -> str:
    """The text without this machine's folders, which tracebacks name."""
    for place, name in (
        (f"{ROOT}/", ""),
        (sys.prefix, ".venv"),
        (sys.base_prefix, "python"),
        (tempfile.gettempdir(), "tmp"),
    ):
        text = text.replace(place, name)
    return text


def report(name: str) -> str:
    """A table in Markdown, from the summary that is kept."""
    table, folder = TABLES[name], RESULTS / name
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    busy = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    words = told["command"].split()
    base = words[words.index("--baseline") + 1]
    by_quantizer = any(word.startswith("quantizer=") for word in words)
    changes = {(c["model"], c["config"], c["metric"]): c for c in told["changes"]}
    failures = {(f["model"], f["config"]): f["message"].splitlines()[0] for f in told["failures"]}
    rows, notes = [], []
    for model, configs in told["results"].items():
        for config in (config for config in configs if "backend=unibody" in config):
            other = config.replace("backend=unibody", base)
            label = (
                next((p.partition("=")[2] for p in config.split(",") if p.startswith("quantizer=")), "")
                if by_quantizer
                else model
            )
            row = [label]
            for metric in table.metrics.values():
                ours, theirs = (next(iter(configs[side].values())).get(metric) for side in (config, other))
                unit = told["units"][metric]
                row += [
                    format_value(ours, unit),
                    format_value(theirs, unit),
                    ratio(changes.get((model, config, metric))),
                ]
            rows.append(row)
            notes += [
                f"- {label}, {side}: {failures[model, key]}"
                for side, key in (("unibody", config), ("transformers", other))
                if (model, key) in failures
            ]
    head = ["quantizer" if by_quantizer else "model"]
    for title in table.metrics:
        head += [f"{title}, unibody", "transformers", "ratio"]
    differ = [
        f"- {' and '.join(one['sides'])} generate different tokens ({one['model']})" for one in told["disagreements"]
    ]
    machine = told["machine"]
    rounds = next((word.partition("=")[2] for word in words if word.startswith("rounds=")), "3")
    parts = [
        f"## {table.title}",
        f"`{told['command']}`",
        f"{told['created'][:10]}; {machine['cpu']}; {machine['cpu_count']} cores; Python {machine['python_version']}; {rounds} rounds. "
        f"Load of the machine before and after: {busy['load_before']:.1f} and {busy['load_after']:.1f}.",
        "\n".join(f"- {side}: {versions(found)}" for side, found in told["environments"].items()),
        format_table(head, rows),
    ]
    parts += ["Not measured:\n\n" + "\n".join(notes)] if notes else []
    parts += ["Not comparable:\n\n" + "\n".join(differ)] if differ else []
    return "\n\n".join(parts)


def versions(environment: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in environment["packages"].items() if name != "unibody")


def ratio(change: dict[str, Any] | None) -> str:
    """How many times as much transformers takes, in brackets if the difference is within the noise."""
    if change is None:
        return "–"
    text = f"{change['before'] / change['after']:.2f}x"
    return text if change["beyond_noise"] is not False else f"({text})"


HEAD = """# Results

Made by `python -m benchmarks.peers`, which runs the commands below; each folder has the page (`index.html`) and the numbers.

Both sides read the same checkpoint on one thread, in processes of their own that take turns, and in environments of their own where
the list under a table says so. Times are medians of
CPU seconds, because other programs ran on the machine: they disturb these less than wall time, and still share its caches and memory
bandwidth, so figures of single cells may be off by a tenth and more. A ratio above 1 means that transformers takes so many times as
much; brackets mark what is within the noise. Memory is the peak of the whole process, with what it has imported. A dash is what
transformers could not run here; its own words for that stand below the table. (EETQ and FBGEMM have GPU code alone there.)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("names", nargs="*", help=f"tables ({', '.join(TABLES)}) and overrides; default: all tables")
    parser.add_argument(
        "--report", action="store_true", help="write README.md anew from what is kept, without measuring"
    )
    options = parser.parse_args()
    words = options.names
    for name in [] if options.report else [word for word in words if word in TABLES] or list(TABLES):
        measure(name, [word for word in words if word not in TABLES])
    there = [name for name in TABLES if (RESULTS / name / "summary.json").is_file()]
    (RESULTS / "README.md").write_text("\n\n".join([HEAD.strip(), *map(report, there)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
