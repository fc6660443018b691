"""Data for the trainers of the tests: rows of unequal length."""

from __future__ import annotations

import torch

LONGEST = 12


def rows(count: int = 50, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    """Texts of random tokens, padded on the right; every second one has a prompt whose labels are ignored."""
    generator, found = torch.Generator().manual_seed(seed), []
    for number in range(count):
        ids = torch.randint(3, 128, (LONGEST,), generator=generator)
        length = int(torch.randint(4, LONGEST + 1, (1,), generator=generator))
        mask = (torch.arange(LONGEST) < length).long()
        labels = ids.masked_fill(mask == 0, -100)
        labels[: 3 * (number % 2)] = -100
        found.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})
    return found
