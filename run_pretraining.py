r"""Pretrains an ELECTRA.

    python run_pretraining.py                    # bundled sample, debug size, CPU, a few minutes
    python run_pretraining.py --data_dir=records --vocab_dir=vocabulary --model_dir=small \
        --model_size=small --tpu=local           # on a TPU VM; data there or at gs://
    python run_pretraining.py ... --set learning_rate=3e-4 --set generator_width=0.5
    python run_pretraining.py --mode=evaluate    # the run on the sample once more
    python run_pretraining.py --mode=evaluate --data_dir=records --model_dir=small
    python run_pretraining.py --model_size=small --print_schedule

Every setting of `electra_es/config.py` is a flag; `hparams/` holds the recipes.
Exit codes: 0 done, 1 a check did not hold, 2 wrong use or bad input, 3 stopped by a signal
after saving.
"""

import functools
import os
from typing import TYPE_CHECKING, Any, Literal

from absl import flags

from electra_es.config import (
    EVALUATION_SETTINGS,
    SCHEDULE_SETTINGS,
    ModelConfig,
    PretrainingConfig,
    TextConfig,
)
from electra_es.errors import EXIT_STOPPED, UsageError, run_main
from electra_es.flags import (
    command_line_settings,
    define,
    define_assignments,
    define_config_flags,
    names_of,
    parse_flags_only,
    refuse_flags,
    refuse_unused,
    required,
    resolve,
)
from electra_es.hardware import prepare_tpu_runtime
from electra_es.settings import NAME, PATH

if TYPE_CHECKING:
    from electra_es.training.train import InitialWeights

define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
_DATA_DIR = define("data_dir", str, "", "Records directory; none: the bundled sample.", PATH)
_VOCAB_DIR = define("vocab_dir", str, "", "Vocabulary directory (vocab.txt, text.json).", PATH)
_MODEL_DIR = define("model_dir", str, "", "Where the run lives, and goes on if it is there.", PATH)
_HPARAMS = define("hparams", str, "", "JSON file of settings; none: that of the model size.", PATH)
_SET = define_assignments()
_MODE = define("mode", Literal["train", "evaluate", "train_and_evaluate"], "train_and_evaluate",
               "What to do.")
_TPU = define("tpu", str, "", "local: the TPU of this TPU VM. Else the name of a TPU node, or "
              "grpc://host:port; these want gs:// paths.", NAME)
_TPU_ZONE = define("tpu_zone", str, "", "Zone of a named TPU.", NAME)
_GCP_PROJECT = define("gcp_project", str, "", "Project of a named TPU.", NAME)
_SAMPLE_DIR = define("sample_dir", str, "runs/sample", "Where a run on the sample is kept.", PATH)
_INIT_CHECKPOINT = define(
    "init_checkpoint", str, "", "Weights that a new run starts from: a model directory, a Hugging "
    "Face folder or the prefix of a Google checkpoint. A run that has a checkpoint goes on from "
    "that.", PATH)
_PRINT_SCHEDULE = define("print_schedule", bool, False, "Print the learning rates and leave.")

# Modes of the command, and the flags that have an effect in each.
_SETTINGS = {"set"} | names_of(TextConfig, ModelConfig)
_TRAINING = _SETTINGS | names_of(PretrainingConfig) | {"hparams"}
_PLACES = {"data_dir", "vocab_dir", "model_dir", "tpu", "tpu_zone", "gcp_project", "mode"}
_USED = {
    "--print_schedule": {"print_schedule", "hparams", "set", "model_size"} | SCHEDULE_SETTINGS,
    "a run on the sample (no --data_dir)": _TRAINING | {"sample_dir"},
    "an evaluation on the sample (no --data_dir)":
        _SETTINGS | EVALUATION_SETTINGS | {"sample_dir", "mode"},
    "--mode=evaluate": _SETTINGS | EVALUATION_SETTINGS | _PLACES,
    "--data_dir": _TRAINING | _PLACES | {"init_checkpoint"},
}


def main() -> int:
    parse_flags_only()
    evaluates, on_sample = _MODE.value == "evaluate", not _DATA_DIR.value
    overrides = command_line_settings(flags.FLAGS, _SET.value)
    _refuse_unused(evaluates, on_sample)
    if evaluates:
        return _evaluate(overrides, on_sample)
    model_config, config, text_settings = resolve(overrides, _HPARAMS.value)
    if _PRINT_SCHEDULE.value:
        from electra_es.training.optimization import print_schedule

        print_schedule(config)
        return 0
    if on_sample:
        return _run_on_sample(model_config, config, text_settings)

    _prepare_tpu()
    from electra_es.text.vocabulary import check_agrees, load_text_config
    from electra_es.training.devices import TpuAddress
    from electra_es.training.train import train

    where = {flag.name: required(flag, "a directory, as --data_dir is given")
             for flag in (_DATA_DIR, _VOCAB_DIR, _MODEL_DIR)}
    check_agrees(load_text_config(where["vocab_dir"]), overrides, f"{where['vocab_dir']}/text.json")
    tpu = TpuAddress(_TPU.value, _TPU_ZONE.value, _GCP_PROJECT.value)
    result = train(model_config, config, **where, tpu=tpu, initial_weights=_initial_weights(),
                   evaluate_at_end=_MODE.value != "train")
    return EXIT_STOPPED if result.stopped_by_signal else 0


def _evaluate(overrides: dict[str, Any], on_sample: bool) -> int:
    """Evaluates a run with its own settings and vocabulary, except for those on the command line."""
    _prepare_tpu()
    from electra_es.text.vocabulary import check_agrees, load_text_config
    from electra_es.training.devices import TpuAddress
    from electra_es.training.evaluation import evaluate_run
    from electra_es.training.run_dir import settings_of_run

    if on_sample:
        where = _sample_directories()
    else:
        model_dir = required(_MODEL_DIR, "the run to evaluate")
        where = dict(data_dir=_DATA_DIR.value, vocab_dir=_VOCAB_DIR.value or model_dir,
                     model_dir=model_dir)
    model_config, config = settings_of_run(where["model_dir"], overrides)
    check_agrees(load_text_config(where["vocab_dir"]), overrides, f"{where['vocab_dir']}/text.json")
    evaluate_run(model_config, config, **where,
                 tpu=TpuAddress(_TPU.value, _TPU_ZONE.value, _GCP_PROJECT.value))
    return 0


def _prepare_tpu() -> None:
    """Must run before TensorFlow is imported."""
    if _TPU.value == "local":
        prepare_tpu_runtime()


def _refuse_unused(evaluates: bool, on_sample: bool) -> None:
    if _PRINT_SCHEDULE.value:
        mode = "--print_schedule"
    elif on_sample:
        mode = f"{'an evaluation' if evaluates else 'a run'} on the sample (no --data_dir)"
    else:
        mode = "--mode=evaluate" if evaluates else "--data_dir"
    refuse_unused(mode, _USED[mode])
    if _TPU.value in ("", "local") or _TPU.value.startswith("grpc://"):
        refuse_flags(f"--tpu={_TPU.value}" if _TPU.value else "no --tpu", ("tpu_zone", "gcp_project"))


def _initial_weights() -> "InitialWeights | None":
    """The function that sets the weights of a new run. Imported only if needed, because importers use
    packages that training does not need."""
    if not _INIT_CHECKPOINT.value:
        return None
    from electra_es.export.initial_weights import load_initial_weights

    return functools.partial(load_initial_weights, source=_INIT_CHECKPOINT.value)


def _run_on_sample(model_config: ModelConfig, config: PretrainingConfig, text_settings: dict) -> int:
    if model_config.model_size != "debug":
        raise UsageError(f"model_size={model_config.model_size}: expected --data_dir, --vocab_dir and "
                         "--model_dir; without them the debug size runs on the bundled sample")
    text = TextConfig(**text_settings)
    from data_prep.sample_records import prepare_sample
    from electra_es.demo import run_on_sample
    from electra_es.training.devices import TpuAddress, set_up_devices
    from electra_es.training.memory import check_memory

    # Before the vocabulary is made, because that initialises TensorFlow's devices and takes time.
    strategy = set_up_devices(config, TpuAddress())
    check_memory(model_config, config, text.vocab_size, strategy)
    vocab_dir, records_dir = prepare_sample(_SAMPLE_DIR.value, text_settings, config)
    result = run_on_sample(model_config, config, vocab_dir, records_dir, _SAMPLE_DIR.value)
    return EXIT_STOPPED if result.stopped_by_signal else 0


def _sample_directories() -> dict[str, str]:
    """The directories that an evaluation of the run on the sample needs.

    Raises:
      UsageError: there is no such run yet.
    """
    root = _SAMPLE_DIR.value
    if not os.path.exists(os.path.join(root, "model", "config.json")):
        raise UsageError(f"--sample_dir={root}: no run on the sample is there: expected one, or the run "
                         "to evaluate as --data_dir, --vocab_dir and --model_dir")
    return dict(data_dir=os.path.join(root, "records"), vocab_dir=os.path.join(root, "vocabulary"),
                model_dir=os.path.join(root, "model"))


if __name__ == "__main__":
    run_main(main)
