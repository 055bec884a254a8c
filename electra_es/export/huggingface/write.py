"""Export of a model directory as Hugging Face folders."""

import os

import numpy as np
import tensorflow as tf
from safetensors.numpy import save

from electra_es import files
from electra_es.config import ModelConfig
from electra_es.errors import UsageError, import_optional
from electra_es.export.compare import MASK_PROBES, PROBES, Comparison, mask_logits, tokenized
from electra_es.export.huggingface.names import (
    Part,
    Sharing,
    TensorName,
    hub_config,
    model_config_from,
    parts_of,
    tensor_table,
)
from electra_es.export.huggingface.read import (
    WEIGHTS_FILE,
    load_folder,
    read_source_configs,
)
from electra_es.export.huggingface.tokenizer import tokenizer_config, tokenizer_json
from electra_es.export.model_card import EXAMPLE, CardOptions, model_card
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.export.saved_model.text_model import TextModel, usable_length
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.model.variables import get_resolved_weights
from electra_es.monitoring.metrics_log import read_log
from electra_es.run_config import CONFIG_FILE, Run
from electra_es.text.tokenizer import Tokenizer
from electra_es.text.vocabulary import TEXT_CONFIG_FILE, VOCAB_FILES
from electra_es.training.run_dir import load_model

CARD_FILE = "README.md"


def export_huggingface(model_dir: str, output: str, *, options: CardOptions = CardOptions(),
                       overwrite: bool = False) -> Exported:
    """Writes the parts of the model of `model_dir` as folders, reads them back and compares.

    Args:
      model_dir: a model directory with a checkpoint.
      output: the directory to write; it appears when it is whole and checked.
      options: for the model card.
      overwrite: whether an earlier export there may be replaced.

    Returns:
      the parts written, and what was compared.

    Raises:
      UsageError: no such model, or `output` exists or cannot be written.
      CheckFailed: what was read back differs from the model; nothing is left behind.

    Example, after `make demo`:

        >>> from electra_es import export_huggingface
        >>> exported = export_huggingface("runs/sample/model", "runs/published")
        >>> exported.parts
        ['discriminator', 'generator']
    """
    model, tokenizer, run, step = load_model(model_dir)
    origin, source = origin_of(model_dir, step), read_source_configs(model_dir)
    # A generator that an import had to make, because its source had none, is not published.
    parts = [part for part in parts_of(run.model) if not source or part in source]
    text_model = TextModel(model, tokenizer, usable_length(run))
    example: list[tuple[str, float]] = []
    if model.discriminator_head is not None:
        example = _score_example(text_model)
    log, weights = read_log(model_dir), get_resolved_weights(model)
    configs = _configs(model_dir, run, tokenizer)
    shared_files = tokenizer_files(model_dir, tokenizer, usable_length(run))
    marker = f"{parts[0]}/{WEIGHTS_FILE}"
    with new_directory(output, overwrite=overwrite, recognised_by=marker) as scratch:
        for part in parts:
            arrays = published_arrays(weights, part, run.model)
            card = model_card(
                part, run, tokenizer, options=options, step=step, log=log, example=example,
                parameters=sum(array.size for array in arrays.values()))
            own = {CONFIG_FILE: files.json_bytes(configs[part]), CARD_FILE: card.encode("utf-8")}
            write_folder(os.path.join(scratch, part), arrays, {**shared_files, **own})
            origin.write(os.path.join(scratch, part))
        compared = [line for part in parts
                    for line in _compare(part, text_model, model, os.path.join(scratch, part))]
    return Exported(list(parts), origin, compared)


def published_arrays(weights: dict[str, np.ndarray], part: Part, config: ModelConfig
                     ) -> dict[str, np.ndarray]:
    """Tensors of a part's `model.safetensors`.

    Args:
      weights: `get_resolved_weights` of the model.
    """
    return renamed(weights, tensor_table(part, config))


def renamed(weights: dict[str, np.ndarray], table: list[TensorName]) -> dict[str, np.ndarray]:
    """Our arrays as the tensors of `table`."""
    arrays = {}
    for row in table:
        array = weights[row.canonical]
        arrays[row.name] = np.ascontiguousarray(array.T if row.transposed else array)
    return arrays


def tokenizer_files(model_dir: str, tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
    """Name -> content of the tokeniser's files, `text.json` and the vocabulary included.

    Args:
      model_dir: where the vocabulary is.
      tokenizer: of that vocabulary.
      max_length: L, of the longest input.
    """
    vocab_file = VOCAB_FILES[tokenizer.config.tokenizer]
    vocab_data = files.read_bytes(os.path.join(model_dir, vocab_file))
    return {
        "tokenizer.json": files.json_bytes(tokenizer_json(tokenizer, vocab_data)),
        "tokenizer_config.json": files.json_bytes(tokenizer_config(tokenizer.config, max_length)),
        TEXT_CONFIG_FILE: files.read_bytes(os.path.join(model_dir, TEXT_CONFIG_FILE)),
        vocab_file: vocab_data,
    }


def push_to_hub(folder: str, repository: str, parts: list[str], private: bool) -> list[str]:
    """Uploads exported folders: the discriminator as `repository`, the generator beside it.

    Returns:
      names of the repositories.

    Raises:
      UsageError: as `upload`.
    """
    names = []
    for part in parts:
        names.append(repository if part == "discriminator" else f"{repository}-generator")
        upload(os.path.join(folder, part), names[-1], private)
    return names


def upload(folder: str, repository: str, private: bool) -> None:
    """Uploads one exported folder.

    Raises:
      UsageError: `huggingface_hub` is not installed, nobody is logged in, or the upload failed.
    """
    hub = import_optional("huggingface_hub", "requirements-hub.txt")
    errors = import_optional("huggingface_hub.errors", "requirements-hub.txt")
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--push_to_hub={repository}: {str(error).splitlines()[0]}; the export is "
                         f"whole in {folder}") from None


def _configs(model_dir: str, run: Run, tokenizer: Tokenizer) -> dict[Part, dict]:
    """`config.json` of each part; that of its source for an imported model."""
    configs = {part: hub_config(part, run.model, len(tokenizer.vocab), tokenizer.pad_id)
               for part in parts_of(run.model)}
    source = read_source_configs(model_dir)
    if source and "discriminator" in source:
        sharing: Sharing = ("all" if run.model.generator_kind == "shared" else
                            "embeddings" if run.model.embedding_sharing == "tied" else "none")
        if model_config_from(source["discriminator"], source.get("generator"), sharing) != run.model:
            raise UsageError(f"{model_dir}: its huggingface.json describes another model than its "
                             "config.json: expected the files that the import wrote")
    return {**configs, **source}


def _score_example(text_model: TextModel) -> list[tuple[str, float]]:
    outputs = text_model.detect(tf.constant([EXAMPLE]))
    tokens, logits = outputs["tokens"].numpy()[0], outputs["logits"].numpy()[0]
    return [(token.decode("utf-8"), float(logit))
            for token, logit in zip(tokens[1:-1], logits[1:-1], strict=True)]


def _compare(part: Part, text_model: TextModel, model: ElectraPretrainer, folder: str) -> list[str]:
    """Compares a part, read back by itself, with its source: tokens, and logits of both segments."""
    exported = load_folder(folder)
    compared = Comparison(f"the exported {part}")
    texts = PROBES if part == "discriminator" else MASK_PROBES
    probes = tokenized(texts, text_model.tokenizer, text_model.max_length)
    found = tokenized(texts, exported.tokenizer, usable_length(exported.run))
    compared.equal(f"tokens of the {part}", found.ids, probes.ids)
    if part == "generator":
        compared.close("logits of the generator at [MASK]",
                       mask_logits(exported.model, probes, probes.segments),
                       mask_logits(model, probes, probes.segments))
    else:
        logits = [each.discriminator_logits(probes.ids, probes.input_mask, probes.segments).numpy()
                  for each in (exported.model, model)]
        real = probes.input_mask > 0  # padding is not compared
        compared.close("logits of the discriminator", logits[0][real], logits[1][real])
    return compared.lines


def write_folder(folder: str, arrays: dict[str, np.ndarray], others: dict[str, bytes]) -> None:
    """Writes the weights and the other files (name -> content) of a part."""
    os.makedirs(folder, exist_ok=True)
    # transformers needs the name of the framework that wrote the tensors. save_file is not used: only
    # the owner can read its files, whatever the umask is.
    weights = save(arrays, metadata={"format": "pt"})
    for name, data in {WEIGHTS_FILE: weights, **others}.items():
        files.write_bytes(os.path.join(folder, name), data)
