r"""Pretrains an ELECTRA.

    python run_pretraining.py                    # bundled sample, debug size, CPU, a few minutes
    python run_pretraining.py --data_dir=gs://bucket/records --vocab_dir=gs://bucket/vocabulary \
        --model_dir=gs://bucket/small --model_size=small --tpu=my-tpu --tpu_zone=europe-west4-a
    python run_pretraining.py ... --set learning_rate=3e-4 --set generator_width=0.5
    python run_pretraining.py ... --mode=evaluate
    python run_pretraining.py --model_size=small --print_schedule

Every setting of `electra_es/config.py` is a flag; `hparams/` holds the recipes.
Exit codes: 0 done, 1 a check did not hold, 2 wrong use or bad input, 3 stopped by a signal
after saving.
"""

import functools
import os

from absl import flags

from electra_es.config import ModelConfig, PretrainingConfig, TextConfig
from electra_es.errors import EXIT_STOPPED, UsageError, run_main
from electra_es.flags import define_config_flags, given_settings, parse_flags, resolve

HPARAMS_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hparams")

define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Records directory; none: the bundled sample.")
_VOCAB_DIR = flags.DEFINE_string("vocab_dir", "", "Vocabulary directory (vocab.txt, text.json).")
_MODEL_DIR = flags.DEFINE_string("model_dir", "", "Where the run lives, and goes on if it is there.")
_HPARAMS = flags.DEFINE_string("hparams", "", "JSON file of settings; none: that of the model size.")
_SET = flags.DEFINE_multi_string("set", [], "key=value of any setting; may be repeated.")
_MODE = flags.DEFINE_enum("mode", "train_and_evaluate", ["train", "evaluate", "train_and_evaluate"],
                          "What to do.")
_TPU = flags.DEFINE_string("tpu", "", "local, the name of a TPU node, or grpc://host:port.")
_TPU_ZONE = flags.DEFINE_string("tpu_zone", "", "Zone of a named TPU.")
_GCP_PROJECT = flags.DEFINE_string("gcp_project", "", "Project of a named TPU.")
_SAMPLE_DIR = flags.DEFINE_string("sample_dir", "runs/sample", "Where a run on the sample is kept.")
_INIT_CHECKPOINT = flags.DEFINE_string(
    "init_checkpoint", "", "Weights that a new run starts from: a model directory, a Hugging Face "
    "folder or the prefix of a Google checkpoint. A run that has a checkpoint goes on from that.")
_PRINT_SCHEDULE = flags.DEFINE_bool("print_schedule", False, "Print the learning rates and leave.")


def main() -> int:
    if rest := parse_flags():
        raise UsageError(f'"{rest[0]}": expected flags only')
    given = given_settings(flags.FLAGS, _SET.value)
    model_config, config, text_settings = resolve(given, _HPARAMS.value, HPARAMS_DIR)
    text_given = {key: value for key, value in given.items()
                  if key in TextConfig.__dataclass_fields__}
    if _PRINT_SCHEDULE.value:
        from electra_es.training.optimization import print_schedule

        print_schedule(config)
        return 0
    if not _DATA_DIR.value:
        return _run_on_sample(model_config, config, text_settings)
    for flag in (_VOCAB_DIR, _MODEL_DIR):
        if not flag.value:
            raise UsageError(f"--{flag.name}: expected a directory, as --data_dir is given")

    from electra_es.text.tokenizer import check_agrees, load_text_config
    from electra_es.training.devices import TpuAddress
    from electra_es.training.evaluation import evaluate_run
    from electra_es.training.train import train

    check_agrees(load_text_config(_VOCAB_DIR.value), text_given, f"{_VOCAB_DIR.value}/text.json")
    where = dict(data_dir=_DATA_DIR.value, vocab_dir=_VOCAB_DIR.value, model_dir=_MODEL_DIR.value,
                 tpu=TpuAddress(_TPU.value, _TPU_ZONE.value, _GCP_PROJECT.value))
    if _MODE.value == "evaluate":
        evaluate_run(model_config, config, **where)
        return 0
    result = train(model_config, config, **where, initial_weights=_initial_weights(),
                   evaluate_at_end=_MODE.value != "train")
    return EXIT_STOPPED if result.stopped_by_signal else 0


def _initial_weights():
    """What gives a new run its weights; imported when asked for, as importers take packages that
    training does not need."""
    if not _INIT_CHECKPOINT.value:
        return None
    from electra_es.export.initial_weights import load_initial_weights

    return functools.partial(load_initial_weights, source=_INIT_CHECKPOINT.value)


def _run_on_sample(model_config: ModelConfig, config: PretrainingConfig, text_settings: dict) -> int:
    for flag in (_VOCAB_DIR, _MODEL_DIR):
        if flag.value:
            raise UsageError(f"--{flag.name}={flag.value}: expected --data_dir beside it")
    if model_config.model_size != "debug":
        raise UsageError(f"model_size={model_config.model_size}: expected --data_dir, --vocab_dir and "
                         "--model_dir; without them the debug size runs on the bundled sample")
    from data_prep.sample_records import prepare_sample
    from electra_es.demo import run_on_sample
    from electra_es.training.devices import TpuAddress, set_up_devices

    # Before the vocabulary is made, which touches TensorFlow's devices.
    set_up_devices(config, TpuAddress())
    vocab_dir, records_dir = prepare_sample(_SAMPLE_DIR.value, text_settings, config)
    result = run_on_sample(model_config, config, vocab_dir, records_dir, _SAMPLE_DIR.value)
    return EXIT_STOPPED if result.stopped_by_signal else 0


if __name__ == "__main__":
    run_main(main)
