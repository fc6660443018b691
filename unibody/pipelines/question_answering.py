"""question-answering: the part of a text that answers a question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from unibody.pipelines.base import ChunkPipeline
from unibody.pipelines.spans import best_spans, end_probabilities


class QuestionAnsweringPipeline(ChunkPipeline):
    """Answers with their places in the context; a long one is read in parts that overlap.

    Options: `top_k`, the number of answers; `max_answer_len`, in tokens (15); `max_seq_len`, the tokens of question and part in sum
    (384); `doc_stride`, the overlap of parts in tokens (128); `max_question_len`, to cut questions to so many tokens;
    `handle_impossible_answer`: no answer, "", is one too; `align_to_words`: answers are whole words (True).
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForQuestionAnswering",)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
        padding: bool | str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if not getattr(self.tokenizer, "is_fast", False):
            raise ValueError(f"{self._name} needs a fast tokenizer, which knows where in the text its tokens are")
        sizes = {
            "top_k": top_k, "max_answer_len": max_answer_len, "max_seq_len": max_seq_len,
            "max_question_len": max_question_len,
        }  # fmt: skip
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is not at least 1")
        before = {
            "max_seq_len": max_seq_len, "doc_stride": doc_stride, "max_question_len": max_question_len, "padding": padding,
        }  # fmt: skip
        after = {
            "top_k": top_k, "max_answer_len": max_answer_len, "handle_impossible_answer": handle_impossible_answer,
            "align_to_words": align_to_words,
        }  # fmt: skip
        return (
            {name: value for name, value in before.items() if value is not None},
            {},
            {name: value for name, value in after.items() if value is not None},
        )

    def __call__(self, inputs: Any = None, *, question: Any = None, context: Any = None, **options: Any) -> Any:
        """For each `{"question": …, "context": …}` the answer, `{"score", "start", "end", "answer"}`, or the list of `top_k` answers.

        Question and context may be given by name instead: two texts, two lists of the same length, or several questions about one
        context. A list of one gives what that one alone gives.
        """
        if inputs is None:
            inputs = pair_up(question, context)
        elif question is not None or context is not None:
            raise ValueError(f"{self._name}: give inputs, or question= and context=, not both")
        if isinstance(inputs, list) and len(inputs) == 1:
            inputs = inputs[0]
        return super().__call__(inputs, **options)

    def preprocess(
        self,
        inputs: Any,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        max_question_len: int | None = None,
        padding: bool | str = False,
    ) -> Iterator[dict[str, Any]]:
        question, context = self._read(inputs)
        length = min(self._longest() or 384, 384) if max_seq_len is None else max_seq_len
        question, room = self._fit(question, length, max_question_len)
        usual = min(length // 2, 128)
        stride = (usual if usual < room else room // 2) if doc_stride is None else doc_stride
        if not 0 <= stride < room:
            raise ValueError(
                f"doc_stride {stride} is not less than the {room} tokens that max_seq_len {length} leaves for a part of "
                "the context beside the question"
            )
        first = self.tokenizer.padding_side == "right"  # the question
        encoded = self.tokenizer(
            *((question, context) if first else (context, question)), truncation="only_second" if first else "only_first",
            max_length=length, stride=stride, padding=padding, return_tensors=None, return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )  # fmt: skip
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded]
        for row in range(len(encoded["input_ids"])):
            sequences, ids = encoded.sequence_ids(row), encoded["input_ids"][row]
            allowed = [sequence == int(first) for sequence in sequences]
            words = self._words(encoded, row, int(first))
            yield {
                **{name: torch.tensor([encoded[name][row]]) for name in names},
                "p_mask": torch.tensor(
                    [[not (ok or token == self.tokenizer.cls_token_id) for ok, token in zip(allowed, ids, strict=True)]]
                ).long(),
                "allowed": allowed, "offsets": encoded["offset_mapping"][row], "words": words, "context": context,
            }  # fmt: skip

    def _fit(self, question: str, length: int, longest: int | None) -> tuple[str, int]:
        """The question, cut if it is to be, and the number of tokens that are left for the context. ValueError: none."""
        encoded = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
        count = len(encoded["input_ids"])
        if longest is not None and count > longest:
            question, count = question[: encoded["offset_mapping"][longest - 1][1]], longest
        room = length - count - len(self.tokenizer("", "")["input_ids"])
        if room < 1:
            raise ValueError(
                f"the question has {count} tokens, which leaves none of {length} for the context: cut it with "
                "max_question_len, or raise max_seq_len as far as the model reads"
            )
        return question, room

    def _words(self, encoded: Any, row: int, sequence: int) -> list[tuple[int, int] | None]:
        """The place in the context of the word that each token is of."""
        places: dict[int, tuple[int, int]] = {}
        found: list[tuple[int, int] | None] = []
        for word, of, (start, end) in zip(
            encoded.word_ids(row), encoded.sequence_ids(row), encoded["offset_mapping"][row], strict=True
        ):
            if word is not None and of == sequence:
                before = places.get(word, (start, end))
                places[word] = (min(before[0], start), max(before[1], end))
        for word, of in zip(encoded.word_ids(row), encoded.sequence_ids(row), strict=True):
            found.append(places[word] if word is not None and of == sequence else None)
        return found

    def _read(self, inputs: Any) -> tuple[str, str]:
        if not isinstance(inputs, dict) or not {"question", "context"} <= inputs.keys():
            found = sorted(map(str, inputs)) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(f"{self._name} reads a dictionary with 'question' and 'context', not {found}")
        for name in ("question", "context"):
            if not self._require_text(inputs[name], name):
                raise ValueError(f"{self._name}: the {name} is empty")
        return inputs["question"], inputs["context"]

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        output = self._call_model(model_inputs)
        kept = ("p_mask", "attention_mask", "allowed", "offsets", "words", "context")
        return {
            "start": output.start_logits, "end": output.end_logits, **{name: model_inputs[name] for name in kept}
        }  # fmt: skip

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        answers: list[dict[str, Any]] = []
        nothing = 1.0  # the least probability that a part has no answer
        for output in model_outputs:
            allowed = (output["p_mask"][0] == 0) & (output["attention_mask"][0] == 1)
            start, end = (end_probabilities(output[name][0], allowed) for name in ("start", "end"))  # [S]
            shift = len(allowed) - len(output["allowed"]) if self._side() == "left" else 0  # padding of the batch
            nothing = min(nothing, float(start[shift] * end[shift]))
            start[shift] = end[shift] = 0.0
            count = 2 * top_k + 10 if align_to_words else top_k  # several may be of the same words
            for first, last, score in best_spans(start, end, count, max_answer_len):
                if allowed[first] and allowed[last] and score > 0:
                    answers.append(self._answer(output, first - shift, last - shift, score, align_to_words))
        answers = merge_answers(answers)
        if handle_impossible_answer:
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: -answer["score"])[:top_k]
        return answers[0] if len(answers) == 1 else answers

    def _answer(self, output: dict[str, Any], first: int, last: int, score: float, align: bool) -> dict[str, Any]:
        whole = output["words"][first] and output["words"][last]
        places = output["words"] if align and whole else output["offsets"]
        start, end = places[first][0], places[last][1]
        return {"score": score, "start": start, "end": end, "answer": output["context"][start:end]}


def merge_answers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers of the same words, whatever their case, as one with the sum of their scores, where the first of them is."""
    merged: dict[str, dict[str, Any]] = {}
    for answer in answers:
        words = answer["answer"].lower()
        if words in merged:
            merged[words]["score"] += answer["score"]
        else:
            merged[words] = dict(answer)
    return list(merged.values())


def pair_up(question: Any, context: Any) -> Any:
    """Dictionaries of questions and contexts that are given by name. ValueError: one is missing, or the numbers differ."""
    if question is None or context is None:
        raise ValueError("question-answering needs question= and context=, or a dictionary that has both")
    if not isinstance(question, list) and not isinstance(context, list):
        return {"question": question, "context": context}
    questions = question if isinstance(question, list) else [question]
    contexts = context if isinstance(context, list) else [context] * len(questions)
    if len(questions) != len(contexts):
        raise ValueError(f"there are {len(questions)} questions and {len(contexts)} contexts: give as many of both")
    return [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]
