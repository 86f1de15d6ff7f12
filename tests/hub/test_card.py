"""The card says what config and results say, keeps what a person wrote, and lets no value do anything."""

import re
from dataclasses import replace

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard

from hf_l3rs import L3RSConfig, describe_layers
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.card import generate_model_card, read_card
from hf_l3rs.hub.results import UNTRAINED, Result, Results


RESULT = Result(
    optimizer="L3RS",
    dataset="org/data",
    split="test",
    num_training_steps=20,
    num_tasks=12,
    loss=0.2221,
    command="python -m recipes.evaluate config.yaml",
    setting="in domain",
    loss_stderr=0.009,
    accuracy=0.9234,
    baseline="Adam, tuned",
    baseline_loss=0.308,
    wins=11,
    difference_low=-0.1,
    difference_high=-0.02,
    verdict="ahead",
    hub_id="org/data",
)
RESULTS = Results("0123456789abcdef", (RESULT, replace(RESULT, optimizer=UNTRAINED, loss=0.499)))


def card_of(config, **changes):
    """The card of an L3RS of which one thing was measured."""
    return generate_model_card(config, replace(RESULTS, entries=(replace(RESULT, **changes),)))


@pytest.fixture
def config():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    return L3RSConfig(
        layers=describe_layers(model.named_parameters()),
        base_model="org/resnet-tiny",
        base_model_revision="0" * 40,
        num_training_steps=20,
        meta_training={"data": [{"hub_id": "org/data"}], "inner_steps": 5000, "seconds": 647.5},
    )


def test_metadata(config):
    data = ModelCard(str(generate_model_card(config, RESULTS, repo_id="me/name"))).data
    assert data.library_name == "hf-l3rs" and data.model_name == "name"
    assert {"l3rs", "learned-optimizer", "image-classification"} <= set(data.tags)
    assert (data.base_model, data.datasets, data.metrics) == ("org/resnet-tiny", ["org/data"], ["accuracy", "loss"])
    assert [(each.metric_type, each.metric_value, each.dataset_split) for each in data.eval_results] == [
        ("accuracy", 0.9234, "test"),
        ("loss", 0.2221, "test"),
    ]
    block = str(generate_model_card(config, RESULTS)).split("---\n")[1]
    assert yaml.safe_load(block)["model-index"][0]["results"][0]["dataset"]["type"] == "org/data"


def test_a_licence_is_never_taken_for_granted(config):
    assert "license" not in generate_model_card(config).data.to_dict()
    card = generate_model_card(config, license="mit")
    assert card.data.license == "mit" == generate_model_card(config, existing=card).data.license
    assert generate_model_card(config, existing=card, license="apache-2.0").data.license == "apache-2.0"


def test_text_says_what_config_and_results_say(config):
    card = generate_model_card(config, RESULTS, repo_id="me/name", picture="curves.png")
    assert card.text.count('from_pretrained("me/name")') == 2 and "model.train()" in card.text
    assert "[org/resnet-tiny](https://huggingface.co/org/resnet-tiny)" in card.text and "up to 20 steps" in card.text
    assert "| in domain: data | 20 | 0.308, Adam, tuned | **0.222 ± 0.009** | 11 of 12, ahead | 0.499 |" in card.text
    assert "in domain: ahead after 20 steps" in card.text and "5,000 inner steps, in 11 min" in card.text
    assert card.text.count(RESULT.command) == 1 and "](curves.png)" in card.text
    assert "curves.png" not in generate_model_card(config, RESULTS).text


def test_nothing_is_invented(config):
    card = generate_model_card(config.replace(base_model=None, num_training_steps=None, meta_training={}))
    assert "Nothing was measured" in card.text and "unknown" in card.text and "|" not in card.text
    assert card.data.to_dict().keys() == {"library_name", "tags"}


def test_only_what_is_certainly_on_the_hub_is_linked(config):
    """`outputs/digits` has the form of a Hub id, and so has `org/resnet-tiny`: neither is one by its looks."""
    local = config.replace(base_model_revision=None, meta_training={"data": [{"path": "outputs/digits"}]})
    card = card_of(local, dataset="outputs/digits", hub_id=None)
    assert "huggingface.co/org" not in card.text and "fine-tunes `resnet-tiny`." in card.text
    assert "| in domain: digits |" in card.text and "outputs/digits" not in str(card)
    assert card.data.base_model is None and card.data.datasets is None
    assert {each.dataset_type for each in card.data.eval_results} == {"digits"}
    there = config.replace(base_model="/home/somebody/models/resnet-tiny", base_model_revision=None)
    assert "somebody" not in str(generate_model_card(there))
    built = generate_model_card(there.replace(base_model="outputs/base_models/mobilenet-v2"))
    assert "same layers as [google/mobilenet_v2_1.0_224]" in built.text and built.data.base_model is None


def test_data_of_the_run_that_it_started_from(config):
    earlier = {"data": [{"hub_id": "org/earlier"}], "started_from": {"data": [{"hub_id": None}, {"hub_id": "a b"}]}}
    card = generate_model_card(config.replace(meta_training={"data": [{"path": "x"}], "started_from": earlier}))
    assert card.data.datasets == ["org/earlier"]
    names = ("data", "started_from", "inner_steps", "seconds", "trainable")
    for value in (3, "org/data", [3], [{}], [{"hub_id": 3}], {"a": 1}, True):  # a summary of another shape
        card = generate_model_card(config.replace(meta_training=dict.fromkeys(names, value)))
        assert card.data.datasets is None


HOSTILE = (
    "x\n\n# Injected\n\n<script>alert(1)</script> ![image](https://evil.example/x.png) [link](https://evil.example)"
    " | bar `code` ```\n```\n<!-- hf_l3rs:end usage --> <!-- hf_l3rs:begin usage --> \x1b[31m \u202e {{ 7 * 7 }} \\|"
    ' "); evil('
)


@pytest.mark.parametrize("base", [{"base_model": HOSTILE}, {"base_model": None, "model_type": HOSTILE}])
def test_no_value_does_anything(config, base):
    fields = ("dataset", "split", "command", "setting", "baseline")
    results = Results("0" * 16, (replace(RESULT, **dict.fromkeys(fields, HOSTILE), hub_id=None),), HOSTILE)
    config = config.replace(**base, meta_training={HOSTILE: HOSTILE, "trainable": HOSTILE})
    first = generate_model_card(config, results)
    plain = generate_model_card(config.replace(base_model="x", model_type="x", meta_training={}))
    lines = first.text.splitlines()
    headings = [line for line in lines if line.startswith("#")]
    assert headings[1:] == [line for line in plain.text.splitlines() if line.startswith("#")][1:]
    fences = [line for line in lines if line.lstrip().startswith("```")]
    assert len(fences) == 10 and first.text.count("<!-- hf_l3rs:") == 10
    assert "49" not in first.text and not any(char in first.text for char in "\x1b\u202e")
    is_code = [sum(line in fences for line in lines[:index]) % 2 for index in range(len(lines))]
    prose = "\n".join(line for line, is_in_block in zip(lines, is_code) if not is_in_block)
    assert "alert(1)" in prose and "<script>" not in prose and "](https://evil" not in prose
    assert "evil(" not in "".join(line for line in lines if "from_pretrained(" in line)
    (row,) = [line for line in lines if line.startswith("| x # Injected")]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 7
    assert str(generate_model_card(config, results, existing=ModelCard(str(first)))) == str(first)


def test_removed_section_stays_removed(config):
    content = str(generate_model_card(config))
    start, end = content.index("<!-- hf_l3rs:begin citation -->"), content.index("<!-- hf_l3rs:end citation -->")
    edited = ModelCard(content[:start] + content[end + len("<!-- hf_l3rs:end citation -->") :])
    assert "bibtex" not in generate_model_card(config, existing=edited).text
    broken = ModelCard(content.replace("<!-- hf_l3rs:end usage -->", ""))
    with pytest.raises(ArtifactError, match="begin usage.*without its counterpart"):
        generate_model_card(config, existing=broken)


def test_foreign_card_is_kept_above(config, tmp_path):
    file = tmp_path / "README.md"
    assert read_card(file) is None
    for head in ("", "---\nlanguage: en\n---\n"):
        file.write_text(f"{head}# Mine\n")
        card = generate_model_card(config, existing=read_card(file))
        assert card.text.startswith("# Mine\n\n<!-- hf_l3rs:begin summary -->")
        assert card.data.get("language") == ("en" if head else None)
        assert str(generate_model_card(config, existing=card)) == str(card)


def test_only_generated_results_of_the_model_index_are_replaced(config):
    card = generate_model_card(config, RESULTS)
    card.data.eval_results.append(EvalResult("image-classification", "org/other", "Other", "f1", 0.5))
    card = generate_model_card(config, existing=ModelCard(str(card)))
    assert [(each.dataset_type, each.metric_type) for each in card.data.eval_results] == [("org/other", "f1")]
