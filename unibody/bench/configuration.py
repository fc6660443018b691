"""Configurations with Hydra: a file of choices from groups, overrides, and sweeps over several values."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unibody.bench.errors import BenchmarkError

GROUPS = ("model", "quantizer", "backend", "scenario", "launcher")
PLACES = (("backend", "target"), ("scenario", "target"), ("model", "writer"))  # keys that say where code is
DEFAULTS: dict[str, Any] = {"rounds": 1}


@dataclass(frozen=True)
class Configuration:
    """One point of a sweep: its values, and the swept overrides, which name it."""

    name: str  # such as "backend=torch,scenario.batch_size=4"; "default" without a sweep
    values: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.values["model"].get("name") or "none")


def read_configurations(
    config_dir: Path, config_name: str, overrides: Sequence[str], multirun: bool
) -> list[Configuration]:
    """The configurations of one run, one for each point of the sweep. BenchmarkError: what is wrong and what there is."""
    if not config_dir.is_dir():
        raise BenchmarkError(f"--config-dir {config_dir} is no folder")
    name = config_name.removesuffix(".yaml")
    there = sorted(path.stem for path in config_dir.glob("*.yaml"))
    if name not in there:
        close = difflib.get_close_matches(name, there) or there
        raise BenchmarkError(f"{config_dir} has no {name}.yaml: is it {' or '.join(close) or 'another folder'}?")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3", job_name="unibody-bench"):
            points = expand(parse(overrides), multirun)
            return [read_point(name, config_dir, fixed, swept) for fixed, swept in points]
    except BenchmarkError:
        raise
    except (
        HydraException,
        OmegaConfBaseException,
        ValueError,
    ) as error:  # Hydra has no class of its own for some of them
        raise BenchmarkError(f"{config_dir / name}.yaml: {first_lines(error)}") from error


def parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides=list(overrides))


def expand(overrides: list[Override], multirun: bool) -> list[tuple[list[str], list[str]]]:
    """The overrides of each point: those that all share, and those that are swept."""
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    sweeps = [override for override in overrides if override.is_sweep_override()]
    if sweeps and not multirun:
        raise BenchmarkError(
            f"{sweeps[0].input_line} has several values: add --multirun, or quote it if it is one text"
        )
    axes = []
    for sweep in sweeps:
        values = sweep_values(sweep)
        if not values:
            raise BenchmarkError(f"{sweep.input_line} sweeps over nothing: give it at least one value")
        axes.append([f"{sweep.get_key_element()}={value}" for value in values])
    return [(fixed, list(point)) for point in itertools.product(*axes)]


def sweep_values(sweep: Override) -> list[str]:
    """The values of a sweep as texts; a glob stands for the files of its group."""
    value: Any = sweep.value()
    if isinstance(value, Glob):
        loader = GlobalHydra.instance().config_loader()
        return [str(name) for name in value.filter(loader.get_group_options(sweep.key_or_group))]
    return [str(text) for text in sweep.sweep_string_iterator()]


def read_point(name: str, config_dir: Path, fixed: list[str], swept: list[str]) -> Configuration:
    composed = compose(config_name=name, overrides=[*fixed, *swept])
    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    for group in GROUPS:
        if not isinstance(values.setdefault(group, {}), dict):
            raise BenchmarkError(
                f"{config_dir / name}.yaml: {group} is {values[group]!r}, and has to be a group of keys"
            )
    for group in ("backend", "scenario", "launcher"):
        if not values[group].get("name"):
            raise BenchmarkError(f"{config_dir / name}.yaml chooses no {group}: add `- {group}: …` to its defaults")
    for group, key in PLACES:  # a file is named as seen from the folder of configurations
        if ".py:" in str(values[group].get(key)):
            values[group][key] = str((config_dir / values[group][key]).resolve())
    found = {**DEFAULTS, **values}
    if not isinstance(found["rounds"], int) or found["rounds"] < 1:
        raise BenchmarkError(f"rounds is {found['rounds']!r}: give how often each configuration is run, 1 or more")
    return Configuration(",".join(swept) or "default", found)


def first_lines(error: Exception) -> str:
    """What Hydra says, in one line."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:600]
