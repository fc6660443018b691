"""Beam search: of each prompt the K likeliest texts so far go on, the best finished ones are returned."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unibody.generation.outputs import GenerateBeamDecoderOnlyOutput
from unibody.generation.request import Request

NEVER = -1e9  # the score of what is out of the running


@dataclass(order=True)
class Text:
    """A finished text."""

    score: float
    ids: Tensor = field(compare=False)  # [T]
    rows: Tensor = field(compare=False)  # [T - prompt], the row of the step's scores that each token was chosen from


@torch.no_grad()
def beam_search(request: Request) -> GenerateBeamDecoderOnlyOutput:
    """The num_return_sequences best texts of each prompt.

    At each step a few more candidates than beams are looked at. Those that end are finished texts if they are among the first
    K; of the others the best K go on. With do_sample candidates are drawn, by the probability of the whole text.
    """
    settings, ids = request.settings, request.input_ids
    beams = settings.num_beams
    prompts, prompt, device = len(ids) // beams, ids.shape[1], ids.device
    wide = max(2, 1 + len(request.frame.ends)) * beams
    first = torch.arange(prompts, device=device)[:, None] * beams  # [P, 1], the row of each prompt's first beam
    totals = torch.full((prompts, beams), NEVER, device=device)
    totals[:, 0] = 0.0  # all beams are alike: the first step looks at one
    rows = torch.empty(len(ids), 0, dtype=torch.long, device=device)
    best: list[list[Text]] = [[] for _ in range(prompts)]
    going = [True] * prompts
    while any(going):
        logits = request.reader.logits(ids)[:, -1]
        scores = request.processors(ids, logits.log_softmax(-1))  # [P · K, V]
        request.record(scores, logits)
        vocabulary = scores.shape[-1]
        sums = (scores.view(prompts, beams, vocabulary) + totals[:, :, None]).flatten(1)
        wide = min(wide, sums.shape[1])
        if settings.do_sample:
            places = torch.multinomial(sums.softmax(-1), wide, generator=request.generator)
            found = sums.gather(1, places)
        else:
            found, places = sums.topk(wide)  # [P, C]
        origins = first + places // vocabulary
        texts = torch.cat((ids[origins], (places % vocabulary)[:, :, None]), -1)  # [P, C, T + 1]
        paths = torch.cat((rows[origins], origins[:, :, None]), -1)
        ended = request.ends(texts.flatten(0, 1)).view(prompts, wide)
        length = texts.shape[-1] - prompt
        finals = (found / length**settings.length_penalty).tolist()
        for which, done in enumerate(ended.tolist()):
            if going[which]:
                new = [Text(finals[which][c], texts[which, c], paths[which, c]) for c in range(beams) if done[c]]
                best[which] = sorted([*best[which], *new], reverse=True)[:beams]
        totals, kept = (found + ended * NEVER).topk(beams)
        chosen = origins.gather(1, kept).flatten()
        ids = texts.gather(1, kept[:, :, None].expand(-1, -1, texts.shape[-1])).flatten(0, 1)
        rows = paths.gather(1, kept[:, :, None].expand(-1, -1, length)).flatten(0, 1)
        request.reader.select(chosen)
        if ended.all():
            break
        for which, total in enumerate(totals[:, 0].tolist()):
            going[which] = going[which] and may_improve(request, best[which], total, length)
    return collect(request, [text for texts in best for text in texts[: settings.num_return_sequences]])


def may_improve(request: Request, best: list[Text], total: float, length: int) -> bool:
    """Whether going on could give a better text than the K finished ones, as `early_stopping` judges."""
    settings = request.settings
    if len(best) < settings.num_beams:
        return True
    if settings.early_stopping is True:
        return False
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        length = request.frame.max_length - request.frame.prompt_length
    return bool(total / length**settings.length_penalty > best[-1].score)


def collect(request: Request, texts: list[Text]) -> GenerateBeamDecoderOnlyOutput:
    """Finished texts, padded to the longest."""

    def padded(pieces: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=value)

    scored = request.settings.output_scores
    return GenerateBeamDecoderOnlyOutput(
        sequences=padded([text.ids for text in texts], request.pad),
        sequences_scores=torch.tensor([text.score for text in texts]).to(texts[0].ids.device) if scored else None,
        scores=tuple(request.scores) or None,
        logits=tuple(request.logits) or None,
        beam_indices=padded([text.rows for text in texts], -1) if scored else None,
        past_key_values=request.reader.cache,
    )
