from recipes import demo


def test_the_demo_at_small_size(tmp_path, capsys):
    table = demo.main(["--num_tasks=1", "--horizons=10", "--num_workers=1", f"--output_dir={tmp_path}"])
    assert "| 10 | L3RS | none |" in table
    assert "(best baseline)" in table and "steps to 93 % accuracy" in table
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "rows.csv"}
    assert table in capsys.readouterr().out
