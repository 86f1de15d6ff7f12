"""The benchmark of meta-training measures every section; its bare loop does the work of a rollout."""

import math

import pytest

from recipes import benchmark_meta_training as benchmark


def test_smoke(capsys):
    options = ["--rounds", "1", "--steps", "2", "--mlp_steps", "2", "--generations", "12"]
    rows = benchmark.main(["--sections", "rollout", "mlp", "memory", *options])
    assert [row.section for row in rows] == ["memory"] * 2 + ["rollout"] * 2 + ["mlp"] * 2
    assert all(row.value > 0 and math.isfinite(row.ratio) for row in rows)
    assert [rows[index].ratio for index in (0, 2, 4)] == [1.0] * 3
    output = capsys.readouterr().out
    assert "after 12 generations" in output and "ratio at least 0.9" in output


def test_gradient(monkeypatch):
    grown = []
    monkeypatch.setattr(benchmark, "peak_growth", lambda *run: grown.append(run) or 2.0 * run[0])
    rows = benchmark.main(["--sections", "gradient", "--rounds", "1", "--steps", "4"])
    assert [row.name for row in rows[:3]] == ["plain", "second order", "first order"] and rows[1].ratio > 1
    assert grown == [(1, 0), (10, 0), (1, 1), (10, 3)] and [row.ratio for row in rows[3:]] == [1.0, 10.0] * 2


@pytest.mark.distributed
def test_memory_is_measured_in_a_process_of_its_own():
    assert 0 < benchmark.peak_growth(2, 0) < 1000


@pytest.mark.distributed
def test_two_processes():
    """The launched recipe must also end well."""
    options = ["--launch_generations", "1", "--launch_pairs", "2", "--steps", "2"]
    assert benchmark.launch(2, benchmark.parse_arguments(options)) > 0


def test_processes(monkeypatch):
    monkeypatch.setattr(benchmark, "launch", lambda count, arguments: 10.0 * count**0.9)
    one, two = benchmark.main(["--sections", "processes", "--launches", "2"])
    assert (one.value, two.ratio) == (10.0, pytest.approx(2**0.9))


def test_what_is_compared_takes_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    results = benchmark.compare(runs, benchmark.parse_arguments(["--rounds", "2"]))
    assert "".join(order) == "ba" + "ab" + "ba"
    assert results["a"][1] == 1.0


def test_numbers_are_checked(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--steps", "0"])
    assert "--steps must be at least 1, got 0." in capsys.readouterr().err
