"""RoBERTa: a BERT trained longer, on more text and without next-sentence prediction (1907.11692).

The encoder is BERT's; positions start behind the padding token's id, and the heads, trained without a pooler, are others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core.outputs import BaseModelOutputWithPooling

from .modular_bert import (
    BertConfig,
    BertEmbeddings,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
)
from .modular_bert import main as main

__all__ = [
    "RobertaConfig",
    "RobertaForMaskedLM",
    "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "RobertaModel",
    "RobertaPreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class RobertaConfig(BertConfig):
    """Sizes and options; the defaults are those that the Hub's config.json files leave out."""

    model_type: ClassVar[str] = "roberta"

    vocab_size: int = 50265
    pad_token_id: int = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    @property
    def longest_text(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1


class RobertaEmbeddings(BertEmbeddings):
    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, self.padding_idx)

    def positions(self, words: Tensor, input_ids: Tensor | None) -> Tensor:
        """Positions [B, S] of words [B, S, H]: p + 1, p + 2, …, but p for padding, where p is its id."""
        ids = torch.full(words.shape[:2], -1, device=words.device) if input_ids is None else input_ids
        words_only = (ids != self.padding_idx).long()
        return words_only.cumsum(1) * words_only + self.padding_idx


class RobertaPreTrainedModel(BertPreTrainedModel):
    pass


class RobertaModel(BertModel):
    pass


class RobertaLMHead(nn.Module):
    """Which word stands where: one more layer, then scores by the word embeddings (1810.04805, section 3.1, task 1)."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))  # the decoder's, under its other name

    def forward(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.layer_norm(F.gelu(self.dense(hidden))))  # H -> V


class RobertaForMaskedLM(BertForMaskedLM):
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        del self.cls
        self.lm_head = RobertaLMHead(config)
        self.post_init()

    def predict(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)


class RobertaClassificationHead(nn.Module):
    """Scores of labels from the first token, <s>, by two layers."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.head_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.dense(self.dropout(hidden[:, 0])).tanh()  # [B, S, H] -> [B, H]
        return self.out_proj(self.dropout(hidden))  # [B, H] -> [B, L]


class RobertaForSequenceClassification(BertForSequenceClassification):
    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = RobertaClassificationHead(config)
        del self.dropout
        self.post_init()

    def classify(self, outputs: BaseModelOutputWithPooling) -> Tensor:
        return self.classifier(outputs.last_hidden_state)


class RobertaForTokenClassification(BertForTokenClassification):
    pass


class RobertaForQuestionAnswering(BertForQuestionAnswering):
    pass
