"""What is installed: all packages and their files, and every command by its name."""

import ast
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile

import pytest
from command_helpers import fresh_flags
from paths import ROOT

from electra_es import cli

SOURCES = {"electra_es": "electra_es", "data_prep": "data_prep", "electra_es/hparams": "hparams"}


def files_of_the_tree() -> set[str]:
    """The files of the packages, by their path in a wheel."""
    found = {"run_pretraining.py"}
    for target, source in SOURCES.items():
        found |= {f"{target}/{path.relative_to(ROOT / source).as_posix()}"
                  for path in (ROOT / source).rglob("*")
                  if path.is_file() and "__pycache__" not in path.parts}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Of a copy: a build leaves folders behind in its source, and takes up what lies in them."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("electra_es", "data_prep", "hparams"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "run_pretraining.py"):
        shutil.copy(ROOT / name, folder)
    # Setuptools is here already; a test downloads nothing.
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--wheel-dir", folder / "dist", folder],
                   check=True, timeout=300)
    path, = (folder / "dist").glob("electra_es-*.whl")
    return zipfile.ZipFile(path)


def test_packages_of_pyproject_are_those_of_the_tree():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {pathlib.PurePosixPath(path).parent for path in files_of_the_tree() if path.endswith(".py")}
    packages = {".".join(folder.parts) for folder in folders if folder.parts}
    assert settings["tool"]["setuptools"]["packages"] == sorted(
        packages | {"electra_es.hparams", "electra_es.hparams.tasks"})


def test_every_folder_with_modules_is_a_package():
    """Tools that read the tree, such as grimp, pass over a folder without `__init__.py`."""
    tree = files_of_the_tree()
    folders = {path.rpartition("/")[0] for path in tree if path.endswith(".py")} - {""}
    assert {f"{folder}/__init__.py" for folder in folders} <= tree


def test_no_rule_of_gitignore_hides_a_file_of_the_packages():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "--others", "--ignored", "--exclude-standard",
                             *SOURCES.values()], cwd=ROOT, check=True, capture_output=True, text=True)
    hidden = listed.stdout.split()
    assert [path for path in hidden if "__pycache__" not in path] == []


def test_the_wheel_has_every_file(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == files_of_the_tree()
    for some in ("electra_es/hparams/pretrain_small.json", "electra_es/sample/train/cuentos.txt",
                 "electra_es/detect/static/index.html", "electra_es/monitoring/templates/report.html",
                 "electra_es/export/model_card/templates/card.md", "electra_es/py.typed",
                 "data_prep/py.typed"):
        assert some in files


def test_the_wheel_has_the_command(wheel):
    path, = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "electra-es = electra_es.cli:main" in wheel.read(path).decode().splitlines()


# Other tests of this process have imported some of the modules; `electra-es` never has.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_answers_help(name, monkeypatch, capsys):
    fresh_flags(monkeypatch, "electra-es", [name, "--help"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    signal.signal(signal.SIGTERM, before)
    assert ended.value.code in (0, None)
    module = cli.COMMANDS[name].module
    answer, first_line = capsys.readouterr().out, docstring(module).splitlines()[0]
    assert answer.startswith(first_line) and len(answer) > len(first_line)


@pytest.mark.parametrize("arguments", [[], ["pretrain", "--help"]])
def test_a_reader_that_leaves_is_no_error(arguments):
    """As in `electra-es pretrain --help | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "electra_es.cli", *arguments], cwd=ROOT, stdout=writer,
                          stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def docstring(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_every_module_that_is_a_command_has_a_name():
    """A module ends with `run_main(main)` if `python -m` runs it."""
    found = set()
    for path in files_of_the_tree():
        source = SOURCES.get(path.split("/")[0], "")
        if path.endswith(".py") and source:
            text = (ROOT / path).read_text(encoding="utf-8")
            if 'if __name__ == "__main__":' in text:
                found.add(path.removesuffix(".py").removesuffix("/__main__").replace("/", "."))
    assert found - {"electra_es.cli"} == {command.module for command in cli.COMMANDS.values()} - {
        "run_pretraining"}


@pytest.mark.parametrize("extra", ["gcs", "data", "hub", "onnx", "preflight"])
def test_an_extra_and_its_requirements_file_name_the_same_packages(extra):
    """Of `pip install '.[data]'` and `pip install -r requirements-data.txt` both have to be enough."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def of_extra(name: str) -> set[str]:
        found = set()
        for line in project["optional-dependencies"][name]:
            inner = re.fullmatch(r"electra-es\[(\w+)\]", line)
            found |= of_extra(inner[1]) if inner else {re.split(r"[<>=]", line)[0]}
        return {name.replace("_", "-") for name in found}

    def of_file(name: str) -> set[str]:
        found = set()
        for line in (ROOT / name).read_text().splitlines():
            inner = re.match(r"-r (\S+)", line)
            if inner and inner[1] != "requirements.txt":
                found |= of_file(inner[1])
            elif line and line[0] not in "#-":
                found.add(re.split(r"[<>= #]", line)[0].replace("_", "-"))
        return found

    pinned = {"fsspec", "google-cloud-core"}  # what gcsfs needs, in a version that works
    assert of_file(f"requirements-{extra}.txt") - pinned == of_extra(extra)
