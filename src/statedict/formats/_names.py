"""Names by which formats are recognised: of files and folders, and of archives' members. `_run_names` has those of runs."""

from __future__ import annotations

import re

# The suffixes of weights, in order of preference. A directory often has the same weights in several formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".gguf")
# The suffix of an index of shards.
INDEX = ".index.json"
# Files that have a suffix of weights but are not weights: the arguments of transformers' Trainer.
OTHER_FILES = ("training_args.bin",)
# Files beside the weights that have a known role in training: of transformers, accelerate, skorch, and many scripts.
ROLE = re.compile(
    r"(?:(?P<group>train_end)_)?(?P<stem>optimizer|optim|lr_scheduler|scheduler|scaler|sampler|dl_state_dict|random_states|"
    r"rng_state|criterion|custom_checkpoint|pytorch_model_fsdp)(?:_(?P<number>\d{1,9}))?(?:_rank(?P<rank>\d{1,9}))?"
    r"\.(?:pt|pth|bin|pkl|safetensors)|(?P<end>train_end)_params\.(?:pt|safetensors)"
)
# Folders with such a role: torch.distributed.checkpoint folders of accelerate with FSDP.
FSDP_FOLDER = re.compile(r"(?:pytorch_model_fsdp|optimizer)_\d{1,9}")
# The folder of one model-parallel rank of Megatron-LM.
MEGATRON_RANK = re.compile(r"mp_rank_\d{2,9}(?:_\d{3,9}){0,2}")
# Files that list the models in the folders beside them: of diffusers and sentence-transformers.
PIPELINE, MODULES = "model_index.json", "modules.json"
# Members by which archives are recognised that are read like folders: Stable-Baselines3, model archives (`.mar`).
SB3 = "_stable_baselines3_version"
MANIFEST = "MAR-INF/MANIFEST.json"
# Files of torch_checkpointing, one for each rank.
RANK_OF_TORCH_CHECKPOINTING = re.compile(r"[A-Za-z0-9_-]+_\d{1,7}\.pt")
# The file of one rank of HuggingFaceStorageWriter, and the folder for them if it also writes whole tensors.
OF_A_RANK = re.compile(r"shard-(?P<rank>\d{5,9})-.+\.safetensors")
SHARDED = "sharded"
# torch.distributed.checkpoint writes one metadata file, or one per rank.
METADATA = re.compile(r"(?:__\d{1,9})?\.metadata")
# DeepSpeed writes model states, and one file or more of optimizer states.
DEEPSPEED = re.compile(r".+[_-](?:model|optim)_states\.pt")
# The members by which packages of torch.export are recognised: of PyTorch 2.8 and later, and of earlier versions.
PACKAGE, FLAT_PROGRAM = "archive_format", "serialized_exported_program.json"
