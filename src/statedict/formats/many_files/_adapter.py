"""The `adapter_config.json` beside the weights of an adapter of PEFT: it is kept with them, and described in one line."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from statedict.files import File
from statedict.state import few

from ...errors import FormatError
from .._json import read_json_file
from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint

# The key under which it is kept in the metadata, and so in the texts of the state.
CONFIG = "adapter_config"
_SHOWN = 8


def describe_adapter(checkpoint: Checkpoint, file: File, limits: Limits) -> None:
    """Add the configuration of an adapter to the metadata of its checkpoint, without empty entries, and a note about it."""
    try:
        with closing(file):
            found = read_json_file(file, limits)
    except FormatError as error:
        checkpoint.notes.append(f"the configuration of the adapter cannot be read: {error}")
        return
    if not isinstance(found, dict):
        checkpoint.notes.append(f"{file.name} does not describe an adapter")
        return
    kept = {name: value for name, value in found.items() if not (value is None or value is False or value in ([], {}))}
    checkpoint.metadata[CONFIG] = json.dumps(kept, separators=(",", ":"), ensure_ascii=False)
    checkpoint.notes.append(_described(found))


def _described(found: dict[str, Any]) -> str:
    kind = found.get("peft_type") or "unknown kind"
    kind = "DoRA" if found.get("use_dora") else {"LORA": "LoRA"}.get(str(kind), str(kind))
    facts = [f"{name} {found[key]}" for name, key in (("rank", "r"), ("alpha", "lora_alpha")) if found.get(key)]
    facts += [f"with {key}" for key in ("rank_pattern", "alpha_pattern", "use_rslora") if found.get(key)]
    of = found.get("base_model_name_or_path")
    targets = found.get("target_modules") or []
    names = sorted(map(str, targets)) if isinstance(targets, list) else [str(targets)]
    facts += [f"on {few(names, _SHOWN)}"] if names else []
    return ", ".join([f"an adapter of PEFT ({kind})" + (f" for {of}" if of else ""), *facts])
