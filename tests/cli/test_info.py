import json

from hf_l3rs.hub.artifact import load_network


def test_json_has_what_the_table_has(run, inputs):
    status, out, err = run("info", inputs / "l3rs", "--json")
    data = json.loads(out)
    assert (status, err) == (0, "") and data["fingerprint"] == load_network(inputs / "l3rs").fingerprint()
    names = [line.split("  ")[0] for line in run("info", inputs / "l3rs")[1].splitlines()]
    assert names == list(data)
