"""The benchmark of meta-training measures every section, and what it compares takes turns."""

import math

import pytest

from recipes import benchmark_meta_training as benchmark


def test_smoke(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "launch", lambda count, arguments: 10.0 * count**0.9)
    rows = benchmark.main(["--rounds", "1", "--steps", "2", "--launches", "2"])
    assert [row.section for row in rows] == ["rollout"] * 2 + ["gradient"] * 3 + ["processes"] * 2
    assert all(row.speed > 0 and math.isfinite(row.ratio) for row in rows)
    assert [rows[index].ratio for index in (0, 2, 5)] == [1.0] * 3 and rows[6].ratio == pytest.approx(2**0.9)
    assert "| gradient | second order |" in capsys.readouterr().out


@pytest.mark.distributed
def test_two_processes():
    """The launched recipe must also end well."""
    options = ["--generations", "1", "--pairs", "2", "--steps", "2"]
    assert benchmark.launch(2, benchmark.parse_arguments(options)) > 0


def test_what_is_compared_takes_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    results = benchmark.compare(runs, benchmark.parse_arguments(["--rounds", "2"]))
    assert "".join(order) == "ba" + "ab" + "ba"
    assert results["a"][1] == 1.0
