"""The encoder of a pretrained model with a task head, and where a pretrained model comes from."""

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from electra_es.config import ModelConfig
from electra_es.errors import UsageError
from electra_es.export.huggingface.read import import_folder
from electra_es.finetuning.heads import Head
from electra_es.model.pretrainer import ElectraPretrainer, Precision, build_pretrainer
from electra_es.run_config import CONFIG_FILE, load_run
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.optimization import layerwise_multipliers
from electra_es.training.run_dir import load_model, vocabulary_facts

_CONVERT = ("convert it where it may do no harm, with transformers: "
            "ElectraForPreTraining.from_pretrained(NAME).save_pretrained(FOLDER) and "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)")


class Pretrained(NamedTuple):
    """A pretrained model, and where it is from."""

    model: ElectraPretrainer
    weights: list[np.ndarray]  # of `model.variables`; fine-tuning changes those
    config: ModelConfig
    tokenizer: Tokenizer
    model_dir: str
    origin: str  # such as "runs/small, step 300000"
    from_scratch: bool = False

    def first_weights(self, seed: int) -> list[np.ndarray]:
        """The weights that a trial begins with, of `model.variables`: from scratch its own ones, drawn
        from `seed`. Drawing them clears SentencePiece models, so tokenise before."""
        if not self.from_scratch:
            return self.weights
        tf_keras.utils.set_random_seed(seed)
        model = build_pretrainer(self.config, vocabulary_facts(self.tokenizer))
        return [variable.numpy() for variable in model.variables]


def load_pretrained(model_dir: str, source: str, precision: Precision = "float32",
                    scratch_seed: int | None = None) -> Pretrained:
    """Loads a model directory; call it under the strategy's scope.

    Args:
      source: what the user called it.
      precision: the type that the encoder computes in.
      scratch_seed: if given, weights are drawn anew, for a comparison with pretraining: here from
        it, and for each trial by `first_weights`.
    """
    if scratch_seed is None:
        model, tokenizer, run, step = load_model(model_dir, precision)
        origin = f"{source}, step {step}" if model_dir == source else source
    else:
        # Before the tokeniser is made, as setting the seed clears SentencePiece models.
        tf_keras.utils.set_random_seed(scratch_seed)
        run, tokenizer = load_run(model_dir), load_tokenizer(model_dir)
        model = build_pretrainer(run.model, vocabulary_facts(tokenizer), precision)
        origin = f"{source}, weights drawn anew"
    return Pretrained(model, [variable.numpy() for variable in model.variables], run.model,
                      tokenizer, model_dir, origin, scratch_seed is not None)


def as_model_dir(source: str, imported: str) -> str:
    """The model directory of a pretrained model.

    Args:
      source: a model directory, a Hugging Face folder, or the name of a model on the hub.
      imported: where one is made of the last two, if it is not there yet.

    Raises:
      UsageError: `source` is none of these, or its weights are a pickle.
    """
    if tf.io.gfile.isdir(os.path.join(source, "checkpoints")):
        return source
    if not os.path.exists(imported):
        folder = source if os.path.isdir(source) else _download(source)
        if not any(os.path.exists(os.path.join(folder, part, CONFIG_FILE))
                   for part in ("", "discriminator")):
            raise UsageError(f"--model={source}: expected a model directory, a Hugging Face folder "
                             "or the name of a model on the hub, OWNER/NAME")
        _check_safetensors(source, folder)
        import_folder(folder, imported)
    return imported


def _check_safetensors(source: str, folder: str) -> None:
    inner = os.path.join(folder, "discriminator")
    names = os.listdir(inner if os.path.exists(os.path.join(inner, CONFIG_FILE)) else folder)
    if not any(name.endswith(".safetensors") for name in names):
        raise UsageError(f"--model={source}: no safetensors in it, and a pickle, which can run any "
                         f"code, is not read: {_CONVERT}")


def _download(name: str) -> str:
    """Fetches a model of the hub, or finds it in the hub's cache; returns the local folder."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"--model={name}: no such directory: expected a model directory, a Hugging "
                         "Face folder or the name of a model on the hub, OWNER/NAME")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UsageError(f"--model={name}: no such directory, and the hub needs huggingface_hub: "
                         "pip install -r requirements-hub.txt") from None
    try:
        # No pickle is fetched, not even where there is nothing else.
        return huggingface_hub.snapshot_download(name, allow_patterns=[
            "*.safetensors", "*.json", "vocab.txt", "spm.model"])
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError,
            OSError) as error:
        raise UsageError(f"--model={name}: no such directory, and the hub does not give it "
                         f"({str(error).splitlines()[0]})") from None


class FinetuningModel(tf_keras.layers.Layer):
    """Encoder and head: [B, L] ids -> float32 logits (see `heads`).

    Of the pretrained model only embeddings and discriminator are kept; they are shared with it.
    """

    def __init__(self, pretrainer: ElectraPretrainer, kind: str, num_labels: int,
                 head_dropout: float):
        super().__init__(name="finetuning")
        self.kind = kind
        self.embeddings, self.discriminator = pretrainer.embeddings, pretrainer.discriminator
        self._encode = pretrainer.encode
        self.head = Head(kind, num_labels, head_dropout)
        ids = tf.zeros([1, 2], tf.int32)
        self(ids, tf.ones_like(ids), ids)

    def call(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor,
             seed: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """
        Args:
          input_ids, input_mask, segment_ids: int32 [B, L].
          seed: int32 [2] of the head's dropout; that of the encoder is `dropout_seed`'s.
          training: whether the encoder drops; Keras hands it on to every layer inside.
        """
        sequence = self._encode(input_ids, input_mask, segment_ids).layers[-1]
        return self.head(sequence, seed if training else None)

    def variables_by_depth(self) -> list[list[tf.Variable]]:
        """What is trained: at depth 0 embeddings and their projection, then each block, then the
        head."""
        tower, base = self.discriminator, getattr(self.embeddings, "base", None)
        frozen = {v.ref() for v in base.trainable_variables} if base is not None else set()
        embeddings = [v for v in self.embeddings.trainable_variables if v.ref() not in frozen]
        if tower.projection is not None:
            embeddings += tower.projection.trainable_variables
        return [embeddings, *(block.trainable_variables for block in tower.blocks),
                self.head.trainable_variables]

    def rate_multipliers(self, layer_decay: float) -> list[tuple[tf.Variable, float]]:
        """Each trained variable with the factor of its learning rate."""
        depths = self.variables_by_depth()
        factors = layerwise_multipliers(len(depths) - 2, layer_decay)
        return [(variable, factor) for variables, factor in zip(depths, factors, strict=True)
                for variable in variables]
