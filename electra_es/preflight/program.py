"""The training step as a program of XLA, without a device that runs it."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.data.inputs import synthetic_batch
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.training.compilation import Compilation
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.steps import TrainStep


class Program(NamedTuple):
    """A step as HLO.

    Its arguments are the four arrays of `Inputs`, then the variables. Its results are the metric sums,
    then the new values of the variables. A new value takes the memory of the old one.
    """

    hlo: bytes  # a serialised HLO module
    variables: list[tf.Variable]  # in the order of the arguments, and of the new values
    metrics: list[str]  # in the order of the results
    aliases: list[tuple[int, int]]  # (result, argument) that share memory


def step_program(train_step: TrainStep, batch: Inputs) -> Program:
    """The step that `train()` compiles, lowered by TensorFlow for batches of the shape of `batch`."""
    @tf.function(jit_compile=True, autograph=False)
    def step(*batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return train_step(Inputs(*batch))

    traced = step.get_concrete_function(*batch)
    # TensorFlow's own copy of the format: this needs no other package.
    from tensorflow.compiler.xla.service import hlo_pb2

    hlo = step.experimental_get_compiler_ir(*batch)(stage="hlo_serialized")
    aliases = hlo_pb2.HloModuleProto.FromString(hlo).input_output_alias.entries
    # Not `traced.graph.variables`: the moments are not in it, as Adam uses nothing but their handles.
    by_handle = {id(variable.handle): variable
                 for variable in (*train_step.model.variables, *train_step.optimizer.variables)}
    return Program(
        hlo, [by_handle[id(handle)] for handle in traced.captured_inputs],
        sorted(traced.structured_outputs),  # tf.nest sorts the keys of a dictionary
        [(entry.output_shape_index[0], entry.parameter_number) for entry in aliases])


def synthetic_program(model_config: ModelConfig, config: PretrainingConfig, vocab_size: int,
                      batch_size: int) -> tuple[bytes, int]:
    """The training step of a new model on `batch_size` examples as a serialised HLO module.

    Returns:
      the module, and the number of trained parameters.
    """
    vocab = VocabularyFacts(vocab_size, 0, 2, 3, 4, np.ones(vocab_size, bool))
    model = build_pretrainer(model_config, vocab, config.precision)
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    train_step = TrainStep(model, optimizer, model_config, config, Compilation(kept=tf.bfloat16))
    program = step_program(
        train_step, synthetic_batch(batch_size, config.max_seq_length, vocab_size))
    return program.hlo, sum(int(v.shape.num_elements()) for v in model.trainable_variables)
