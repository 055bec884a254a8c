"""How a setting gets its value: default, model size, hparams file, `--set`, its own flag."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from absl import flags as absl_flags
from command_helpers import Accepted, fresh_flags, main_of, stop
from paths import HPARAMS

from electra_es import flags
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, from_dict, model_config
from electra_es.errors import UsageError
from electra_es.settings import field_type


@pytest.fixture
def parse(monkeypatch):
    """`parse("--flag=value", ...)`: fresh flags of every setting, parsed."""
    def run(*arguments):
        values = absl_flags.FlagValues()
        monkeypatch.setattr(absl_flags, "FLAGS", values)
        for name in ("DEFINE_bool", "DEFINE_integer", "DEFINE_float", "DEFINE_string"):
            define = getattr(absl_flags, name)
            monkeypatch.setattr(absl_flags, name, lambda *a, define=define, **k: define(
                *a, **{**k, "flag_values": values}))
        flags.define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
        monkeypatch.setattr("sys.argv", ["program", *arguments])
        rest = flags.parse_flags()
        return values, rest

    return run


def test_every_setting_is_a_flag_that_was_not_given(parse):
    values, rest = parse()
    for cls in (TextConfig, ModelConfig, PretrainingConfig):
        for field in dataclasses.fields(cls):
            assert field.name == "vocab_sha256" or values[field.name].value is None
    assert flags.command_line_settings(values, []) == {} and rest == []


def test_flags_have_the_types_of_their_settings(parse):
    values, rest = parse("--num_layers=7", "--mask_prob=0.2", "--nolower_case", "--objective=mlm",
                         "--restart_steps=10,20", "extra")
    assert flags.command_line_settings(values, []) == {
        "num_layers": 7, "mask_prob": 0.2, "lower_case": False, "objective": "mlm",
        "restart_steps": (10, 20)}
    assert rest == ["extra"]


@pytest.mark.parametrize("argument, message", [
    ("--num_layer=7", "num_layers"), ("--num_layers=7.5", "num_layers"),
    ("--mask_prob=x", "mask_prob")])
def test_wrong_flags_are_one_line(parse, argument, message):
    with pytest.raises(UsageError, match=message) as error:
        parse(argument)
    assert "\n" not in str(error.value)


def test_a_flag_beats_an_assignment(parse):
    values, _ = parse("--num_layers=7")
    assert flags.command_line_settings(values, ["num_layers=5", "mask_prob=0.3"]) == {
        "num_layers": 7, "mask_prob": 0.3}


def test_wrong_assignments(parse):
    values, _ = parse()
    with pytest.raises(UsageError, match="--set num_layers: expected key=value"):
        flags.command_line_settings(values, ["num_layers"])
    with pytest.raises(UsageError, match='unknown setting "layers"'):
        flags.command_line_settings(values, ["layers=3"])


def write(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_order_of_precedence(tmp_path):
    """small has H = 256 and 12 layers; the file sets 6 layers; the command line 4 heads."""
    path = write(tmp_path, json.dumps({
        "_purpose": "a comment", "model_size": "small", "num_layers": 6, "num_heads": 8,
        "learning_rate": 1e-3, "lower_case": True}))
    model, run, text = flags.resolve({"num_heads": 4}, path)
    assert (model.hidden_size, model.num_layers, model.num_heads) == (256, 6, 4)
    assert run.learning_rate == 1e-3 and run.weight_decay == 0.01
    assert text == {"lower_case": True}


@pytest.mark.parametrize("text, message", [
    ("{", "not JSON"), ("[1]", "expected a JSON object"),
    ('{"hiden_size": 3}', r'recipe.json: unknown setting "hiden_size"; did you mean "hidden_size"'),
    ('{"hidden_size": "3"}', "hidden_size='3': expected a value of type int"),
])
def test_wrong_hparams_files(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        flags.resolve({}, write(tmp_path, text))


def test_missing_hparams_file_and_unknown_size(tmp_path):
    with pytest.raises(UsageError, match="none.json: cannot be read"):
        flags.resolve({}, str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match='model_size="smal".*did you mean "small"'):
        flags.resolve({"model_size": "smal"}, "")


@pytest.mark.parametrize(("steps", "expected"), [
    (150_000, (10_000, (75_000,), 5_000)),  # the restart keeps its place, the warm-up its length
    (40_000, (10_000, (20_000,), 5_000)),
    (30_000, (10_000, (), 5_000)),  # cycles of 15,000 are less than twice the warm-up
    (3_000, (1_500, (), 600)),
    (20, (10, (), 4)),
    (1, (1, (), 1)),
])
def test_a_recipe_fits_itself_to_another_number_of_steps(steps, expected):
    """small: 300k steps, warm-up 10k, restart at 150k, a checkpoint every 5k."""
    _, run, _ = flags.resolve({"model_size": "small", "num_train_steps": steps}, "")
    assert (run.warmup_steps, run.restart_steps, run.save_every) == expected


def test_what_is_given_is_not_fitted():
    _, run, _ = flags.resolve({"model_size": "small", "num_train_steps": 40_000, "save_every": 123,
                               "warmup_steps": 7, "restart_steps": (5,)}, "")
    assert (run.warmup_steps, run.restart_steps, run.save_every) == (7, (5,), 123)


@pytest.mark.parametrize("path", sorted(HPARAMS.glob("*.json")), ids=lambda path: path.stem)
def test_recipes_are_valid_and_say_what_for(path):
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["_purpose"]
    assert f"| `{path.name}` |" in (HPARAMS / "README.md").read_text(encoding="utf-8")
    model, run, _ = flags.resolve({}, str(path))
    assert run.learning_rate == values["learning_rate"]
    assert run.max_seq_length <= model.max_position_embeddings
    if path.stem.startswith("pretrain") or path.stem == "debug":
        assert model.model_size == path.stem.removeprefix("pretrain_")


def test_recipe_of_selectra():
    """Model card: 300k steps of 128 x 512, peak 5e-4, warm-up 10k, warm restart after 150k."""
    for size in ("small", "medium"):
        model, run, _ = flags.resolve({"model_size": size}, "")
        assert model == model_config({"model_size": size})
        assert run == from_dict(PretrainingConfig, {
            **dataclasses.asdict(run), "num_train_steps": 300_000, "train_batch_size": 128,
            "max_seq_length": 512, "learning_rate": 5e-4, "warmup_steps": 10_000,
            "restart_steps": (150_000,), "weight_decay": 0.01})


@pytest.mark.parametrize("arguments, first_line, setting", [
    (["run_pretraining.py", "--help"], "Pretrains an ELECTRA.", "--learning_rate: Peak"),
    (["run_pretraining.py", "--seed=3", "-h"], "Pretrains an ELECTRA.", "--[no]strip_accents"),
    (["-m", "data_prep.build_tfrecords", "--helpfull"], "Builds a records directory from text.",
     "--max_seq_length: L: longest example"),
])
def test_help_is_what_the_command_is_for_and_its_settings(arguments, first_line, setting):
    result = subprocess.run([sys.executable, *arguments], cwd=HPARAMS.parent, text=True,
                            capture_output=True, timeout=60)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(first_line)
    assert f"python {' '.join(arguments[:-1])}".split(" --")[0] in result.stdout
    assert f"  {setting}" in result.stdout
    assert "absl" not in result.stdout and ":\n  --" not in result.stdout


PLACES = ("--data_dir=d", "--vocab_dir=v", "--model_dir=m")


@pytest.mark.parametrize(("command", "arguments", "flag", "mode"), [
    # The run on the sample.
    ("run_pretraining.py", ["--init_checkpoint=x"], "init_checkpoint",
     r"a run on the sample \(no --data_dir"),
    ("run_pretraining.py", ["--mode=train"], "mode", "a run on the sample"),
    ("run_pretraining.py", ["--tpu=local"], "tpu", "a run on the sample"),
    ("run_pretraining.py", ["--tpu_zone=z"], "tpu_zone", "a run on the sample"),
    ("run_pretraining.py", ["--gcp_project=p"], "gcp_project", "a run on the sample"),
    ("run_pretraining.py", ["--vocab_dir=v"], "vocab_dir", "a run on the sample"),
    ("run_pretraining.py", ["--model_dir=m"], "model_dir", "a run on the sample"),
    ("run_pretraining.py", ["--mode=evaluate", "--tpu=local"], "tpu", "an evaluation on the sample"),
    ("run_pretraining.py", ["--mode=evaluate", "--save_every=3"], "save_every", "an evaluation on"),
    # A run of one's own.
    ("run_pretraining.py", [*PLACES, "--sample_dir=s"], "sample_dir", "--data_dir"),
    ("run_pretraining.py", [*PLACES, "--tpu_zone=z"], "tpu_zone", "no --tpu"),
    ("run_pretraining.py", [*PLACES, "--tpu=local", "--gcp_project=p"], "gcp_project", "--tpu=local"),
    ("run_pretraining.py", [*PLACES, "--tpu=grpc://h:1", "--tpu_zone=z"], "tpu_zone", "--tpu=grpc"),
    ("run_pretraining.py", [*PLACES, "--mode=evaluate", "--learning_rate=1e-3"], "learning_rate",
     "--mode=evaluate"),
    ("run_pretraining.py", [*PLACES, "--mode=evaluate", "--set", "keep_every=5"], "keep_every",
     "--mode=evaluate"),
    ("run_pretraining.py", [*PLACES, "--mode=evaluate", "--init_checkpoint=x"], "init_checkpoint",
     "--mode=evaluate"),
    ("run_pretraining.py", ["--print_schedule", "--data_dir=d"], "data_dir", "--print_schedule"),
    ("run_pretraining.py", ["--print_schedule", "--mode=train"], "mode", "--print_schedule"),
    ("run_pretraining.py", ["--print_schedule", "--set=hidden_size=4"], "hidden_size",
     "--print_schedule"),
    ("electra_es.preflight.__main__", ["--log_every=3"], "log_every", "preflight"),
    ("electra_es.preflight.__main__", ["--set", "lower_case=1"], "lower_case", "preflight"),
    ("electra_es.detect.__main__", ["--model=m", "--port=80", "Hola."], "port", "no --serve"),
    ("electra_es.detect.__main__", ["--model=m", "--host=h", "--input=-"], "host", "no --serve"),
    ("electra_es.detect.__main__", ["--model=m", "--serve", "--json"], "json", "--serve"),
    ("electra_es.export.huggingface.__main__", ["--import_from=i", "--output=o", "--watts=3"], "watts",
     "--import_from"),
    ("electra_es.export.huggingface.__main__", ["--import_from=i", "--output=o", "--name=n"], "name",
     "--import_from"),
    ("electra_es.export.huggingface.__main__", ["--model_dir=m", "--output=o", "--import_generator=g"],
     "import_generator", "--model_dir"),
    ("electra_es.export.huggingface.__main__", ["--model_dir=m", "--output=o", "--private"], "private",
     "no --push_to_hub"),
    ("data_prep.audit_vocabulary", ["--vocab_dir=v", "--max_unseen=3"], "max_unseen", "no --records"),
    ("data_prep.audit_vocabulary", ["--vocab_dir=v", "--min_count=3"], "min_count", "no --records"),
    ("data_prep.audit_vocabulary", ["--vocab_dir=v", "--overwrite"], "overwrite", "no --output"),
    ("data_prep.download_corpus", ["--corpus=culturax", "--repo=a/b", "--output=o"], "repo", "--corpus"),
    ("data_prep.count_words", ["--input=i", "--output=o", "--runner=FlinkRunner", "--workers=2"],
     "workers", "--runner=FlinkRunner"),
    ("data_prep.train_vocabulary", ["--counts=c", "--output=o", "--workers=2"], "workers", "--counts"),
    ("data_prep.train_vocabulary", ["--counts=c", "--output=o", "--sample_fraction=0.5"],
     "sample_fraction", "--counts"),
    ("data_prep.train_vocabulary", ["--input=i", "--output=o", "--model_type=bpe"], "model_type",
     "--tokenizer=wordpiece"),
    ("data_prep.train_vocabulary", ["--from_vocab=v", "--output=o", "--vocab_size=90"], "vocab_size",
     "--from_vocab"),
    ("data_prep.build_tfrecords", ["--near_duplicate_threshold=0.8"], "near_duplicate_threshold",
     "--dedup=none"),
    ("data_prep.build_tfrecords", ["--scheme=original", "--packing=documents"], "packing",
     "--scheme=original"),
    ("data_prep.build_tfrecords", ["--language_detector=none"], "language_detector", "no --language"),
    ("data_prep.build_tfrecords", ["--runner=FlinkRunner", "--workers=2"], "workers", "--runner=Flink"),
    ("data_prep.build_tfrecords", ["--runner=DirectRunner", "--work_dir=w"], "work_dir", "--runner=Dir"),
])
def test_a_flag_without_effect_is_refused(command, arguments, flag, mode, monkeypatch):
    if command == "data_prep.build_tfrecords":
        arguments = ["--input=i", "--vocab_dir=v", "--output=o", *arguments]
    fresh_flags(monkeypatch, command, arguments)
    with pytest.raises(UsageError, match=f"^--{flag} has no effect with {mode}.*: leave it out$"):
        main_of(command)()


@pytest.mark.parametrize("arguments", [
    ["--mode=evaluate", "--eval_batch_size=7", "--hidden_size=24", "--num_heads=3", "--seed=3",
     "--vocab_size=600", "--distribution=cpu"],
    [*PLACES, "--mode=evaluate", "--eval_examples=7", "--tpu=local", "--precision=bfloat16"],
    [*PLACES, "--mode=train", "--tpu=node", "--tpu_zone=z", "--gcp_project=p", "--init_checkpoint=x",
     "--learning_rate=1e-3"],
    ["--print_schedule", "--model_size=small", "--num_train_steps=100", "--set", "warmup_steps=10"],
    ["--save_every=3", "--sample_dir=s"],
])
def test_flags_with_an_effect_are_not_refused(arguments, monkeypatch):
    fresh_flags(monkeypatch, "run_pretraining.py", arguments)
    main = main_of("run_pretraining.py")
    monkeypatch.setitem(main.__globals__, "resolve", stop)  # what comes after the refusals
    monkeypatch.setitem(main.__globals__, "_evaluate", stop)  # needs no run to evaluate
    with pytest.raises(Accepted):
        main()


def test_evaluation_without_data_is_of_the_run_on_the_sample(monkeypatch, tmp_path):
    fresh_flags(monkeypatch, "run_pretraining.py", ["--mode=evaluate", f"--sample_dir={tmp_path}"])
    with pytest.raises(UsageError, match=f"--sample_dir={tmp_path}: no run on the sample is there"):
        main_of("run_pretraining.py")()


@pytest.mark.parametrize(("overrides", "message"), [
    (dict(lr_decay_power=2.0, lr_schedule="cosine"),
     "--lr_decay_power has no effect with lr_schedule=cosine"),
    (dict(cpu_replicas=2, distribution="gpu"), "--cpu_replicas has no effect with distribution=gpu"),
    (dict(generator_width=0.5, objective="mlm"), "--generator_width has no effect with objective=mlm"),
    (dict(generator_heads=2, generator_kind="shared"),
     "--generator_heads has no effect with generator_kind=shared"),
    (dict(temperature=2.0, generator_kind="uniform"),
     "--temperature has no effect with generator_kind=uniform"),
    (dict(discriminator_weight=2.0, objective="mlm"),
     "--discriminator_weight has no effect with objective=mlm"),
])
def test_a_setting_that_others_leave_without_effect_is_refused(overrides, message):
    with pytest.raises(UsageError, match=f"{message}: leave it out"):
        flags.resolve(overrides, "")


def test_what_a_recipe_says_without_effect_is_not_refused(tmp_path):
    """The recipe of debug has a temperature, which mlm does not sample with."""
    model, _, _ = flags.resolve({"objective": "mlm"}, "")
    assert (model.objective, model.temperature) == ("mlm", 2.0)


def test_only_with_names_choices_of_settings():
    for cls in (ModelConfig, PretrainingConfig):
        for field in dataclasses.fields(cls):
            for other, values in field.metadata["only_with"].items():
                assert set(values) < set(typing.get_args(field_type(cls, other)))
