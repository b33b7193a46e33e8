"""Make a cache of the Hugging Face Hub with tiny random models and tokenizers, for frameworks' tests that run offline.

    python tools/tiny_models.py FOLDER        # then: HF_HOME=FOLDER python tools/frameworks.py ...

The tests of diffusers, PEFT and transformers load such models by name. These have the same names and architectures, but
random values and invented vocabularies; a test that expects particular outputs fails with them, with or without this engine.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from string import ascii_letters, ascii_lowercase, digits
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = 1103  # of the vocabulary, as in the T5 models of diffusers' tests
REVISIONS = ("main", "refs/pr/2")
DECODER = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
GROUPED = {**DECODER, "num_key_value_heads": 2}
ENCODER = {**DECODER, "hidden_size": 32, "intermediate_size": 37, "bos_token_id": None, "eos_token_id": None}
OPT = {**DECODER, "ffn_dim": 4, "word_embed_proj_dim": 16, "dropout": 0.0}
GPT = {
    "vocab_size": WORDS, "n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 512, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
SIDES = {
    f"{side}_{name}": value
    for side, (name, value) in product(("encoder", "decoder"), (("layers", 2), ("attention_heads", 4), ("ffn_dim", 4)))
}
T5 = {
    "vocab_size": WORDS,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 5,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}

# Architecture, arguments of its configuration, and the names it has on the Hub.
MODELS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("OPTForCausalLM", OPT, "hf-internal-testing/tiny-random-OPTForCausalLM "
                            "peft-internal-testing/tiny-random-OPTForCausalLM peft-internal-testing/opt-125m"),
    ("GPT2LMHeadModel", GPT, "hf-internal-testing/tiny-random-gpt2 peft-internal-testing/tiny-random-gpt2 "
                             "peft-internal-testing/tiny-random-GPT2LMHeadModel"),
    ("GPTJForCausalLM", {**GPT, "rotary_dim": 4}, "peft-internal-testing/tiny-random-GPTJForCausalLM"),
    ("LlamaForCausalLM", GROUPED, "hf-internal-testing/tiny-random-LlamaForCausalLM "
                                  "peft-internal-testing/tiny-random-LlamaForCausalLM "
                                  "trl-internal-testing/tiny-random-LlamaForCausalLM"),
    ("MistralForCausalLM", GROUPED, "hf-internal-testing/tiny-random-MistralForCausalLM"),
    ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}, "hf-internal-testing/Mixtral-tiny"),
    ("Qwen2ForCausalLM", GROUPED, "peft-internal-testing/tiny-dummy-qwen2"),
    ("Gemma3ForCausalLM", {**GROUPED, "head_dim": 4}, "hf-internal-testing/tiny-random-Gemma3ForCausalLM"),
    ("BloomForCausalLM", {"vocab_size": WORDS, "hidden_size": 16, "n_layer": 2, "n_head": 4},
     "peft-internal-testing/tiny-random-BloomForCausalLM"),
    ("BartForConditionalGeneration", {**SIDES, "vocab_size": WORDS, "d_model": 16, "max_position_embeddings": 512,
                                      "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1},
     "peft-internal-testing/tiny-random-BartForConditionalGeneration"),
    ("T5ForConditionalGeneration", T5, "hf-internal-testing/tiny-random-t5 hf-internal-testing/tiny-random-T5Model "
                                       "hf-internal-testing/tiny-random-umt5 peft-internal-testing/tiny-random-t5 "
                                       "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated"),
    ("BertModel", ENCODER, "hf-internal-testing/tiny-random-BertModel peft-internal-testing/tiny-random-BertModel"),
    ("RobertaModel", ENCODER, "peft-internal-testing/tiny-random-RobertaModel"),
    ("DebertaModel", ENCODER, "peft-internal-testing/tiny-random-DebertaModel"),
    ("DebertaV2Model", ENCODER, "peft-internal-testing/tiny-random-DebertaV2Model"),
    ("BertForSequenceClassification", ENCODER, "peft-internal-testing/tiny-random-BertForSequenceClassification"),
    ("RobertaForSequenceClassification", ENCODER, "peft-internal-testing/tiny-random-RobertaForSequenceClassification"),
    ("LlamaForSequenceClassification", GROUPED, "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2"),
)  # fmt: skip


def main() -> None:
    """Write all models and tokenizers below the folder that the command line names."""
    hub = Path(sys.argv[1], "hub")
    torch.manual_seed(0)
    write_clip(repository(hub, "hf-internal-testing/tiny-random-clip"))
    for architecture, arguments, names in MODELS:
        for name in names.split():
            model = getattr(transformers, architecture)
            write(model(model.config_class(**arguments)), repository(hub, name), t5="T5" in architecture)
    base = "hf-internal-testing/tiny-random-OPTForCausalLM"
    write_adapter(base, repository(hub, base), repository(hub, "peft-internal-testing/tiny-OPTForCausalLM-lora"))


def repository(hub: Path, name: str) -> Path:
    """Return the folder that the cache has for the files of a model."""
    folder = hub / f"models--{name.replace('/', '--')}"
    for revision in REVISIONS:
        (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text("0" * 40)
    files = folder / "snapshots" / ("0" * 40)
    files.mkdir(parents=True, exist_ok=True)
    return files


def write(model: Any, files: Path, *, t5: bool) -> None:
    """Write a model in both formats, with a tokenizer."""
    model.save_pretrained(files)
    torch.save(model.state_dict(), files / "pytorch_model.bin")
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"} | ({} if t5 else {"bos_token": "</s>"})
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters(), model_max_length=512, **special).save_pretrained(
        files
    )
    if t5:
        configuration = json.loads((files / "tokenizer_config.json").read_text())
        configuration |= {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}
        (files / "tokenizer_config.json").write_text(json.dumps(configuration))


def letters() -> Tokenizer:
    """A unigram tokenizer whose 1000 pieces are single characters, and pieces that no text has."""
    text = ascii_letters + digits + ".,!?-'\""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("▁", -3.0)]
    pieces += [(c, -4.0) for c in text] + [(f"▁{c}", -3.5) for c in ascii_letters]
    pieces += [(f"xx{i}", -20.0) for i in range(1000 - len(pieces))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def write_clip(files: Path) -> None:
    """Write a CLIP tokenizer of 1000 pieces: bytes, bytes at the end of a word, pairs of letters, special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(product(ascii_lowercase, "aeiounrst"))
    pieces = [*alphabet, *(f"{c}</w>" for c in alphabet), *map("".join, pairs)]
    pieces += [f"unused{i}" for i in range(998 - len(pieces))] + ["<|startoftext|>", "<|endoftext|>"]
    (files / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (files / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, pairs), ""]))
    end = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>")
    configuration = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>", **end}
    (files / "tokenizer_config.json").write_text(json.dumps(configuration))
    (files / "config.json").write_text(json.dumps({"model_type": "clip"}))


def write_adapter(base: str, model: Path, files: Path) -> None:
    """Write a LoRA adapter of a model in both formats."""
    adapter = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(model), adapter)
    adapter.base_model_name_or_path = base
    for safetensors in (True, False):
        adapted.save_pretrained(files, safe_serialization=safetensors)


if __name__ == "__main__":
    main()
