"""Command-line flags from the configuration dataclasses, and how settings are resolved.

Sources of a value, the weakest first: the dataclass's default, the row of the model size,
the hparams file (by default the one of the model size), `--set key=value`, its own flag.
"""

import dataclasses
import itertools
import json
import os
import sys
import typing
from collections.abc import Iterable
from typing import Any, Literal

from absl import flags

from electra_es.config import (
    ModelConfig,
    PretrainingConfig,
    TextConfig,
    check_size,
    check_value,
    from_dict,
    model_config,
    owner_of,
    parse_value,
)
from electra_es.errors import UsageError
from electra_es.settings import Accepts, Range, check, field_type, parse, require

# A longer file cannot be a file of settings (/dev/zero, for instance).
_MAX_HPARAMS = 1 << 20


class _Flag(flags.Flag):
    """A flag whose value is checked when it is parsed; its default may be None."""

    def __init__(self, name: str, kind: Any, default: Any, help: str, accepts: Accepts) -> None:
        self.kind, self.accepts = kind, accepts
        super().__init__(flags.ArgumentParser(), flags.ArgumentSerializer(), name, default, help)

    def _parse_from_default(self, value: Any) -> Any:
        return value

    def parse(self, argument: str) -> None:
        name = f"--{self.name}"
        value = parse(name, argument, self.kind)
        check(name, value, self.kind, self.accepts)
        self.value = value
        self.present += 1


def define(name: str, kind: Any, default: Any, help: str, accepts: Accepts = None
           ) -> flags.FlagHolder:
    """Defines a flag that is not a field of a configuration.

    Args:
      kind: a type, as the annotation of a field: bool, int, float, str, a Literal or a tuple.
      default: the value without the flag.
      accepts: the allowed values; not needed for a Literal.
    """
    if kind is bool:
        return flags.DEFINE_bool(name, default, help, flag_values=flags.FLAGS)
    help = _choices(kind) + help
    return flags.DEFINE_flag(_Flag(name, kind, default, help, accepts), flag_values=flags.FLAGS)


def define_config_flags(*classes: type, skip: tuple[str, ...] = ()) -> None:
    """Defines one flag per field of the dataclasses; None: not on the command line."""
    for cls in classes:
        for field in dataclasses.fields(cls):
            if field.name in skip:
                continue
            kind, accepts = field_type(cls, field.name), field.metadata["accepts"]
            ends = f"; {accepts.ends()}" if isinstance(accepts, Range) else ""
            help_text = f"{field.metadata['help']} (default {field.default!r}{ends})".replace("%", "%%")
            # The configuration itself checks choices.
            define(field.name, str if _choices(kind) else kind, None, _choices(kind) + help_text, accepts)


def _choices(kind: Any) -> str:
    """The choices that `--help` shows before the text of a flag."""
    return f"<{'|'.join(typing.get_args(kind))}>: " if typing.get_origin(kind) is Literal else ""


def define_assignments(help: str = "key=value of any setting; may be repeated."
                       ) -> flags.FlagHolder[list[str]]:
    """Defines `--set`."""
    return flags.DEFINE_multi_string("set", [], help, flag_values=flags.FLAGS)


def parse_flags(argv: list[str] | None = None) -> list[str]:
    """Parses the command line (or `argv`) with the flags defined so far; `--help` shows them.

    Returns:
      the arguments that are not flags.

    Raises:
      UsageError: an unknown flag (absl names the nearest), or a value that the flag does not accept.
    """
    argv = sys.argv if argv is None else argv
    if {"--help", "-help", "-h", "--helpfull"}.intersection(argv[1:]):
        print(_help_text())
        sys.exit(0)
    try:
        return flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split())[:300]) from None


def parse_flags_only() -> None:
    """As `parse_flags`, for commands without other arguments.

    Raises:
      UsageError: also for an argument that is not a flag.
    """
    if rest := parse_flags():
        raise UsageError(f"{rest[0]}: expected only flags, such as --name=value")


def parse_flags_before_dashes(argv: list[str] | None = None) -> list[str]:
    """As `parse_flags`, for commands that hand on to a library what stands after "--".

    Returns:
      the arguments after "--".

    Raises:
      UsageError: also for an argument before it that is no flag.
    """
    argv = sys.argv if argv is None else argv
    end = argv.index("--") if "--" in argv else len(argv)
    if rest := parse_flags(argv[:end]):
        raise UsageError(f"{rest[0]}: expected only flags, such as --name=value")
    return argv[end + 1:]


def _our_modules() -> list[str]:
    # absl names the module of a command as the command line does; other flags belong to libraries.
    return [module for module in flags.FLAGS.flags_by_module_dict()
            if module == sys.argv[0] or module.startswith(("electra_es.", "data_prep."))]


def _help_text() -> str:
    """The docstring of the command, then its flags without those of libraries."""
    command = sys.modules["__main__"]
    # Without absl's headings, which are the paths of modules.
    return "\n".join([command.__doc__ or "", *(
        flags.FLAGS.module_help(module).split(":\n", 1)[1] for module in _our_modules())])


def command_line_flags() -> list[str]:
    """Names of the flags on the command line, and of the settings that `--set` names there."""
    by_module = flags.FLAGS.flags_by_module_dict()
    names = [flag.name for module in _our_modules() for flag in by_module[module] if flag.present]
    assignments = flags.FLAGS["set"].value if "set" in flags.FLAGS else []
    return names + [assignment.partition("=")[0] for assignment in assignments]


def refuse_unused(mode: str, used: Iterable[str]) -> None:
    """Refuses flags of the command line that have no effect.

    Args:
      mode: what the command is doing, for the message: "--serve", "a run on the sample".
      used: names of all flags that have an effect in this mode.

    Raises:
      UsageError: names the first flag without effect.
    """
    unused = [name for name in command_line_flags() if name not in used]
    if unused:
        raise UsageError(f"--{unused[0]} has no effect with {mode}: leave it out")


def refuse_flags(mode: str, unused: Iterable[str]) -> None:
    """As `refuse_unused`, for a mode in which only the flags `unused` have no effect."""
    refuse_unused(mode, set(command_line_flags()).difference(unused))


def names_of(*classes: type) -> set[str]:
    """The names of all settings of the dataclasses."""
    return {field.name for cls in classes for field in dataclasses.fields(cls)}


def required(flag: flags.FlagHolder[str], expected: str) -> str:
    """The value of a flag that is required; UsageError without it."""
    if not flag.value:
        raise UsageError(f"--{flag.name}: expected {expected}")
    return flag.value


def command_line_settings(values: flags.FlagValues, assignments: list[str]) -> dict[str, Any]:
    """Settings named on the command line: `--set` assignments, then flags.

    Raises:
      UsageError: an assignment without `=`, of an unknown setting or of a wrong value.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment[:60]}: expected key=value")
        overrides[key] = parse_value(key, text)
        check_value(key, overrides[key])
    for cls in (TextConfig, ModelConfig, PretrainingConfig):
        for field in dataclasses.fields(cls):
            if field.name in values and values[field.name].value is not None:
                overrides[field.name] = values[field.name].value
    return overrides


def load_hparams(path: str) -> dict[str, Any]:
    """Reads a flat JSON object of settings; `_`-keys are comments.

    Raises:
      UsageError: no such file, no JSON object, or an unknown setting (the nearest is named).
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.loads(file.read(_MAX_HPARAMS))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object of settings")
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    for key, value in values.items():
        try:
            check_value(key, value)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    return values


def recipes_dir() -> str:
    """The folder of the recipes: that of a checkout, or the copy that an installed package carries."""
    package = os.path.dirname(os.path.abspath(__file__))
    of_checkout = os.path.join(os.path.dirname(package), "hparams")
    return of_checkout if os.path.isdir(of_checkout) else os.path.join(package, "hparams")


def resolve(overrides: dict[str, Any], hparams: str
            ) -> tuple[ModelConfig, PretrainingConfig, dict[str, Any]]:
    """Puts defaults, model size, hparams file and the command line's settings together.

    Args:
      overrides: `command_line_settings`.
      hparams: path of an hparams file; empty: the one of the model size in `recipes_dir`.

    Returns:
      both configurations, and the text settings of the file or the command line.
    """
    if not hparams:
        size = overrides.get("model_size", "debug")
        check_size(size)
        hparams = os.path.join(
            recipes_dir(), "debug.json" if size == "debug" else f"pretrain_{size}.json")
    recipe = load_hparams(hparams)
    settings = {**recipe, **_fitted(recipe, overrides), **overrides}
    by_owner: dict[type, dict[str, Any]] = {TextConfig: {}, ModelConfig: {}, PretrainingConfig: {}}
    for key, value in settings.items():
        by_owner[owner_of(key)][key] = value
    model = model_config(by_owner[ModelConfig])
    run = from_dict(PretrainingConfig, by_owner[PretrainingConfig])
    require(run.warmup_steps <= run.num_train_steps, "warmup_steps", run.warmup_steps,
            f"at most num_train_steps={run.num_train_steps}")
    require(run.max_seq_length <= model.max_position_embeddings, "max_seq_length", run.max_seq_length,
            f"at most max_position_embeddings={model.max_position_embeddings}")
    _refuse_without_effect(overrides, {**vars(model), **vars(run)})
    return model, run, by_owner[TextConfig]


def _refuse_without_effect(overrides: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuses settings of the command line that have no effect because of other settings."""
    for key in overrides:
        field = next(field for field in dataclasses.fields(owner_of(key)) if field.name == key)
        for other, values in field.metadata["only_with"].items():
            if settings[other] not in values:
                raise UsageError(f"--{key} has no effect with {other}={settings[other]}: leave it out")


def _fitted(recipe: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The recipe's schedule, adapted if the command line has only another number of steps.

    The warm-up keeps its length, because it waits for Adam's second moment, which does not depend on
    the length of the run; but it takes at most half of the run. Restarts keep their relative place,
    and are left out if a cycle would be shorter than twice the warm-up. There are at least five
    checkpoints.
    """
    recipe = {"num_train_steps": PretrainingConfig.num_train_steps,
              "warmup_steps": PretrainingConfig.warmup_steps, **recipe}
    steps, recipe_steps = overrides.get("num_train_steps"), recipe["num_train_steps"]
    if steps in (None, recipe_steps):
        return {}
    fitted: dict[str, Any] = {}
    warmup, restarts = recipe["warmup_steps"], recipe.get("restart_steps")
    if warmup:
        fitted["warmup_steps"] = max(1, min(warmup, steps // 2))
    if restarts:
        moved = [round(step * steps / recipe_steps) for step in restarts]
        shortest = min(b - a for a, b in itertools.pairwise([0, *moved, steps]))
        fitted["restart_steps"] = moved if shortest >= 2 * warmup and shortest else []
    if "save_every" in recipe:
        fitted["save_every"] = max(1, min(recipe["save_every"], steps // 5))
    return {key: value for key, value in fitted.items() if key not in overrides}
