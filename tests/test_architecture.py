"""The arrows of docs/architecture.md: which package may import which, and that no modules import
each other. Imports inside functions count too; those for type checkers only do not.

`__main__.py` of a package is a command: it stands above everything, so its imports are not arrows of
its package."""

import itertools
import re

import grimp
import pytest
from paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# From the top down: a package may import those of later lines, and none of its own line.
# docs/architecture.md has the same list.
LAYERS = [
    ("electra_es.demo", "electra_es.preflight", "electra_es.cli", "electra_es.devices",
     "electra_es.exam"),
    ("electra_es.zero_shot",),
    ("electra_es.detect", "electra_es.finetuning"),
    ("electra_es.export",),
    ("electra_es.training",),
    ("electra_es.monitoring", "electra_es.data"),
    ("electra_es.minimal_pairs",),
    ("electra_es.model",),
    ("electra_es.text",),
    ("electra_es.run_config", "electra_es.flags"),
    ("electra_es.config",),
    ("electra_es.settings", "electra_es.files", "electra_es.durations", "electra_es.hardware",
     "electra_es.sample"),
    ("electra_es.chips", "electra_es.remote"),
    ("electra_es.errors",),
]


def build() -> grimp.ImportGraph:
    return grimp.build_graph("electra_es", "data_prep", cache_dir=None,
                             exclude_type_checking_imports=True)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return build()


def test_nothing_imports_a_command(graph):
    imported = {name: graph.find_modules_that_directly_import(name)
                for name in graph.modules if name.endswith(".__main__")}
    assert len(imported) > 4 and not any(imported.values())


def test_every_package_has_a_layer(graph):
    assert set(graph.find_children("electra_es")) == {name for layer in LAYERS for name in layer}


def test_arrows_go_down():
    graph = build()
    for command in [name for name in graph.modules if name.endswith(".__main__")]:
        graph.remove_module(command)
    upward = graph.find_illegal_dependencies_for_layers(
        layers=[grimp.Layer(*layer, independent=True) for layer in LAYERS])
    assert not upward, "\n".join(f"{found.importer} imports {found.imported}" for found in upward)


def test_the_library_does_not_know_data_preparation(graph):
    assert not graph.find_shortest_chains(importer="electra_es", imported="data_prep")


def test_no_modules_import_each_other(graph):
    """Circles of three or more modules are not allowed either."""
    cycles = []
    for module, other in itertools.permutations(sorted(graph.modules), 2):
        if module < other and graph.chain_exists(module, other) and graph.chain_exists(other, module):
            cycles.append((module, other))
    assert not cycles


def test_the_page_has_the_same_layers():
    table = PAGE.split("## Who imports whom")[1].split("## The tree")[0]
    rows = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [{f"electra_es.{name}" for name in re.findall(r"`(\w+)`", row)} for row in rows] == [
        set(layer) for layer in LAYERS]


def test_the_page_has_a_line_for_every_module():
    """Empty `__init__.py` files need none, nor does a package that is data."""
    tree = PAGE.split("## The tree")[1].split("```")[1]
    listed, folder = set(), ""
    for line in tree.splitlines():
        if re.fullmatch(r"\S+/", line):
            folder = line
        elif found := re.match(r" {2}(\S+\.py) ", line):
            listed.add(folder + found[1])
    modules = {path.relative_to(ROOT).as_posix() for package in ("electra_es", "data_prep")
               for path in (ROOT / package).rglob("*.py")}
    trivial = {path for path in modules if path.endswith("__init__.py")
               and len((ROOT / path).read_text().splitlines()) < 8}
    assert listed == modules - trivial


def test_documents_name_files_that_are_there():
    folders = ("electra_es", "data_prep", "benchmarks", "tests")
    files = [f"/{path.relative_to(ROOT).as_posix()}" for path in [
        *ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.*"))]]
    files.append("/build_pretraining_dataset.py")  # the original's
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("hparams/*.md"),
             *ROOT.glob("tests/*/*.md")]
    wrong = {(page.name, name) for page in pages
             for name in re.findall(r"`([\w/]+\.(?:py|sh))(?:::[^`]*)?`", page.read_text("utf-8"))
             if not any(path.endswith(f"/{name}") for path in files)}
    assert not wrong
