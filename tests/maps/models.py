"""Tiny models of the implementations that maps relate, with random weights, and the names of their files.

The functions import their implementation, so that a test can skip one that is not installed.
"""

import json
import tempfile
from pathlib import Path

import torch

TABLES = Path(__file__).parent / "tables"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def filled(model):
    """The model in evaluation mode, with random numbers of a usual size in every parameter and buffer."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.dim() > 1:
            value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
        elif value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()


def saved(model):
    """The tensors in the file that `save_pretrained` writes, whose names are not always those of the model."""
    from safetensors.torch import load

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        (file,) = Path(folder).glob("*.safetensors")
        return load(file.read_bytes())


def from_file(model, state):
    """A model of the same class and configuration that `from_pretrained` makes of a file with this state."""
    import statedict

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the model may keep its file mapped
        model.config.save_pretrained(folder)
        statedict.save(state, f"{folder}/model.safetensors", metadata={"format": "pt"})
        loaded, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded.eval()


def table(name):
    """The names and shapes of a model that another implementation made (see `tables/*.json` for its version)."""
    shapes = json.loads((TABLES / f"{name}.json").read_text())["shapes"]
    return {name: tuple(shape) for name, shape in shapes.items()}


def hf_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return filled(
        LlamaForCausalLM(LlamaConfig(**SIZES | {"intermediate_size": 128}, num_key_value_heads=2, vocab_size=50))
    )


def hf_qwen2():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return filled(Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=4, vocab_size=50)))


def hf_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    ids = {"bos_token_id": 0, "eos_token_id": 1}
    return filled(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16, **ids)))


def hf_bert():
    from transformers import BertConfig, BertForPreTraining

    return filled(BertForPreTraining(BertConfig(**SIZES, vocab_size=50, max_position_embeddings=16)))


def hf_vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=5, layer_norm_eps=1e-6)
    return filled(ViTForImageClassification(config))


def timm_vit():
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    return filled(VisionTransformer(**sizes, num_classes=5))


RESNETS = {"basic": ("BasicBlock", [2, 2, 1, 1], 1), "bottleneck": ("Bottleneck", [1, 2, 1, 1], 4)}


def hf_resnet(kind):
    from transformers import ResNetConfig, ResNetForImageClassification

    _, depths, wider = RESNETS[kind]
    sizes = [64 * wider, 128 * wider, 256 * wider, 512 * wider]
    config = ResNetConfig(hidden_sizes=sizes, depths=depths, layer_type=kind, num_labels=5)
    return filled(ResNetForImageClassification(config))


def torchvision_resnet(kind):
    from torchvision.models import resnet

    block, depths, _ = RESNETS[kind]
    return filled(resnet.ResNet(getattr(resnet, block), depths, num_classes=5))


def timm_resnet(kind):
    from timm.models import resnet

    block, depths, _ = RESNETS[kind]
    return filled(resnet.ResNet(getattr(resnet, block), depths, num_classes=5))


def hf_clip():
    from transformers import CLIPConfig, CLIPModel

    sizes = {**SIZES, "intermediate_size": 128, "hidden_act": "gelu"}
    text = {**sizes, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 49, "bos_token_id": 48}
    return filled(
        CLIPModel(
            CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=24)
        )
    )


def open_clip():
    from open_clip.model import CLIP

    vision = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {"context_length": 16, "vocab_size": 50, "width": 32, "heads": 4, "layers": 2}
    return filled(CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text))


def hf_whisper():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"d_model": 32, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 60, "num_mel_bins": 8}
    places = {"max_source_positions": 20, "max_target_positions": 12}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return filled(WhisperForConditionalGeneration(WhisperConfig(**layers, **sizes, **places, **ids)))


def openai_whisper():
    from whisper.model import ModelDimensions, Whisper

    audio = {"n_mels": 8, "n_audio_ctx": 20, "n_audio_state": 32, "n_audio_head": 4, "n_audio_layer": 2}
    text = {"n_vocab": 60, "n_text_ctx": 12, "n_text_state": 32, "n_text_head": 4, "n_text_layer": 2}
    return filled(Whisper(ModelDimensions(**audio, **text)))


def diffusers_unet():
    from diffusers import UNet2DConditionModel

    sizes = {"sample_size": 8, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 24}
    return filled(UNet2DConditionModel(**sizes))


def sdxl_unet():
    from diffusers import UNet2DConditionModel

    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64, 128),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (4, 8, 16),
        "use_linear_projection": True,
    }
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 40,
    }
    return filled(UNet2DConditionModel(sample_size=8, cross_attention_dim=24, **blocks, **added))


def sdxl_text(number):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {**SIZES, "intermediate_size": 128, "hidden_act": "gelu", "projection_dim": 24}
    config = CLIPTextConfig(**sizes, vocab_size=50, max_position_embeddings=16, eos_token_id=49, bos_token_id=48)
    return filled((CLIPTextModel, CLIPTextModelWithProjection)[number](config))


def diffusers_vae():
    from diffusers import AutoencoderKL

    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (32, 64, 128, 128),
    }
    return filled(AutoencoderKL(**blocks, layers_per_block=2))


def peft_bert():
    import peft
    from transformers import BertConfig, BertForSequenceClassification

    base = BertForSequenceClassification(BertConfig(**SIZES, vocab_size=50, max_position_embeddings=16))
    config = peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query", "value"], use_dora=True)
    return filled(peft.get_peft_model(base, config))


MODELS = {
    "timm-vit": timm_vit,
    "torchvision-resnet-basic": lambda: torchvision_resnet("basic"),
    "torchvision-resnet-bottleneck": lambda: torchvision_resnet("bottleneck"),
    "open-clip": open_clip,
    "openai-whisper": openai_whisper,
    "peft-bert": peft_bert,
}
