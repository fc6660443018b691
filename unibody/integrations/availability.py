"""Which of the packages that this library can work with are there: one table, and nothing is imported to find out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import Version

from unibody.errors import UnibodyError


class MissingPackageError(UnibodyError, ImportError):
    """A package that is needed is not installed, or too old: says which, and the command."""


@dataclass(frozen=True)
class Package:
    """What is asked for: any of `distributions` from version `minimum` on, which `unibody[extra]` installs."""

    module: str
    minimum: str
    extra: str
    distributions: tuple[str, ...]


PACKAGES = {
    "accelerate": Package("accelerate", "1.10", "accelerate", ("accelerate",)),
    "bitsandbytes": Package("bitsandbytes", "0.46", "bitsandbytes", ("bitsandbytes",)),
    "comet": Package("comet_ml", "3.43", "comet", ("comet-ml",)),
    "deepspeed": Package("deepspeed", "0.19", "deepspeed", ("deepspeed",)),
    "gguf": Package("gguf", "0.17", "gguf", ("gguf",)),
    "mlflow": Package("mlflow", "2.14", "mlflow", ("mlflow", "mlflow-skinny")),
    "peft": Package("peft", "0.17", "peft", ("peft",)),
    "tensorboard": Package("tensorboard", "2.15", "tensorboard", ("tensorboard",)),
    "trackio": Package("trackio", "0.5", "trackio", ("trackio",)),
    "wandb": Package("wandb", "0.17", "wandb", ("wandb",)),
}


def found_version(name: str) -> str | None:
    """The version of a package of the table that is installed; None: it is not. ValueError: the table has no such name."""
    if name not in PACKAGES:
        raise ValueError(f"{name!r} is no package of an integration: one of {', '.join(PACKAGES)}")
    if find_spec(PACKAGES[name].module) is None:
        return None
    for distribution in PACKAGES[name].distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def is_available(name: str) -> bool:
    """Whether a package of the table is installed, and new enough."""
    found = found_version(name)
    return found is not None and Version(found) >= Version(PACKAGES[name].minimum)


def require(name: str, what: str) -> None:
    """MissingPackageError: `what`, which needs the package, cannot be had; it names the command that installs it."""
    if not is_available(name):
        package, found = PACKAGES[name], found_version(name)
        state = "which is not installed" if found is None else f"and {found} is installed"
        remedy = f"pip install 'unibody[{package.extra}]'"
        raise MissingPackageError(f"{what} needs {package.distributions[0]} >= {package.minimum}, {state}: {remedy}")


is_accelerate_available = partial(is_available, "accelerate")
is_bitsandbytes_available = partial(is_available, "bitsandbytes")
is_comet_available = partial(is_available, "comet")
is_deepspeed_available = partial(is_available, "deepspeed")
is_gguf_available = partial(is_available, "gguf")
is_mlflow_available = partial(is_available, "mlflow")
is_peft_available = partial(is_available, "peft")
is_tensorboard_available = partial(is_available, "tensorboard")
is_trackio_available = partial(is_available, "trackio")
is_wandb_available = partial(is_available, "wandb")
