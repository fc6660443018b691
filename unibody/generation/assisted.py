"""Assisted decoding: cheap guesses at several next tokens, which the model then reads in one pass and judges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unibody.generation.reader import Reader
from unibody.generation.request import Request, make_cache


class Draft(NamedTuple):
    """Guessed tokens [N], and the probabilities [N, V] that they were drawn from, if they were drawn."""

    tokens: Tensor
    drawn_from: Tensor | None = None


class Drafter(Protocol):
    def propose(self, ids: Tensor, most: int) -> Draft:
        """At most so many tokens that may follow the text [1, T]."""

    def learn(self, accepted: int, proposed: int) -> None:
        """How many of the proposed tokens the model accepted."""


@torch.no_grad()
def decode_with(drafter: Drafter, request: Request) -> Iterator[Tensor]:
    """The next tokens [1], one by one: those that the model would have chosen, or as likely as it would have drawn them.

    A token that is not drawn by the drafter is accepted if it is what the model chooses at its place: greedy search gives the
    same text as without, and a seed the same draws.
    """
    ids = request.input_ids
    while True:
        draft = drafter.propose(ids, request.frame.max_length - ids.shape[1] - 1)
        count, accepted = len(draft.tokens), 0
        logits = request.reader.logits(torch.cat((ids, draft.tokens[None]), 1), last=count + 1)
        try:
            for place in range(count + 1):
                scores = request.processors(ids, logits[:, place].clone())
                request.record(scores, logits[:, place])
                if place < count and draft.drawn_from is not None:
                    token = speculate(request, scores, draft.tokens[place : place + 1], draft.drawn_from[place])
                else:
                    token = request.choose(scores)
                ids = torch.cat((ids, token[:, None]), 1)
                finished = bool(request.ends(ids))
                yield token
                if finished:
                    return
                if place == count or token != draft.tokens[place]:
                    break
                accepted += 1
        finally:
            request.reader.forget(ids.shape[1] - 1)
        drafter.learn(accepted, count)


def speculate(request: Request, scores: Tensor, token: Tensor, q: Tensor) -> Tensor:
    """The token [1] with probability min(1, p / q), else one drawn from max(0, p − q), normalised (2211.17192, section 2.3).

    What comes out is distributed as the model's p, that is the softmax of `scores` [1, V].
    """
    p = scores.softmax(-1)[0]
    rest = (p - q).clamp(min=0)
    accepted = torch.rand(1, generator=request.generator, device=p.device) * q[token] < p[token]
    if accepted or not rest.any():  # nothing is left where p and q are equal but for rounding
        return token
    return torch.multinomial(rest, 1, generator=request.generator)


class PromptLookup:
    """Guesses that the text goes on as it did before, where its last tokens stood (prompt lookup decoding)."""

    def __init__(self, count: int, longest_match: int) -> None:
        self.count = count
        self.longest_match = longest_match

    def propose(self, ids: Tensor, most: int) -> Draft:
        text = ids[0]
        for size in range(min(self.longest_match, len(text) - 1), 0, -1):
            windows = text[:-1].unfold(0, size, 1)  # [T - size, size], not the end itself
            places = (windows == text[-size:]).all(-1).nonzero()[:, 0]
            if len(places) > 0:
                start = int(places[0]) + size
                return Draft(text[start : start + min(self.count, most)])
        return Draft(text[:0])

    def learn(self, accepted: int, proposed: int) -> None:
        pass


class Assistant:
    """Guesses by a smaller model with the same tokens, which stops where it is not sure."""

    def __init__(self, model: Any, request: Request) -> None:
        settings = request.settings
        self.request = request
        self.reader = Reader(model, make_cache(model, settings, request.frame.max_length), request.reader.mask)
        self.count = settings.num_assistant_tokens

    def propose(self, ids: Tensor, most: int) -> Draft:
        request, start = self.request, ids.shape[1]
        self.reader.forget(start - 1)
        drawn_from: list[Tensor] = []
        while ids.shape[1] - start < min(self.count, most):
            scores = request.processors(ids, self.reader.logits(ids)[:, -1])
            token, p = request.choose(scores), scores.softmax(-1)
            ids = torch.cat((ids, token[:, None]), 1)
            drawn_from.append(p)
            if int(token) in request.frame.ends or p[0, token] < request.settings.assistant_confidence_threshold:
                break
        sampled = request.settings.do_sample and drawn_from
        return Draft(ids[0, start:], torch.cat(drawn_from) if sampled else None)

    def learn(self, accepted: int, proposed: int) -> None:
        """After a draft that was right throughout it dares two tokens more, otherwise one less, if so scheduled."""
        if self.request.settings.num_assistant_tokens_schedule != "constant":
            self.count = self.count + 2 if accepted == proposed else max(1, self.count - 1)
