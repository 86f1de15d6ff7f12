import json


def test_json_names_the_commit(run, hub, inputs, tmp_path):
    url = json.loads(run("push", inputs / "l3rs", "me/name", "--json")[1])["url"]
    status, out, _ = run("pull", "me/name", tmp_path / "pulled", "--json")
    data = json.loads(out)
    assert status == 0 and data["repo_id"] == "me/name" and url.endswith(data["commit"])
