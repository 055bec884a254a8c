"""Every setting has a range: its limits are accepted, values just outside are refused in one line.

In process: a command is run with fresh flags up to the point where it would begin its work.
"""

import dataclasses
import importlib
import json
import math
import re
import typing

import pytest
from absl import flags as absl_flags
from command_helpers import COMMANDS, Accepted, fresh_flags, main_of, stop

import electra_es.config
from data_prep.build.settings import BuildConfig
from electra_es import flags
from electra_es.config import (
    CONFIG_CLASSES,
    EVALUATION_SETTINGS,
    SCHEDULE_SETTINGS,
    PretrainingConfig,
    from_dict,
)
from electra_es.errors import UsageError, run_main
from electra_es.settings import PATH, PATHS, REPOSITORY, Range, Text

REQUIRED = {BuildConfig: dict(input="corpus", vocab_dir="vocabulary", output="records")}
# What else has to change for an end of a range, as the settings depend on each other.
NEEDED_WITH = {
    ("hidden_size", 1): dict(num_heads=1), ("num_heads", 256): dict(hidden_size=256),
    ("accumulation_steps", 2**20): dict(train_batch_size=2**20),
    ("generator_heads", 256): dict(hidden_size=1024),
    ("generator_width", 4.0): dict(num_heads=1),
    ("restart_steps", 2**24): None,  # never below num_train_steps
    ("min_language_probability", 1): dict(language="es")}


@pytest.fixture(scope="module")
def flags_of():
    """`flags_of(name)`: the flags that a command defines, by name."""
    found: dict[str, dict[str, absl_flags.Flag]] = {}

    def collect(name: str) -> dict[str, absl_flags.Flag]:
        if name not in found:
            with pytest.MonkeyPatch.context() as patch:
                values = fresh_flags(patch, name)
                # Imported first: a module would keep what stands for the functions here.
                module_main = main_of(name)
                # Every command parses its flags once they are all defined.
                patch.setattr(flags, "parse_flags", stop)
                patch.setattr(flags, "parse_flags_only", stop)
                with pytest.raises(Accepted):
                    for parse in ("parse_flags", "parse_flags_only", "parse_flags_before_dashes"):
                        if parse in module_main.__globals__:
                            patch.setitem(module_main.__globals__, parse, stop)
                    module_main()
                found[name] = {flag: values[flag] for flag in values}
        return found[name]

    return collect


def ends(numbers: Range, kind: type) -> tuple[list[float], list[float]]:
    """Accepted values at the limits of a range, and the next values, which are refused."""
    inside, outside = [], []
    for end, belongs, sign in ((numbers.low, True, -1), (numbers.above, False, -1),
                               (numbers.high, True, 1), (numbers.below, False, 1)):
        if end is None:
            continue
        if kind is float:
            # The next number of float32, as which the value is used, or the one after that.
            step = abs(end) * 2.0**-22 or 2.0**-126
            neighbours = end - sign * step, end + sign * step
            end = float(end)
        else:
            neighbours = end - sign, end + sign
        inside.append(end if belongs else neighbours[0])
        outside.append(neighbours[1] if belongs else end)
    return inside, outside


def number_fields(kind: type):
    for cls in (*CONFIG_CLASSES, BuildConfig):
        for field in dataclasses.fields(cls):
            hint = typing.get_type_hints(cls)[field.name]
            if hint == kind or (kind is int and hint == tuple[int, ...]):
                yield pytest.param(cls, field.name, hint, id=f"{cls.__name__}-{field.name}")


def build(cls, name, value):
    others = NEEDED_WITH.get((name, value), {})
    if cls is PretrainingConfig and name == "train_batch_size":
        others = dict(eval_batch_size=value)
    return cls(**{**REQUIRED.get(cls, {}), **others, name: value})


@pytest.mark.parametrize(("cls", "name", "hint"), [*number_fields(int), *number_fields(float)])
def test_a_configuration_takes_the_ends_of_each_range_and_nothing_beside_them(cls, name, hint):
    accepts = cls.__dataclass_fields__[name].metadata["accepts"]
    assert isinstance(accepts, Range) and accepts.why, "has no range with a reason"
    kind = float if hint is float else int
    inside, outside = ends(accepts, kind)
    assert len(inside) == len(outside) == 2
    for value in inside:
        if NEEDED_WITH.get((name, value), {}) is None:
            continue
        setting = (value,) if hint not in (int, float) else value
        assert getattr(build(cls, name, setting), name) == setting
    outside += [] if kind is int else [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-320, 10**400]
    for value in [*outside, 2**31, -2**31 - 1, 2**64, 10**30]:
        setting = (value,) if hint not in (int, float) else value
        if kind is int and accepts.holds(value):
            continue
        with pytest.raises(UsageError) as error:
            build(cls, name, setting)
        assert str(error.value).startswith(f"{name}=") and "\n" not in str(error.value)
        assert str(accepts) in str(error.value)
        assert repr(value)[:40] in str(error.value)


def test_every_setting_of_text_has_its_texts():
    for cls in (*CONFIG_CLASSES, BuildConfig):
        for name, hint in typing.get_type_hints(cls).items():
            if hint is str:
                assert isinstance(cls.__dataclass_fields__[name].metadata["accepts"], Text), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_takes_the_ends_of_its_range_and_nothing_beside(
        name, flags_of):
    defined = flags_of(name)
    ours = {flag for flag in defined.values() if hasattr(flag, "accepts")}
    assert ours, "defines no flag"
    for flag in ours:
        if flag.kind in (int, float):
            assert isinstance(flag.accepts, Range), flag.name
            inside, outside = ends(flag.accepts, flag.kind)
            outside += ["nan", "1e-320"] if flag.kind is float else [2**64, "x", "1.5", "9" * 5000]
        elif flag.kind is str and isinstance(flag.accepts, Text):
            inside, outside = [], ["", "-", "--seed=3", "a\0b", "a\nb", "x" * 2001]
        else:
            continue
        for value in inside:
            flag.parse(str(value))
        for value in outside:
            if flag.name == "input" and value == "-" and "detect" in name:
                continue
            with pytest.raises(UsageError) as error:
                flag.parse(str(value))
            assert str(error.value).startswith(f"--{flag.name}=")
            assert len(str(error.value)) < 400 and "\n" not in str(error.value)
            assert "expected" in str(error.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_says_what_it_takes(name, flags_of):
    """All commands define flags with `define`, which checks values."""
    library = {"help", "helpfull", "helpshort", "helpxml", "flagfile", "undefok"}
    for flag in flags_of(name).values():
        if flag.name in library or flag.boolean or isinstance(flag, absl_flags.MultiFlag):
            continue  # a command checks the texts of a repeated flag together, as those of --set
        assert hasattr(flag, "accepts"), f"--{flag.name} is not defined by flags.define"
        choice = typing.get_origin(flag.kind) is typing.Literal or flag.help.startswith("<")
        assert flag.accepts is not None or choice, f"--{flag.name} takes anything"


@pytest.mark.parametrize("text", ["a", "runs/x", "/tmp/a b", "gs://bucket", "gs://bucket/a", "a~", "ñ/ü",
                                  "file:///tmp/a", "hdfs://host/a", "./-a", "../x"])
def test_paths(text):
    assert PATH.holds(text) and PATHS.holds(text) and PATHS.holds(f"{text}, other,")


@pytest.mark.parametrize("text", ["", " ", "-", "--", "--seed=3", "gs://", "gs:///a", "s3://", "~", "~/a",
                                  "a\0b", "a\nb", "a/" + "b" * 201, "a/" * 1200])
def test_what_is_no_path(text):
    assert not PATH.holds(text) and not PATHS.holds(text)
    assert not text or not PATHS.holds(f"good,{text}") or not text.strip()


def test_repositories():
    assert REPOSITORY.holds("me/electra-es.1")
    assert not any(map(REPOSITORY.holds, ["me", "me/", "/x", "me/a/b", "-a/b", "a b/c", ""]))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_both_ends_of_the_seed_work_everywhere(seed):
    import tf_keras

    from electra_es.model.randomness import derive_key, fold_in, stateless_seed

    tf_keras.utils.set_random_seed(seed)
    key = derive_key(seed, "masking")
    assert 0 <= key.high < 2**32 and 0 <= key.low < 2**32
    assert stateless_seed(fold_in(key, 1), 2).shape == (2,)


@pytest.mark.parametrize(("values", "message"), [
    ({"hidden_size": 2**31}, "hidden_size=2147483648: expected a positive number, up to 16,384"),
    ({"restart_steps": 5}, "restart_steps=5: expected whole numbers"),
    ({"warmup_steps": "a"}, "warmup_steps='a': expected a value of type int"),
    ({"learning_rate": float("nan")}, "learning_rate=nan: expected a number"),
    ({"generator_weight": 10**400}, "generator_weight=1000.*: expected"),
    ({"model_size": ["small"]}, "model_size=('small',): expected one of"),
])
@pytest.mark.parametrize("source", ["hparams", "config.json"])
def test_files_go_through_the_same_check(tmp_path, values, message, source):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(values))
    (key,) = values
    with pytest.raises(UsageError) as error:
        if source == "hparams":
            # Fitting the schedule comes after the check.
            flags.resolve({"num_train_steps": 40}, str(path))
        else:
            from_dict(electra_es.config.owner_of(key), json.loads(path.read_text()))
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), str(error.value))


@pytest.mark.parametrize("text", [
    "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"seed": ' + "9" * 5000, ""])
def test_an_hparams_file_of_any_kind_is_one_line(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.json: (not JSON|expected a JSON object)"):
        flags.load_hparams(str(path))


def test_an_endless_file_is_no_hparams_file():
    with pytest.raises(UsageError, match="/dev/zero: not JSON"):
        flags.load_hparams("/dev/zero")


@pytest.mark.parametrize(("overrides", "message"), [
    ({"warmup_steps": 101, "num_train_steps": 100},
     "warmup_steps=101: expected at most num_train_steps=100"),
    ({"max_seq_length": 129}, "max_seq_length=129: expected at most max_position_embeddings=128"),
])
def test_relations_between_settings(overrides, message):
    with pytest.raises(UsageError, match=message):
        flags.resolve(overrides, "")


def test_a_file_without_a_warm_up_gets_one_that_fits(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"num_layers": 2}')
    _, run, _ = flags.resolve({"num_train_steps": 40}, str(path))
    assert run.warmup_steps == 20


# What no flag of run_pretraining.py takes, by the type of the flag.
BAD = {
    int: ["-1", "-2147483649", "99999999999999999999999", "9" * 5000, "1.5", "1e3", "x", "", "nan", "0x"],
    float: ["-1", "1e300", "-1e300", "1e-320", "nan", "inf", "-inf", "9" * 400, "x", "", "1,5"],
    str: ["", "-", "--", "a\0b", "a\nb", "x" * 3000],
    bool: ["maybe", "2", "-1"],
    tuple[int, ...]: ["-5", "0", "99999999999999999999999", "5,x", "1.5", "10,5", "5,5"]}


def test_hundreds_of_bad_values_over_all_flags_of_run_pretraining_are_all_one_line(
        monkeypatch, flags_of):
    """Each must be a UsageError; none may end in a traceback, hang or start a run."""
    for module, name in (("data_prep.sample_records", "prepare_sample"),
                         ("electra_es.training.train", "train")):
        monkeypatch.setattr(importlib.import_module(module), name, stop)
    values = fresh_flags(monkeypatch, "run_pretraining.py")
    run = main_of("run_pretraining.py")
    tried, wrong = 0, []
    for flag in flags_of("run_pretraining.py").values():
        if flag.name in ("help", "helpfull", "helpshort", "helpxml", "flagfile", "undefok", "set"):
            continue
        kind = bool if flag.boolean else flag.kind
        is_config = any(flag.name in cls.__dataclass_fields__ for cls in CONFIG_CLASSES)
        for value in BAD.get(kind, BAD[str]):
            ways = [[f"--{flag.name}={value}"]]
            if is_config:
                ways.append(["--set", f"{flag.name}={value}"])
            for way in ways:
                if kind == tuple[int, ...] and value == "":
                    continue
                tried += 1
                values.unparse_flags()
                monkeypatch.setattr("sys.argv", ["run_pretraining.py", *way])
                try:
                    run()
                    wrong.append((way, "no error"))
                except UsageError as error:
                    if "\n" in str(error) or len(str(error)) > 500 or flag.name not in str(error):
                        wrong.append((way, str(error)[:300]))
                except BaseException as error:
                    wrong.append((way, repr(error)[:200]))
    assert not wrong
    assert tried > 500


@pytest.mark.parametrize("names", [EVALUATION_SETTINGS, SCHEDULE_SETTINGS])
def test_lists_of_settings_name_settings(names):
    assert names <= {field.name for field in dataclasses.fields(PretrainingConfig)}


def test_a_model_or_a_batch_that_no_machine_holds_is_refused_before_anything_is_built(
        monkeypatch, tmp_path):
    def command(*arguments):
        fresh_flags(monkeypatch, "run_pretraining.py", [f"--sample_dir={tmp_path}", *arguments])
        main_of("run_pretraining.py")()

    monkeypatch.setattr("data_prep.sample_records.prepare_sample", stop)
    with pytest.raises(UsageError, match="training takes at least .* this machine has"):
        command("--hidden_size=16384", "--num_heads=256",
                "--num_layers=128", "--intermediate_size=65536")
    with pytest.raises(UsageError, match="train_batch_size=1048576, .*: a step takes at least"):
        command("--train_batch_size=1048576", "--distribution=cpu")
    with pytest.raises(Accepted):
        command()


@pytest.mark.parametrize("error", [MemoryError(), "ResourceExhaustedError"])
def test_out_of_memory_is_one_line(error, monkeypatch, capsys):
    import tensorflow as tf

    if isinstance(error, str):
        error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n[1024,1024]")

    def fail():
        raise error

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("gc.freeze", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run_main(fail)
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.count("\n") == 1 and "out of memory" in printed
