"""BERT: a bidirectional transformer encoder that fills in masked words (1810.04805).

Post-norm blocks (1706.03762, section 3.1) of multi-head attention and a GELU feed-forward (1606.08415) under LayerNorm
(1607.06450), on learned positions and segments.

Shapes: B batch, S tokens, H hidden size, I intermediate size, N heads, D head size, V vocabulary, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.activations import ACTIVATIONS
from unibody.core.attention import ATTENTION, padding_mask
from unibody.core.choices import choose
from unibody.core.config import PreTrainedConfig
from unibody.core.encoder_command_line import encode_text
from unibody.core.heads import sequence_loss, span_loss, token_loss
from unibody.core.outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from unibody.core.pretrained import PreTrainedModel

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertPreTrainedModel",
]


@dataclass(kw_only=True, eq=False)
class BertConfig(PreTrainedConfig):
    """Sizes and options; the defaults are those of BERT base (1810.04805, section 3)."""

    model_type: ClassVar[str] = "bert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # before the head; None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2  # segments, such as a question and a text
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    is_decoder: bool = False  # of decoders made from BERT, which this file does not run
    add_cross_attention: bool = False  # likewise
    use_cache: bool = True  # without effect in an encoder
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def longest_text(self) -> int:
        """The number of tokens, special ones included, for which there are positions."""
        return self.max_position_embeddings


class BertEmbeddings(nn.Module):
    """LayerNorm of the sum of word, segment and position embeddings (1810.04805, figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def positions(self, words: Tensor, input_ids: Tensor | None) -> Tensor:
        """Positions [1, S] of words [B, S, H]: 0, 1, 2, …"""
        return torch.arange(words.shape[1], device=words.device)[None]

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # [B, S, H]
        if position_ids is None:
            position_ids = self.positions(words, input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        hidden = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(hidden))


class BertSelfAttention(nn.Module):
    """Attention of all tokens to all tokens in N heads (1706.03762, section 3.2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        shape = (*hidden.shape[:2], -1, self.head_size)
        query = self.query(hidden).view(shape).transpose(1, 2)  # [B, S, H] -> [B, N, S, D]
        key = self.key(hidden).view(shape).transpose(1, 2)
        value = self.value(hidden).view(shape).transpose(1, 2)
        output = self.attend(query, key, value, mask)  # [B, N, S, D]
        return output.transpose(1, 2).flatten(2)  # [B, N, S, D] -> [B, S, H]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attention = ATTENTION[self.config.attn_implementation]
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        return attention(query, key, value, mask, self.head_size**-0.5, dropout, causal=False)


class BertOutput(nn.Module):
    """LayerNorm(x + dense(y)): what ends both halves of a layer (1706.03762, section 3.1)."""

    def __init__(self, config: BertConfig, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, output: Tensor, hidden: Tensor) -> Tensor:
        return self.LayerNorm(hidden + self.dropout(self.dense(output)))  # H or I -> H


class BertAttention(nn.Module):
    """The first half of a layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(hidden, mask), hidden)


class BertIntermediate(nn.Module):
    """The wide part of the feed-forward."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = choose(ACTIVATIONS, config.hidden_act, "hidden_act")

    def forward(self, hidden: Tensor) -> Tensor:
        return self.act_fn(self.dense(hidden))  # H -> I


class BertLayer(nn.Module):
    """Attention, then feed-forward."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        hidden = self.attention(hidden, mask)
        return self.output(self.intermediate(hidden), hidden)


class BertEncoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            hidden = layer(hidden, mask)
        return hidden


class BertPooler(nn.Module):
    """What the first token, [CLS], says of the whole (1810.04805, section 3: the vector C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dense(hidden[:, 0]).tanh()  # [B, S, H] -> [B, H]


class BertPreTrainedModel(PreTrainedModel):
    """What the classes below share."""

    config_class = BertConfig
    base_model_prefix = "bert"
    _no_split_modules: ClassVar[list[str]] = ["BertEmbeddings", "BertLayer"]
    _renamed_weights: ClassVar[dict[str, str]] = {
        r"LayerNorm\.gamma$": "LayerNorm.weight",
        r"LayerNorm\.beta$": "LayerNorm.bias",
    }

    def get_input_embeddings(self) -> nn.Embedding:
        return self.base_model.embeddings.word_embeddings


class BertModel(BertPreTrainedModel):
    """The encoder without a head; its pooler is left out where a head does not need it."""

    auto_class = "AutoModel"

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        runs = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
        for key, value in runs.items():
            if (found := getattr(config, key, value)) != value:
                raise ValueError(f"config.json says {key} {found!r}; this file runs only {value!r}")
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Hidden states [B, S, H] of `input_ids` [B, S] or `inputs_embeds` [B, S, H], and what [CLS] says [B, H].

        `attention_mask` [B, S] is 0 where a token is padding. `token_type_ids` [B, S] number the segments, by default
        all 0; `position_ids` [B, S] count the tokens, by default from the first.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the model reads either input_ids or inputs_embeds: give one of them")
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)  # [B, S, H]
        hidden = self.encoder(hidden, padding_mask(attention_mask))
        return BaseModelOutputWithPooling(hidden, None if self.pooler is None else self.pooler(hidden))


class BertLMPredictionHead(nn.Module):
    """Which word stands where: one more layer, then scores by the word embeddings (1810.04805, section 3.1, task 1)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        dense = nn.Linear(config.hidden_size, config.hidden_size)
        norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.transform = nn.ModuleDict({"dense": dense, "LayerNorm": norm})
        self.act_fn = choose(ACTIVATIONS, config.hidden_act, "hidden_act")
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))  # the decoder's, under its other name

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.act_fn(self.transform["dense"](hidden))
        return self.decoder(self.transform["LayerNorm"](hidden))  # H -> V


class BertForMaskedLM(BertPreTrainedModel):
    """The encoder that predicts masked words."""

    auto_class = "AutoModelForMaskedLM"
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = nn.ModuleDict({"predictions": BertLMPredictionHead(config)})
        self.post_init()

    def predict(self, hidden: Tensor) -> Tensor:
        return self.cls["predictions"](hidden)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> MaskedLMOutput:
        """Logits [B, S, V]; `labels` [B, S] are the words behind the masks, -100 elsewhere."""
        logits = self.predict(self.bert(input_ids, attention_mask, **inputs).last_hidden_state)
        return MaskedLMOutput(None if labels is None else token_loss(logits, labels), logits)


class BertForSequenceClassification(BertPreTrainedModel):
    """The encoder that labels a text or a pair of texts (1810.04805, section 4.1)."""

    auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier: nn.Module = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def classify(self, outputs: BaseModelOutputWithPooling) -> Tensor:
        return self.classifier(self.dropout(outputs.pooler_output))  # [B, H] -> [B, L]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [B, L]; `labels` as in sequence_loss, `inputs` as in the model without a head."""
        logits = self.classify(self.bert(input_ids, attention_mask, **inputs))
        loss = None if labels is None else sequence_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(loss, logits)


class BertForTokenClassification(BertPreTrainedModel):
    """The encoder that labels every token (1810.04805, section 5.3)."""

    auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> TokenClassifierOutput:
        """Logits [B, S, L]; `labels` [B, S], where -100 is none."""
        hidden = self.bert(input_ids, attention_mask, **inputs).last_hidden_state
        logits = self.classifier(self.dropout(hidden))  # [B, S, H] -> [B, S, L]
        return TokenClassifierOutput(None if labels is None else token_loss(logits, labels), logits)


class BertForQuestionAnswering(BertPreTrainedModel):
    """The encoder that marks the answer to a question in a text (1810.04805, section 4.2)."""

    auto_class = "AutoModelForQuestionAnswering"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Logits [B, S] of the answer's first and last token, whose positions are [B]."""
        hidden = self.bert(input_ids, attention_mask, **inputs).last_hidden_state
        start_logits, end_logits = self.qa_outputs(hidden).unbind(-1)  # [B, S, 2] -> twice [B, S]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        return QuestionAnsweringModelOutput(loss, start_logits, end_logits)


def main() -> None:
    encode_text(BertModel, BertForSequenceClassification, BertForMaskedLM)
