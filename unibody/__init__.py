"""The library around the generated files: `from unibody import AutoModelForCausalLM, LlamaForCausalLM`.

Importing `unibody` imports nothing else. The auto classes and the classes that `generated/registry.py` lists are imported
when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibody.auto import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )
    from unibody.configuration import PreTrainedConfig
    from unibody.dynamic_modules import (
        UntrustedCodeError,
        check_imports,
        create_dynamic_module,
        custom_object_save,
        get_cached_module_file,
        get_class_from_dynamic_module,
        get_relative_imports,
        resolve_trust_remote_code,
    )
    from unibody.errors import HubError, RemovedError, UnibodyError
    from unibody.generated.names import *  # noqa: F403  every class of the registry; a stub, which `unibody generate` writes
    from unibody.generation import (
        BaseStreamer,
        EosTokenCriteria,
        EpsilonLogitsWarper,
        EtaLogitsWarper,
        ExponentialDecayLengthPenalty,
        ForcedBOSTokenLogitsProcessor,
        ForcedEOSTokenLogitsProcessor,
        FrequencyPenaltyLogitsProcessor,
        GenerateBeamDecoderOnlyOutput,
        GenerateDecoderOnlyOutput,
        GenerationConfig,
        GenerationMixin,
        GenerativePreTrainedModel,
        InfNanRemoveLogitsProcessor,
        LogitNormalization,
        LogitsProcessor,
        LogitsProcessorList,
        MaxLengthCriteria,
        MaxTimeCriteria,
        MinLengthLogitsProcessor,
        MinNewTokensLengthLogitsProcessor,
        MinPLogitsWarper,
        NoBadWordsLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
        PrefixConstrainedLogitsProcessor,
        PresencePenaltyLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
        StoppingCriteria,
        StoppingCriteriaList,
        StopStringCriteria,
        SuppressTokensAtBeginLogitsProcessor,
        SuppressTokensLogitsProcessor,
        TemperatureLogitsWarper,
        TextIteratorStreamer,
        TextStreamer,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )
    from unibody.hub import cached_file, cached_files, has_file
    from unibody.models import PreTrainedModel, adopt
    from unibody.pipelines import (
        PIPELINE_REGISTRY,
        ChunkPipeline,
        FeatureExtractionPipeline,
        FillMaskPipeline,
        KeyDataset,
        KeyPairDataset,
        Pipeline,
        QuestionAnsweringPipeline,
        SentenceSimilarityPipeline,
        TextClassificationPipeline,
        TextGenerationPipeline,
        TokenClassificationPipeline,
        ZeroShotClassificationPipeline,
        pipeline,
        register_pipeline,
    )
    from unibody.publishing import PushToHubMixin
    from unibody.quantization import (
        AutoHfQuantizer,
        AutoQuantizationConfig,
        AwqBackendPackingMethod,
        AWQLinearVersion,
        HfQuantizer,
        QuantizationConfigMixin,
        QuantizationMethod,
        register_quantization_config,
        register_quantizer,
    )
    from unibody.tensor_parallel.settings import DistributedConfig
    from unibody.tokenization.auto import AutoTokenizer
    from unibody.tokenization.base import PreTrainedTokenizerBase
    from unibody.tokenization.bert import BertTokenizer, BertTokenizerFast
    from unibody.tokenization.encoding import BatchEncoding, CharSpan, TokenSpan
    from unibody.tokenization.families import (
        GemmaTokenizerFast,
        GPT2TokenizerFast,
        LlamaTokenizerFast,
        Qwen2TokenizerFast,
        RobertaTokenizerFast,
        T5TokenizerFast,
        XLMRobertaTokenizerFast,
    )
    from unibody.tokenization.fast import PreTrainedTokenizerFast
    from unibody.tokenization.python import PreTrainedTokenizer
    from unibody.tokenization.special_tokens import AddedToken
    from unibody.tokenization.templates import ChatTemplateError
    from unibody.training.arguments import TrainingArguments
    from unibody.training.callbacks import TrainerCallback
    from unibody.training.checkpoints import get_last_checkpoint
    from unibody.training.choices import IntervalStrategy, SaveStrategy, SchedulerType
    from unibody.training.collators import (
        DataCollatorForLanguageModeling,
        DataCollatorForSeq2Seq,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        default_data_collator,
    )
    from unibody.training.flow import DefaultFlowCallback, EarlyStoppingCallback
    from unibody.training.loop import NonFiniteLossError
    from unibody.training.merging import merge_sharded_checkpoint
    from unibody.training.outputs import EvalPrediction, PredictionOutput, TrainOutput
    from unibody.training.progress import PrinterCallback, ProgressCallback
    from unibody.training.randomness import set_seed
    from unibody.training.schedulers import (
        get_constant_schedule,
        get_constant_schedule_with_warmup,
        get_cosine_schedule_with_warmup,
        get_linear_schedule_with_warmup,
        get_scheduler,
    )
    from unibody.training.state import TrainerControl, TrainerState
    from unibody.training.trainer import Trainer

    __version__: str

__all__ = [
    "PIPELINE_REGISTRY", "AWQLinearVersion", "AddedToken", "AutoConfig", "AutoHfQuantizer", "AutoModel", "AutoModelForCausalLM",
    "AutoModelForMaskedLM", "AutoModelForQuestionAnswering", "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification", "AutoQuantizationConfig", "AutoTokenizer", "AwqBackendPackingMethod", "BaseStreamer", "BatchEncoding",
    "BertTokenizer", "BertTokenizerFast", "CharSpan", "ChatTemplateError", "ChunkPipeline",
    "DataCollatorForLanguageModeling", "DataCollatorForSeq2Seq", "DataCollatorForTokenClassification", "DataCollatorWithPadding",
    "DefaultFlowCallback", "DistributedConfig", "EarlyStoppingCallback", "EosTokenCriteria", "EpsilonLogitsWarper", "EtaLogitsWarper",
    "EvalPrediction", "ExponentialDecayLengthPenalty", "FeatureExtractionPipeline", "FillMaskPipeline",
    "ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor", "FrequencyPenaltyLogitsProcessor",
    "GPT2TokenizerFast", "GemmaTokenizerFast", "GenerateBeamDecoderOnlyOutput", "GenerateDecoderOnlyOutput",
    "GenerationConfig", "GenerationMixin", "GenerativePreTrainedModel", "HfQuantizer", "HubError",
    "InfNanRemoveLogitsProcessor", "IntervalStrategy", "KeyDataset", "KeyPairDataset", "LlamaTokenizerFast",
    "LogitNormalization", "LogitsProcessor", "LogitsProcessorList", "MaxLengthCriteria", "MaxTimeCriteria",
    "MinLengthLogitsProcessor", "MinNewTokensLengthLogitsProcessor", "MinPLogitsWarper", "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor", "NonFiniteLossError", "Pipeline", "PreTrainedConfig", "PreTrainedModel",
    "PreTrainedTokenizer", "PreTrainedTokenizerBase", "PreTrainedTokenizerFast", "PredictionOutput",
    "PrefixConstrainedLogitsProcessor", "PresencePenaltyLogitsProcessor", "PrinterCallback", "ProgressCallback",
    "PushToHubMixin", "QuantizationConfigMixin", "QuantizationMethod", "QuestionAnsweringPipeline",
    "Qwen2TokenizerFast", "RemovedError", "RepetitionPenaltyLogitsProcessor", "RobertaTokenizerFast", "SaveStrategy",
    "SchedulerType", "SentenceSimilarityPipeline", "SequenceBiasLogitsProcessor", "StopStringCriteria",
    "StoppingCriteria", "StoppingCriteriaList", "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor", "T5TokenizerFast", "TemperatureLogitsWarper", "TextClassificationPipeline",
    "TextGenerationPipeline", "TextIteratorStreamer", "TextStreamer", "TokenClassificationPipeline", "TokenSpan",
    "TopKLogitsWarper", "TopPLogitsWarper", "TrainOutput", "Trainer", "TrainerCallback", "TrainerControl",
    "TrainerState", "TrainingArguments", "TypicalLogitsWarper", "UnibodyError", "UntrustedCodeError",
    "XLMRobertaTokenizerFast", "ZeroShotClassificationPipeline", "__version__", "adopt", "cached_file", "cached_files",
    "check_imports", "create_dynamic_module", "custom_object_save", "default_data_collator", "get_cached_module_file",
    "get_class_from_dynamic_module", "get_constant_schedule", "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup", "get_last_checkpoint", "get_linear_schedule_with_warmup", "get_relative_imports",
    "get_scheduler", "has_file",
    "merge_sharded_checkpoint", "pipeline", "register_pipeline", "register_quantization_config", "register_quantizer",
    "resolve_trust_remote_code", "set_seed",
]  # fmt: skip

_PLACES = {  # the module below `unibody` of each name of the library
    "auto": (
        *("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForQuestionAnswering"),
        *("AutoModelForSequenceClassification", "AutoModelForTokenClassification"),
    ),
    "configuration": ("PreTrainedConfig",),
    "dynamic_modules": (
        *("UntrustedCodeError", "check_imports", "create_dynamic_module", "custom_object_save"),
        *("get_cached_module_file", "get_class_from_dynamic_module", "get_relative_imports"),
        "resolve_trust_remote_code",
    ),
    "errors": ("HubError", "RemovedError", "UnibodyError"),
    "generation": (
        *("BaseStreamer", "EosTokenCriteria", "EpsilonLogitsWarper", "EtaLogitsWarper"),
        *("ExponentialDecayLengthPenalty", "ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor"),
        *("FrequencyPenaltyLogitsProcessor", "GenerateBeamDecoderOnlyOutput", "GenerateDecoderOnlyOutput"),
        *("GenerationConfig", "GenerationMixin", "GenerativePreTrainedModel", "InfNanRemoveLogitsProcessor"),
        *("LogitNormalization", "LogitsProcessor", "LogitsProcessorList", "MaxLengthCriteria", "MaxTimeCriteria"),
        *("MinLengthLogitsProcessor", "MinNewTokensLengthLogitsProcessor", "MinPLogitsWarper"),
        *("NoBadWordsLogitsProcessor", "NoRepeatNGramLogitsProcessor", "PrefixConstrainedLogitsProcessor"),
        *("PresencePenaltyLogitsProcessor", "RepetitionPenaltyLogitsProcessor", "SequenceBiasLogitsProcessor"),
        *("StopStringCriteria", "StoppingCriteria", "StoppingCriteriaList", "SuppressTokensAtBeginLogitsProcessor"),
        *("SuppressTokensLogitsProcessor", "TemperatureLogitsWarper", "TextIteratorStreamer", "TextStreamer"),
        *("TopKLogitsWarper", "TopPLogitsWarper", "TypicalLogitsWarper"),
    ),
    "hub": ("cached_file", "cached_files", "has_file"),
    "models": ("PreTrainedModel", "adopt"),
    "pipelines": (
        *("PIPELINE_REGISTRY", "ChunkPipeline", "FeatureExtractionPipeline", "FillMaskPipeline", "KeyDataset"),
        *("KeyPairDataset", "Pipeline", "QuestionAnsweringPipeline", "SentenceSimilarityPipeline"),
        *("TextClassificationPipeline", "TextGenerationPipeline", "TokenClassificationPipeline"),
        *("ZeroShotClassificationPipeline", "pipeline", "register_pipeline"),
    ),
    "publishing": ("PushToHubMixin",),
    "quantization": (
        *("AWQLinearVersion", "AutoHfQuantizer", "AutoQuantizationConfig", "AwqBackendPackingMethod", "HfQuantizer"),
        "QuantizationConfigMixin",
        *("QuantizationMethod", "register_quantization_config", "register_quantizer"),
    ),
    "tensor_parallel.settings": ("DistributedConfig",),
    "tokenization.auto": ("AutoTokenizer",),
    "tokenization.base": ("PreTrainedTokenizerBase",),
    "tokenization.bert": ("BertTokenizer", "BertTokenizerFast"),
    "tokenization.encoding": ("BatchEncoding", "CharSpan", "TokenSpan"),
    "tokenization.families": (
        "GPT2TokenizerFast",
        "GemmaTokenizerFast",
        "LlamaTokenizerFast",
        "Qwen2TokenizerFast",
        "RobertaTokenizerFast",
        "T5TokenizerFast",
        "XLMRobertaTokenizerFast",
    ),
    "tokenization.fast": ("PreTrainedTokenizerFast",),
    "tokenization.python": ("PreTrainedTokenizer",),
    "tokenization.special_tokens": ("AddedToken",),
    "tokenization.templates": ("ChatTemplateError",),
    "training.arguments": ("TrainingArguments",),
    "training.callbacks": ("TrainerCallback",),
    "training.checkpoints": ("get_last_checkpoint",),
    "training.choices": ("IntervalStrategy", "SaveStrategy", "SchedulerType"),
    "training.collators": (
        "DataCollatorForLanguageModeling",
        "DataCollatorForSeq2Seq",
        "DataCollatorForTokenClassification",
        "DataCollatorWithPadding",
        "default_data_collator",
    ),
    "training.flow": ("DefaultFlowCallback", "EarlyStoppingCallback"),
    "training.loop": ("NonFiniteLossError",),
    "training.merging": ("merge_sharded_checkpoint",),
    "training.outputs": ("EvalPrediction", "PredictionOutput", "TrainOutput"),
    "training.progress": ("PrinterCallback", "ProgressCallback"),
    "training.randomness": ("set_seed",),
    "training.schedulers": (
        *("get_constant_schedule", "get_constant_schedule_with_warmup", "get_cosine_schedule_with_warmup"),
        *("get_linear_schedule_with_warmup", "get_scheduler"),
    ),
    "training.state": ("TrainerControl", "TrainerState"),
    "training.trainer": ("Trainer",),
}


def _find(name: str) -> Any:
    """What `unibody.<name>` is when it is first asked for; remembered."""
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("unibody")
    elif name == "logging":
        value = import_module("unibody.logging")
    elif (name[:1].isupper() or name in __all__) and name in (modules := _modules()):  # submodules need no registry
        value = _import(name, modules[name])
    else:
        raise AttributeError(f"module 'unibody' has no attribute {name!r}")
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # which would take every misspelt name for one of these
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_modules()})


def _modules() -> dict[str, str]:
    """The module of each name that can be imported from here."""
    from unibody.generated.registry import MODELS, QUANTIZERS

    modules = {name: f"unibody.{module}" for module, names in _PLACES.items() for name in names}
    for entry in MODELS.values():
        for name in (entry["config"], *entry["classes"].values()):
            modules[name] = f"unibody.generated.models.{entry['module']}"
    for method in QUANTIZERS.values():
        for name in (method["config"], *method["quantizers"].values()):
            modules[name] = f"unibody.generated.quantizers.{method['module']}"
    return modules


def _import(name: str, module: str) -> Any:
    try:
        if not module.startswith("unibody.generated."):
            return getattr(import_module(module), name)
        from unibody.configuration import PreTrainedConfig
        from unibody.editions import library_edition
        from unibody.model_types import model_base
        from unibody.quantization import HfQuantizer, QuantizationConfigMixin

        found, is_config = getattr(import_module(module), name), name.endswith("Config")
        if ".quantizers." in module:
            return library_edition(found, after=(QuantizationConfigMixin if is_config else HfQuantizer,))
        return library_edition(found, before=(PreTrainedConfig if is_config else model_base(found),))
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors", "huggingface_hub", "tokenizers"):
            raise
        remedy = "pip install 'unibody[models]'"
        raise ImportError(f"unibody.{name} needs {error.name}, which is not installed: {remedy}") from error
