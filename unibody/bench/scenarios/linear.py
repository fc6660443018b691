"""One linear layer, quantized or not, for several numbers of input rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unibody.bench.measures import Meter


def run(
    backend: Any, config: dict[str, Any], checkpoint: Path | None, meter: Meter, facts: dict[str, Any]
) -> dict[str, Any]:
    """The report of `linear_m<rows>` for each of `scenario.rows`; which kernel ran is a fact."""
    import torch

    scenario, report = config["scenario"], {}
    dtype = getattr(torch, scenario["dtype"])
    torch.manual_seed(0)
    layer = backend.make_linear(scenario["in_features"], scenario["out_features"], dtype, config["quantizer"])
    for rows in scenario["rows"]:
        inputs = torch.randn(rows, scenario["in_features"]).to(dtype)

        def product(inputs: Any = inputs) -> Any:
            with torch.inference_mode():
                return layer(inputs)

        report[f"linear_m{rows}"] = meter.measure(product, rows, "rows/s")
    facts["kernel"] = getattr(layer, "kernel", type(layer).__name__)
    return report
