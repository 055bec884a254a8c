"""Command-line flags derived from the configuration dataclasses, and how settings are resolved.

A setting takes its value from, weakest first: the dataclass's default, the row of the model size,
the hparams file (by default the one of the model size), `--set key=value`, its own flag.
"""

import dataclasses
import itertools
import json
import os
import sys
import typing
from typing import Any, Literal

from absl import flags

from electra_es.config import (
    MODEL_SIZES,
    ModelConfig,
    PretrainingConfig,
    TextConfig,
    field_type,
    from_dict,
    model_config,
    owner_of,
    parse_value,
)
from electra_es.errors import UsageError, nearest_hint


def define_config_flags(*classes: type, skip: tuple[str, ...] = ()) -> None:
    """Defines one absl flag per field of the dataclasses; None means not given."""
    for cls in classes:
        for field in dataclasses.fields(cls):
            if field.name in skip:
                continue
            kind, help_text = field_type(cls, field.name), field.metadata["help"]
            help_text = f"{help_text} (default {field.default!r})".replace("%", "%%")
            if kind is bool:
                flags.DEFINE_bool(field.name, None, help_text)
            elif kind is int:
                flags.DEFINE_integer(field.name, None, help_text)
            elif kind is float:
                flags.DEFINE_float(field.name, None, help_text)
            elif typing.get_origin(kind) is Literal:
                flags.DEFINE_string(
                    field.name, None, f"<{'|'.join(typing.get_args(kind))}>: {help_text}")
            else:
                flags.DEFINE_string(field.name, None, help_text)


def parse_flags(argv: list[str] | None = None) -> list[str]:
    """Parses the command line (or `argv`) with the flags defined so far; `--help` shows them.

    Returns:
      the arguments that are no flags.

    Raises:
      UsageError: an unknown flag (absl names the nearest), or a value of the wrong type.
    """
    argv = sys.argv if argv is None else argv
    if {"--help", "-help", "-h", "--helpfull"}.intersection(argv[1:]):
        print(_help_text())
        sys.exit(0)
    try:
        return flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None


def _help_text() -> str:
    """What the command says of itself, then its flags; those of libraries are left out."""
    command = sys.modules["__main__"]
    # absl calls the module of a command as the command line does.
    ours = [module for module in flags.FLAGS.flags_by_module_dict()
            if module == sys.argv[0] or module.startswith(("electra_es.", "data_prep."))]
    # Without absl's headings, which are the paths of modules.
    return "\n".join([command.__doc__ or "", *(
        flags.FLAGS.module_help(module).split(":\n", 1)[1] for module in ours)])


def required(flag: flags.FlagHolder[str], expected: str) -> str:
    """The value of a flag that has to be given; UsageError without it."""
    if not flag.value:
        raise UsageError(f"--{flag.name}: expected {expected}")
    return flag.value


def given_settings(values: flags.FlagValues, assignments: list[str]) -> dict[str, Any]:
    """Settings named on the command line: `--set` assignments, then flags.

    Raises:
      UsageError: an assignment without `=`, of an unknown setting or of a wrong value.
    """
    given: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected key=value")
        given[key] = parse_value(key, text)
    for cls in (TextConfig, ModelConfig, PretrainingConfig):
        for field in dataclasses.fields(cls):
            if field.name in values and values[field.name].value is not None:
                value = values[field.name].value
                kind = field_type(cls, field.name)
                given[field.name] = parse_value(field.name, value) if kind == tuple[int, ...] else value
    return given


def load_hparams(path: str) -> dict[str, Any]:
    """Reads a flat JSON object of settings; `_`-keys are comments.

    Raises:
      UsageError: no such file, no JSON object, or an unknown setting (the nearest is named).
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object of settings")
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    for key in values:
        try:
            owner_of(key)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    return values


def resolve(given: dict[str, Any], hparams: str, hparams_dir: str
            ) -> tuple[ModelConfig, PretrainingConfig, dict[str, Any]]:
    """Puts defaults, model size, hparams file and given settings together.

    Args:
      given: `given_settings`.
      hparams: path of an hparams file; empty: the one of the model size in `hparams_dir`.
      hparams_dir: the folder of the recipes.

    Returns:
      both configurations, and the text settings that were asked for (file or command line).
    """
    if not hparams:
        size = given.get("model_size", "debug")
        if size not in MODEL_SIZES:
            raise UsageError(f'model_size="{size}": expected one of {", ".join(MODEL_SIZES)}'
                             f"{nearest_hint(str(size), MODEL_SIZES)}")
        hparams = os.path.join(
            hparams_dir, "debug.json" if size == "debug" else f"pretrain_{size}.json")
    recipe = load_hparams(hparams)
    settings = {**recipe, **_fitted(recipe, given), **given}
    by_owner: dict[type, dict[str, Any]] = {TextConfig: {}, ModelConfig: {}, PretrainingConfig: {}}
    for key, value in settings.items():
        by_owner[owner_of(key)][key] = value
    return (model_config(by_owner[ModelConfig]),
            from_dict(PretrainingConfig, by_owner[PretrainingConfig]), by_owner[TextConfig])


def _fitted(recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The recipe's schedule, fitted to another number of steps where only that is given.

    The warm-up keeps its length (what it waits for, Adam's second moment, does not depend on the
    length of the run) but takes at most half of the run. Restarts keep their place in the run,
    and are left out where a cycle would not be twice the warm-up. There are at least five
    checkpoints.
    """
    steps, recipe_steps = given.get("num_train_steps"), recipe.get("num_train_steps")
    if not steps or not recipe_steps or steps == recipe_steps:
        return {}
    fitted: dict[str, Any] = {}
    warmup, restarts = recipe.get("warmup_steps"), recipe.get("restart_steps")
    if warmup:
        fitted["warmup_steps"] = max(1, min(warmup, steps // 2))
    if restarts:
        moved = [round(step * steps / recipe_steps) for step in restarts]
        shortest = min(b - a for a, b in itertools.pairwise([0, *moved, steps]))
        fitted["restart_steps"] = moved if shortest >= 2 * (warmup or 0) and shortest else []
    if "save_every" in recipe:
        fitted["save_every"] = max(1, min(recipe["save_every"], steps // 5))
    return {key: value for key, value in fitted.items() if key not in given}
