"""Pipelines: a task, a checkpoint, and answers for texts."""

from __future__ import annotations

from unibody.pipelines.base import ChunkPipeline, Pipeline
from unibody.pipelines.batching import KeyDataset, KeyPairDataset
from unibody.pipelines.factory import pipeline
from unibody.pipelines.feature_extraction import FeatureExtractionPipeline
from unibody.pipelines.fill_mask import FillMaskPipeline
from unibody.pipelines.question_answering import QuestionAnsweringPipeline
from unibody.pipelines.registry import PIPELINE_REGISTRY, PipelineRegistry, register_pipeline
from unibody.pipelines.sentence_similarity import SentenceSimilarityPipeline
from unibody.pipelines.text_classification import TextClassificationPipeline
from unibody.pipelines.text_generation import TextGenerationPipeline
from unibody.pipelines.token_classification import TokenClassificationPipeline
from unibody.pipelines.zero_shot_classification import ZeroShotClassificationPipeline

__all__ = [
    "PIPELINE_REGISTRY",
    "ChunkPipeline",
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "KeyDataset",
    "KeyPairDataset",
    "Pipeline",
    "PipelineRegistry",
    "QuestionAnsweringPipeline",
    "SentenceSimilarityPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "ZeroShotClassificationPipeline",
    "pipeline",
    "register_pipeline",
]

for _task, _class in {
    "feature-extraction": FeatureExtractionPipeline,
    "fill-mask": FillMaskPipeline,
    "question-answering": QuestionAnsweringPipeline,
    "sentence-similarity": SentenceSimilarityPipeline,
    "text-classification": TextClassificationPipeline,
    "text-generation": TextGenerationPipeline,
    "token-classification": TokenClassificationPipeline,
    "zero-shot-classification": ZeroShotClassificationPipeline,
}.items():
    register_pipeline(_task, _class)
