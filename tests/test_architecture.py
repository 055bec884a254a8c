"""The arrows of docs/architecture.md: which package may import which, and that no modules import
each other. Imports inside functions count too."""

import itertools

import grimp
import pytest

# From the top down: a package may import those of later lines, and none of its own line.
LAYERS = [
    ("electra_es.demo", "electra_es.preflight", "electra_es.cli", "electra_es.devices"),
    ("electra_es.detect",),
    ("electra_es.export",),
    ("electra_es.training",),
    ("electra_es.monitoring", "electra_es.data"),
    ("electra_es.model",),
    ("electra_es.text",),
    ("electra_es.run_config", "electra_es.flags"),
    ("electra_es.config",),
    ("electra_es.settings", "electra_es.files", "electra_es.durations", "electra_es.hardware",
     "electra_es.sample"),
    ("electra_es.chips", "electra_es.remote"),
    ("electra_es.errors",),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("electra_es", "data_prep", cache_dir=None)


def test_every_package_has_a_layer(graph):
    assert set(graph.find_children("electra_es")) == {name for layer in LAYERS for name in layer}


def test_arrows_go_down(graph):
    upward = graph.find_illegal_dependencies_for_layers(
        layers=[grimp.Layer(*layer, independent=True) for layer in LAYERS])
    assert not upward, "\n".join(f"{found.importer} imports {found.imported}" for found in upward)


def test_the_library_does_not_know_data_preparation(graph):
    assert not graph.find_shortest_chains(importer="electra_es", imported="data_prep")


def test_no_modules_import_each_other(graph):
    """Nor in a circle of three or more."""
    cycles = []
    for module, other in itertools.permutations(sorted(graph.modules), 2):
        if module < other and graph.chain_exists(module, other) and graph.chain_exists(other, module):
            cycles.append((module, other))
    assert not cycles
