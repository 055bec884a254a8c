"""The step compiles for a TPU that this machine does not have. Skipped if libtpu is not installed."""

import re
import subprocess
import sys

import pytest
from engine_helpers import MODEL
from paths import ROOT

from electra_es.config import PretrainingConfig
from electra_es.errors import CheckFailed
from electra_es.preflight.cycles import count_cycles
from electra_es.preflight.stablehlo import as_on_tpu


def preflight(*flags: str) -> subprocess.CompletedProcess:
    """In a separate process, because libtpu changes signal handlers and other settings."""
    return subprocess.run([sys.executable, "-m", "electra_es.preflight", *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)


def test_debug_size_fits_on_v2():
    pytest.importorskip("libtpu", reason="libtpu is not installed (requirements-preflight.txt)")
    shape = [f"--{name}={value}" for name, value in MODEL.items()]
    done = preflight("--topology=v2-8", "--train_batch_size=24", "--max_seq_length=13",
                     "--vocab_size=61", *shape)
    assert done.returncode == 0, done.stderr
    assert "24 x 13 tokens, 3 examples per device, 8 devices" in done.stdout
    assert "it fits" in done.stdout
    peak = float(re.search(r"memory per device +([\d.]+) GB of 8 GB", done.stdout)[1])
    assert 0 < peak < 1


def test_one_block_on_v5e():
    """Whose random bits want a seed of two words."""
    pytest.importorskip("libtpu", reason="libtpu is not installed (requirements-preflight.txt)")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tpu_block", "--model_size=debug", "--topologies=v5e-8",
         "--precisions=bfloat16", "--train_batch_size=24", "--max_seq_length=128"],
        cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1].split()
    assert row[:2] == ["v5e-8", "bfloat16"]
    total, attention, feed_forward, rest = map(float, row[2:6])
    assert min(attention, feed_forward, rest) > 0  # the patterns of parts fit the names of operations
    assert 0 < total == pytest.approx(attention + feed_forward + rest, abs=0.02)


def test_unknown_topology():
    done = preflight("--topology=v2-9")
    assert done.returncode == 2
    assert '--topology=v2-9: expected one of v2-8, ' in done.stderr
    assert 'did you mean "v2-8"?' in done.stderr and "Traceback" not in done.stderr


PROGRAM = """HloModule step
%body.4 (p: (f32[2])) -> (f32[2]) {
  %f.9 = f32[2] fusion(%p), metadata={op_name="generator_predictions/x"}, c={"estimated_cycles":"30"}
  %rng-bit-generator.2 = u32[8] rng-bit-generator(%p), algorithm=rng_default
}

ENTRY %main.0 (p.1: f32[2]) -> f32[2] {
  %f.1 = f32[2] fusion(%p.1), metadata={op_name="layer_3/attention/x"}, c={"estimated_cycles":"7"}
  %copy.5 = f32[2] copy(%p.1), c={"estimated_cycles":"4"}
  %w.8 = (f32[2]) while(%copy.5), body=%body.4, c={"known_trip_count":{"n":"5"}}
  %sort.2 = (f32[2]) sort(%copy.5), dimensions={0}
  ROOT %add.1 = f32[2] add(%copy.5, %copy.5)
}
"""


def test_cycles_by_part():
    """Added by hand; the body of the loop runs five times."""
    cycles = count_cycles(PROGRAM)
    parts = {name: n for name, n in cycles.parts.items() if n}
    assert parts == {"attention": 7, "MLM head and sampling": 150, "the rest": 4}
    assert cycles.total == 161
    assert cycles.uncounted == {"rng-bit-generator": 5, "sort": 1}


def test_random_bits_are_those_of_a_tpu():
    cpu = ("  %s, %1 = stablehlo.rng_bit_generator %0, algorithm = PHILOX : (tensor<3xui64>)"
           " -> (tensor<3xui64>, tensor<8xui32>)\n  %3 = mhlo.copy %1 : tensor<8xui32>")
    assert as_on_tpu(cpu) == (
        "  %seed_0 = stablehlo.slice %0 [0:2] : (tensor<3xui64>) -> tensor<2xui64>\n"
        "  %state_0, %1 = stablehlo.rng_bit_generator %seed_0, algorithm = DEFAULT : (tensor<2xui64>)"
        " -> (tensor<2xui64>, tensor<8xui32>)\n"
        "  %s = stablehlo.optimization_barrier %0 : tensor<3xui64>\n"
        "  %3 = stablehlo.optimization_barrier %1 : tensor<8xui32>")
    with pytest.raises(CheckFailed, match="Philox"):
        as_on_tpu("something_new algorithm = PHILOX")


def test_a_program_that_cannot_be_read_has_no_cycles():
    """As that of the whole step for v6e: everything else is reported."""
    from electra_es.preflight.__main__ import report_lines
    from electra_es.preflight.compiler import SLICES, Compiled, cycles_of

    class Unreadable:
        def hlo_modules(self):
            raise RuntimeError("INTERNAL: RET_CHECK failure")

    compiled = Compiled(10**9, 10**9, 10**8, 8e11, 2e10, cycles_of(Unreadable()))
    lines = report_lines(compiled, SLICES["v6e-8"], PretrainingConfig(train_batch_size=128), 23_000_000)
    assert "compiler's cycles  not known" in "\n".join(lines)
    assert re.fullmatch(r"the schedule .* steps: [\d.]+ h at the peak rates; .*", lines[-1])
