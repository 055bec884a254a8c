"""A local Hugging Face ELECTRA folder as a model of this project.

No code is executed and nothing is unpickled: weights come only from safetensors, and no file outside
the folder is opened.
"""

import json
import math
import os
import tempfile
import zlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError, safe_open

from electra_es import files
from electra_es.config import PretrainingConfig
from electra_es.errors import UsageError
from electra_es.export.compare import check_weights
from electra_es.export.huggingface.names import (
    ARCHITECTURES,
    HubConfig,
    Part,
    Sharing,
    TensorName,
    check_hub_config,
    model_config_from,
    tensor_table,
)
from electra_es.export.huggingface.tokenizer import write_vocabulary
from electra_es.export.output import new_directory
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.model.variables import named_variables, set_weights
from electra_es.run_config import CONFIG_FILE, Run
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import TEXT_CONFIG_FILE, VOCAB_FILES
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import load_model, prepare_model_dir, vocabulary_facts

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Kept in an imported model directory, so that an export writes the same config.json again.
SOURCE_CONFIG_FILE = "huggingface.json"

_TOKENIZER_FILES = (*VOCAB_FILES.values(), TEXT_CONFIG_FILE, "tokenizer.json", "tokenizer_config.json")
_WORD_TABLE = "electra.embeddings.word_embeddings.weight"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class Imported(NamedTuple):
    """A model from a Hugging Face folder."""

    model: ElectraPretrainer
    tokenizer: Tokenizer
    run: Run
    configs: dict[Part, HubConfig]  # the `config.json` of each part
    new: list[str]  # canonical names of variables that the folder does not have


def load_folder(folder: str, generator: str = "") -> Imported:
    """Builds the model of a Hugging Face folder.

    Args:
      folder: a local folder with one part, or with `discriminator/` or `generator/` or both in it.
        A generator alone is a model of BERT's objective (mlm).
      generator: a folder with the generator, if it is published separately. If there is none, a new
        generator is made with the recipe's shape and the discriminator's embeddings.

    Raises:
      UsageError: a missing tensor, an extra one or one of the wrong shape, weights in a pickle, a link
        out of the folder, or a configuration that this project cannot compute.
    """
    folders = _part_folders(folder, generator)
    configs = {part: _read_config(path, part) for part, path in folders.items()}
    tensors = {part: _read_tensors(path) for part, path in folders.items()}
    main = next(iter(folders))
    with tempfile.TemporaryDirectory() as vocab_dir:
        max_length = _copy_vocabulary(folders[main], vocab_dir, configs[main])
        tokenizer = load_tokenizer(vocab_dir)
    _check_vocabulary(tokenizer, configs, folders)
    try:
        config = model_config_from(
            configs.get("discriminator"), configs.get("generator"), _sharing(tensors))
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from None
    model = build_pretrainer(config, vocabulary_facts(tokenizer))
    arrays: dict[str, np.ndarray] = {}
    for part, path in folders.items():
        arrays.update(_to_canonical(tensors[part], tensor_table(part, config), model, path))
    new = set_weights(model, arrays, folder,
                      require="all" if "generator" in folders else "discriminator")
    _initialise(model, new)
    run = Run(tokenizer.config, config, PretrainingConfig(max_seq_length=max_length))
    return Imported(model, tokenizer, run, configs, new)


def import_folder(folder: str, output: str, *, generator: str = "", overwrite: bool = False) -> Imported:
    """Writes the model directory `output` from a Hugging Face folder; see `load_folder`.

    It holds weights at step 0, to start a run from (`--init_checkpoint`) or to fine-tune.

    Raises:
      UsageError: as `load_folder`, or `output` exists or cannot be written. Nothing is left then.
      CheckFailed: the weights, read back, are not those of the folder. Nothing is left then.
    """
    source = load_folder(folder, generator)
    main, main_folder = next(iter(_part_folders(folder, generator).items()))
    with (new_directory(output, overwrite=overwrite, recognised_by=SOURCE_CONFIG_FILE) as scratch,
          tempfile.TemporaryDirectory() as vocab_dir):
        _copy_vocabulary(main_folder, vocab_dir, source.configs[main])
        prepare_model_dir(scratch, source.tokenizer, vocab_dir, source.run.model,
                          source.run.pretraining)
        files.write_json(os.path.join(scratch, SOURCE_CONFIG_FILE), source.configs)
        state = tf.train.Checkpoint(model=source.model)
        Checkpoints(scratch, state, keep=1, keep_every=0).save(0, 0)
        check_weights(load_model(scratch)[0], source.model, output)
    return source


def read_source_configs(model_dir: str) -> dict[Part, HubConfig]:
    """The `config.json` of each part that an imported model directory came from; else empty."""
    path = os.path.join(model_dir, SOURCE_CONFIG_FILE)
    values: Any = files.read_json(path) if files.exists(path) else {}
    return values


def _part_folders(folder: str, generator: str) -> dict[Part, str]:
    """The folder of each part, the discriminator first."""
    parts: tuple[Part, ...] = ("discriminator", "generator")
    folders = {part: os.path.join(folder, part) for part in parts
               if os.path.exists(os.path.join(folder, part, CONFIG_FILE))}
    if not folders:
        architectures = _read_json(folder, CONFIG_FILE).get("architectures") or [""]
        is_generator = architectures[0] == ARCHITECTURES["generator"] and not generator
        folders = {"generator" if is_generator else "discriminator": folder}
    if generator:
        folders["generator"] = generator
    return folders


def _member(folder: str, name: str) -> str:
    """Path of a file of the folder; UsageError if it is not inside.

    Links are followed within the folder, and to `blobs` where the Hub's download cache has them.
    """
    path = os.path.join(folder, name)
    root, real = os.path.realpath(folder), os.path.realpath(path)
    allowed = [root]
    if os.path.basename(os.path.dirname(root)) == "snapshots":
        allowed.append(os.path.join(os.path.dirname(os.path.dirname(root)), "blobs"))
    if os.path.basename(name) != name or not any(real.startswith(f"{at}{os.sep}") for at in allowed):
        raise UsageError(f'{folder}: "{name}" leads out of the folder: expected a file in it')
    return path


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = _member(folder, name)
    if not files.exists(path):
        raise UsageError(f"{path}: no such file: expected a local folder of a Hugging Face ELECTRA")
    return files.read_json(path)


def _read_config(folder: str, part: Part) -> HubConfig:
    config = _read_json(folder, CONFIG_FILE)
    check_hub_config(config, part, os.path.join(folder, CONFIG_FILE))
    return config


def _read_tensors(folder: str) -> dict[str, np.ndarray]:
    """All tensors of a folder's safetensors files, by name."""
    if os.path.lexists(os.path.join(folder, WEIGHTS_FILE)):
        return _read_safetensors(_member(folder, WEIGHTS_FILE))
    if os.path.lexists(os.path.join(folder, INDEX_FILE)):
        weight_map = _read_json(folder, INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
            raise UsageError(f"{folder}/{INDEX_FILE}: expected a weight_map of names to files")
        paths = [_member(folder, name) for name in sorted(set(weight_map.values()))]
        return {name: array for path in paths for name, array in _read_safetensors(path).items()}
    for name in sorted(os.listdir(folder)):
        if name.endswith(_PICKLES):
            raise UsageError(f"{folder}: its weights are {name}, a pickle, which can run any code: "
                             f"expected {WEIGHTS_FILE}")
    raise UsageError(f"{folder}: no {WEIGHTS_FILE}: expected the weights there")


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype != "F32" and not name.endswith(".position_ids"):
                    raise UsageError(f"{path}: {name} is of type {dtype}: expected F32")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: not a safetensors file ({error})") from None


def _copy_vocabulary(folder: str, vocab_dir: str, config: HubConfig) -> int:
    """Writes the folder's vocabulary directory; returns the length that it is to be used at."""
    found = {name: files.read_bytes(_member(folder, name)) for name in _TOKENIZER_FILES
             if os.path.lexists(os.path.join(folder, name))}
    write_vocabulary(found, vocab_dir, folder)
    length = json.loads(found.get("tokenizer_config.json", b"{}")).get("model_max_length")
    positions = config["max_position_embeddings"]
    # transformers writes 1e30 where no length is set.
    return min(length, positions) if isinstance(length, int) else positions


def _check_vocabulary(tokenizer: Tokenizer, configs: dict[Part, HubConfig],
                      folders: dict[Part, str]) -> None:
    for part, config in configs.items():
        for key, expected in (("vocab_size", len(tokenizer.vocab)), ("pad_token_id", tokenizer.pad_id)):
            if config.get(key, expected) != expected:
                raise UsageError(f"{folders[part]}/{CONFIG_FILE}: {key}={config[key]}: expected "
                                 f"{expected}, as the vocabulary has it")


def _sharing(tensors: dict[Part, dict[str, np.ndarray]]) -> Sharing:
    """Which of the discriminator's tensors the generator holds as well."""
    if len(tensors) < 2:
        return "embeddings"
    ours, theirs = tensors["discriminator"], tensors["generator"]

    def same(prefix: str) -> bool:
        names = [name for name in ours if name.startswith(prefix)]
        return all(name in theirs and np.array_equal(ours[name], theirs[name]) for name in names)

    return "all" if same("electra.") else "embeddings" if same("electra.embeddings.") else "none"


def _initialise(model: ElectraPretrainer, names: list[str]) -> None:
    """Draws the kernels of a new generator, the same ones every time.

    `tf.random.set_seed` before building is not used: it clears the cache of kernels, and with it the
    SentencePiece models of all tokenisers made before.
    """
    views = named_variables(model)
    for name in names:
        view = views[name]
        if not name.endswith("/kernel"):
            continue  # biases and LayerNorm begin at 0 and 1
        seed = [0, zlib.crc32(name.encode())]
        if name.endswith("embeddings_project/kernel"):  # Glorot's, as everywhere
            limit = math.sqrt(6 / sum(view.shape))
            drawn = tf.random.stateless_uniform(view.shape, seed, -limit, limit)
        else:
            drawn = tf.random.stateless_truncated_normal(
                view.shape, seed, stddev=model.config.initializer_range)
        view.assign(drawn.numpy())


def _to_canonical(tensors: dict[str, np.ndarray], table: list[TensorName],
                  model: ElectraPretrainer, where: str) -> dict[str, np.ndarray]:
    """Tensors of a part under their canonical names and shapes.

    Raises:
      UsageError: a missing, extra or wrongly shaped tensor.
    """
    views = named_variables(model)
    tensors = _without_copies(tensors)
    for row in table:
        if row.name not in tensors:
            raise UsageError(f"{where}: no tensor {row.name}: expected every tensor of the model")
        shape = list(views[row.canonical].shape)
        expected = shape[::-1] if row.transposed else shape
        if list(tensors[row.name].shape) != expected:
            raise UsageError(f"{where}: {row.name} has shape {list(tensors[row.name].shape)}: "
                             f"expected {expected}")
    extra = sorted(set(tensors) - {row.name for row in table})
    if extra:
        raise UsageError(f"{where}: unknown tensor {extra[0]} ({len(extra)} in all): expected only "
                         "those of the model")
    return {row.canonical: tensors[row.name].T if row.transposed else tensors[row.name]
            for row in table}


def _without_copies(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves out copies that older folders store: the position ids 0, 1, 2, ... and the word table as the
    generator's output matrix. Other values there count as extra tensors."""
    kept = dict(tensors)
    positions = kept.get("electra.embeddings.position_ids")
    if positions is not None and np.array_equal(positions.ravel(), np.arange(positions.size)):
        del kept["electra.embeddings.position_ids"]
    output, table = kept.get("generator_lm_head.weight"), kept.get(_WORD_TABLE)
    if output is not None and table is not None and np.array_equal(output, table):
        del kept["generator_lm_head.weight"]
    return kept
