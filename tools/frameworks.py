"""Run the state and checkpoint tests of other frameworks with `statedict.torch.install()`, and on stock PyTorch.

    python tools/frameworks.py NAME CHECKOUT [--report FILE.json] [pytest arguments ...]

`NAME` is a row of SUITES, and `CHECKOUT` the root of that framework's source tree, whose own code is tested (it precedes
an installed version on the path). Tests run offline; what they load from the Hub must be in the cache (HF_HOME), which
`tools/tiny_models.py` makes. The tests that fail with this engine are run on stock PyTorch. Those that pass there are
run with the engine once more, and printed if they do not pass; the exit code is then 1. A test's child processes use it too.

This file is also the pytest plugin that records the outcomes: one JSON line for each test, with the number of calls of
this engine. A test without any says nothing about it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ENGINE = (
    "save", "load", "module_state_dict", "module_load_state_dict", "optimizer_state_dict", "optimizer_load_state_dict"
)  # fmt: skip


class Suite(NamedTuple):
    """Where a framework's tests are, relative to its source tree, and which of them are about state.

    Attributes:
        source: the folder to import the framework from.
        folder: the folder that pytest runs in.
        paths: files and folders of tests, relative to `folder`.
        chosen: pytest's `-k` expression.
    """

    source: str
    folder: str
    paths: tuple[str, ...]
    chosen: str = ""


# Families with tied weights, several kinds of attention, experts, convolutions, recurrence, audio, vision, and text to text.
FAMILIES = (
    "albert", "bart", "bert", "bloom", "clip", "convnext", "deberta", "distilbert", "electra", "falcon", "gemma", "gpt2",
    "gpt_neox", "hubert", "llama", "mamba", "mistral", "mixtral", "opt", "phi", "qwen2", "resnet", "roberta", "swin", "t5",
    "vit", "wav2vec2", "whisper", "xlnet",
)  # fmt: skip
PIPELINES = (
    *("ddim", "ddpm", "dit", "latent_diffusion", "consistency_models"), "stable_diffusion/test_stable_diffusion.py",
    "stable_diffusion_xl/test_stable_diffusion_xl.py", "latent_consistency_models/test_latent_consistency_models.py",
    "stable_diffusion_3/test_pipeline_stable_diffusion_3.py", "flux/test_pipeline_flux.py", "pixart_alpha", "pixart_sigma",
    "controlnet/test_controlnet.py", "aura_flow", "latte",
)  # fmt: skip
AUTOENCODERS = ("autoencoder_kl", "autoencoder_tiny", "vq", "asymmetric_autoencoder_kl")
STATE = "save or load or state_dict or checkpoint or tied or tie_"
NOT_STATE = (
    "flash or workload or download or payload or generat or pipeline or gradient_checkpointing or resize or from_hub "
    "or fsdp"
)

SUITES = {
    "accelerate": Suite(
        "src", ".", ("tests/test_accelerator.py", "tests/test_modeling_utils.py", "tests/test_offload.py",
                     "tests/test_big_modeling.py", "tests/test_optimizer.py", "tests/test_scheduler.py",
                     "tests/test_utils.py", "tests/test_state_checkpointing.py"),
    ),
    "peft": Suite(
        "src", ".", ("tests/test_custom_models.py", "tests/test_low_level_api.py"),
        "(save_ or load_m or loading or state_dict or mapping) and not "
        "(fsdp or merging_adapters or modules_to_save or inject)",
    ),
    "peft-decoders": Suite(
        "src", ".", ("tests/test_decoder_models.py",),
        "save_pretrained or base_model_state_dict or from_pretrained_config or lora_conversion or inference_safetensors",
    ),
    "lightning": Suite("src", "tests/tests_pytorch", ("checkpointing",), "not legacy"),
    "fabric": Suite(
        "src", "tests/tests_fabric", ("test_fabric.py", "test_wrappers.py", "strategies/test_ddp.py",
                                      "strategies/test_strategy.py", "utilities/test_load.py",
                                      "utilities/test_optimizer.py"),
        "(save or load or state or checkpoint or optimizer) and not standalone and not hub",
    ),
    "ignite": Suite(".", ".", ("tests/ignite/handlers/test_checkpoint.py", "tests/ignite/handlers/test_ema_handler.py")),
    "transformers": Suite(
        "src", ".", (*(f"tests/models/{name}/test_modeling_{name}.py" for name in FAMILIES),
                     "tests/utils/test_modeling_utils.py"), f"({STATE}) and not ({NOT_STATE})",
    ),
    "transformers-peft": Suite("src", ".", ("tests/peft_integration",), "not accelerator and not hotswap"),
    "torchtitan": Suite(".", ".", ("tests/unit_tests/test_checkpoint.py", "tests/unit_tests/test_torch_checkpointing.py",
                                   "tests/unit_tests/test_dataset_checkpointing.py")),
    "skorch": Suite(".", ".", ("skorch/tests/test_net.py", "skorch/tests/callbacks/test_training.py"),
                    "save or load_params or state_dict"),
    "diffusers-pipelines": Suite("src", ".", ("tests/pipelines",), "test_save_load_local"),
    "diffusers": Suite(
        "src", ".", (*(f"tests/pipelines/{name}" for name in PIPELINES),
                     *(f"tests/models/unets/test_models_unet_{name}.py" for name in ("1d", "2d", "2d_condition")),
                     *(f"tests/models/autoencoders/test_models_{name}.py" for name in AUTOENCODERS),
                     "tests/models/transformers/test_models_transformer_flux.py",
                     "tests/models/transformers/test_models_transformer_sd3.py", "tests/others/test_ema.py"),
        "(save or load or sharded or variant or ema) and not (offload or compile or SingleFile or Hub or Integration or "
        "LoRA or IPAdapter or float16 or Slow or Nightly)",
    ),
}  # fmt: skip


def main() -> int:
    """Run a suite, and its failures on stock PyTorch; return 1 if a test fails with this engine only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SUITES)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--report", type=Path, help="write the outcome of every test to this file")
    options, extra = parser.parse_known_args()
    suite = SUITES[options.name]
    paths = [path for path in suite.paths if (options.checkout / suite.folder / path).exists()]
    chosen = ["-k", suite.chosen] if suite.chosen else []
    installed = outcomes(suite, options.checkout, [*paths, *chosen, *extra], engine=True)
    failed = [name for name, (outcome, _) in installed.items() if outcome == "failed"]
    stock = outcomes(suite, options.checkout, [*failed, *extra], engine=False) if failed else {}
    lost = [name for name in failed if passed(name, stock)]
    again = outcomes(suite, options.checkout, [*lost, *extra], engine=True) if lost else {}
    lost = [name for name in lost if not passed(name, again)]
    if options.report:
        options.report.write_text(json.dumps({"installed": installed, "stock": stock, "lost": lost}, indent=1))
    print(summary(installed, len(lost)), *(f"passes on stock PyTorch only: {name}" for name in lost), sep="\n")
    return bool(lost)


def outcomes(suite: Suite, checkout: Path, arguments: list[str], *, engine: bool) -> dict[str, Any]:
    """Run pytest once; return outcome and number of calls for each test."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch, "results.jsonl")
        results.touch()
        if engine:  # Python imports it at the start of every process
            Path(scratch, "sitecustomize.py").write_text("import frameworks\nframeworks.install()\n")
        path = [scratch, str(Path(__file__).parent.resolve()), str((checkout / suite.source).resolve())]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "SUITE_RESULTS": str(results),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        quiet = ["-W", "ignore", "-q", "--no-header", "--tb=no", "--continue-on-collection-errors"]
        plain = ["-p", "frameworks", "-p", "no:cacheprovider", "-o", "addopts=", "--rootdir", ".", *quiet]
        command = [sys.executable, "-m", "pytest", *plain, *arguments]
        subprocess.run(command, cwd=checkout / suite.folder, env=environment, check=False)
        return dict(json.loads(line) for line in results.read_text().splitlines())


def passed(name: str, results: dict[str, Any]) -> bool:
    """Whether a test has passed."""
    return bool(results.get(name, [""])[0] == "passed")


def summary(installed: dict[str, Any], lost: int) -> str:
    """One line: how many tests passed with this engine, how many of those called it, and how many only pass without it."""
    counts = Counter(outcome for outcome, _ in installed.values())
    called = sum(outcome == "passed" and calls > 0 for outcome, calls in installed.values())
    return f"with this engine: {dict(counts)}; {called} of those that passed call it; {lost} pass on stock PyTorch only"


# --- inside pytest and its children

CALLS = Counter[str]()


def install() -> None:
    """Put this engine under PyTorch's names, and count its calls."""
    import statedict.torch as room

    for name in ENGINE:
        setattr(room, name, counted(getattr(room, name)))
    room.install()


def counted(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        CALLS["all"] += 1
        return function(*args, **kwargs)

    return call


class Cached(dict[str, int]):
    """Says that every model was downloaded before: PEFT's tests go online for the first use of each."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        return 0


def pytest_collection_modifyitems() -> None:
    """Let PEFT's tests read all models from the cache."""
    utilities = sys.modules.get("tests.testing_utils")
    if hasattr(utilities, "_HUB_MODEL_ACCESSES"):
        vars(utilities)["_HUB_MODEL_ACCESSES"] = Cached()


OUTCOME: dict[str, str] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Keep the worst of a test's phases, and write it with the last one."""
    if report.when == "setup":
        CALLS.clear()
    if OUTCOME.get(report.nodeid) in (None, "passed"):
        OUTCOME[report.nodeid] = report.outcome
    if report.when == "teardown":
        with Path(os.environ["SUITE_RESULTS"]).open("a") as results:
            print(json.dumps([report.nodeid, [OUTCOME.pop(report.nodeid), CALLS["all"]]]), file=results)


if __name__ == "__main__":
    sys.exit(main())
