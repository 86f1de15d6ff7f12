"""The card says what config and results say, and keeps what a person wrote."""

import math
import re
import time
from dataclasses import replace

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard

from hf_l3rs import L3RSConfig, describe_layers
from hf_l3rs.errors import ArtifactError
from hf_l3rs.hub.card import combine_cards, generate_model_card, read_card
from hf_l3rs.hub.results import Result, Results
from hf_l3rs.optimizer.layers import role_layers


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
    baseline="Adam",
    baseline_loss=0.308,
    wins=11,
    step_ratio=2.5,
    hub_id="org/data",
)
RESULTS = Results("0123456789abcdef", (RESULT, replace(RESULT, optimizer="untrained L3RS", loss=0.499)))


@pytest.fixture
def config():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    return L3RSConfig(
        layers=describe_layers(model.named_parameters()),
        base_model="org/resnet-tiny",
        base_model_revision="0" * 40,
        num_training_steps=20,
        meta_training={"dataset": "org/data", "sigma": 0.05, "steps|range": [10, 20]},
    )


def test_metadata(config):
    data = ModelCard(str(generate_model_card(config, RESULTS, repo_id="me/name"))).data
    assert data.library_name == "hf_l3rs"
    assert data.license == "apache-2.0"
    assert {"l3rs", "learned-optimizer", "image-classification"} <= set(data.tags)
    assert data.base_model == "org/resnet-tiny"
    assert data.datasets == ["org/data"]
    assert data.metrics == ["accuracy", "loss"]
    assert data.model_name == "name"
    measured = [(each.metric_name, each.metric_value, each.dataset_split) for each in data.eval_results]
    assert measured == [("accuracy after 20 steps", 0.9234, "test"), ("loss after 20 steps", 0.2221, "test")]


def test_text_says_what_config_and_results_say(config):
    text = generate_model_card(config, RESULTS, repo_id="me/name").text
    assert text.count('"me/name"') == 3
    assert "[org/resnet-tiny](https://huggingface.co/org/resnet-tiny)" in text
    assert "up to 20 steps" in text
    assert "| sigma | 0.05 |" in text
    assert r"| steps\|range | [10, 20] |" in text
    row = "| in domain | org/data (test) | L3RS | 20 | 0.222 ± 0.009 | 92.3 % | Adam | 0.308 |  | 11 of 12 | 2.50 |"
    assert row in text
    assert text.count(RESULT.command) == 1
    assert "arXiv:2408.09310" in text


def test_a_single_task_has_no_standard_error(config):
    entry = replace(RESULT, num_tasks=1, wins=1, loss_stderr=0.0, accuracy_stderr=0.0)
    text = generate_model_card(config, replace(RESULTS, entries=(entry,))).text
    assert "0.222 ±" not in text and "| 0.222 | 92.3 % |" in text


def test_the_data_limit_has_its_columns_where_it_was_measured(config):
    assert "data limit" not in generate_model_card(config, RESULTS).text.lower()
    limited = replace(RESULTS, entries=(replace(RESULT, data_limit_loss=0.15), RESULT))
    text = generate_model_card(config, limited).text
    assert "| wins | speed-up | data limit | gap closed |" in text and "after the shortest. *Data limit* is" in text
    assert "| 11 of 12 | 2.50 | 0.150 | 54 % |" in text and "| 11 of 12 | 2.50 |  |  |" in text
    card = generate_model_card(config, limited)
    assert str(generate_model_card(config, limited, existing=card)) == str(card)


@pytest.mark.parametrize(
    "changes, cell",
    [
        ({"step_ratio_low": 2.0, "step_ratio_high": 3.0}, "2.50 (2.00 to 3.00)"),
        ({"step_ratio_low": 2.0}, "2.50 (≥ 2.00)"),
        ({"step_ratio_high": 3.0}, "2.50 (≤ 3.00)"),
        ({"step_ratio_low": 2.5, "step_ratio_bound": "at least"}, "≥ 2.50 (≥ 2.50)"),
        ({"step_ratio_bound": "at most"}, "≤ 2.50"),
        ({"step_ratio": None}, ""),
    ],
)
def test_a_speed_up_is_told_with_its_interval_or_its_bound(config, changes, cell):
    results = replace(RESULTS, entries=(replace(RESULT, **changes),))
    assert f"| 11 of 12 | {cell} |" in generate_model_card(config, results).text


def test_what_matters_comes_first_and_raw_settings_last(config):
    card = generate_model_card(config.replace(meta_training={"inner_steps": 9}), RESULTS, picture="curves.png")
    places = ["**When to use it**", "0.222 ±", "How to use it", "## Limits", "## Citation", "| inner_steps | 9 |"]
    assert "](curves.png)" in card.text and "**What it costs**: Making it took 9 inner steps." in card.text
    found = [card.text.index(place) for place in places]
    assert found == sorted(found) and card.text.index("](curves.png)") < found[0]
    assert "curves.png" not in generate_model_card(config, RESULTS).text


def test_nothing_is_invented(config):
    card = generate_model_card(config.replace(base_model=None, num_training_steps=None, meta_training={}))
    assert "No results stored yet." in card.text
    assert "does not say for how many steps" in card.text
    assert card.data.to_dict().keys() == {"library_name", "license", "tags"}


@pytest.mark.parametrize("norm, words", [(None, "did not clip"), (1.5, "clipped the gradient norm to 1.5")])
def test_note_on_clipping(config, norm, words):
    text = generate_model_card(config.replace(max_grad_norm=norm)).text
    assert words in text


def test_what_it_does_to_batch_norm_is_told(config):
    assert "batch norm" not in generate_model_card(config).text
    card = generate_model_card(config.replace(batch_norm_momentum=0.4))
    assert "sets the momentum of the running statistics to 0.4," in card.text


def test_local_base_model_is_named_without_its_path(config):
    card = generate_model_card(config.replace(base_model="/home/somebody/models/resnet-tiny"))
    assert "somebody" not in str(card)
    assert "`resnet-tiny`" in card.text
    assert card.data.base_model is None
    assert 'from_pretrained("l3rs-resnet-tiny")' in card.text


def test_only_what_is_certainly_on_the_hub_is_linked(config):
    """`outputs/digits` has the form of a Hub id, and so has `org/resnet-tiny`: neither is one by its looks."""
    local = config.replace(base_model_revision=None, meta_training={"datasets": ["outputs/digits", "org/data"]})
    results = Results(RESULTS.fingerprint, (replace(RESULT, dataset="outputs/digits", hub_id=None),))
    card = generate_model_card(local, results)
    assert "huggingface.co/org" not in card.text
    assert "fine-tunes `resnet-tiny`." in card.text
    assert "| in domain | digits (test) |" in card.text
    assert "| datasets | digits, data |" in card.text
    assert "outputs/digits" not in str(card)
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert {each.dataset_type for each in card.data.eval_results} == {"digits"}


DATA = [
    {
        "name": None,
        "hub_id": "org/data",
        "path": "/home/somebody/data",
        "revision": "abc",
        "splits": {"batches": "train", "evaluation": "test"},
        "division_seed": None,
        "classes": [0, 1],
        "max_images": None,
    },
    {"name": None, "hub_id": None, "path": "outputs/digits", "revision": None, "splits": {}, "division_seed": 0},
]


def test_data_of_meta_training(config):
    card = generate_model_card(config.replace(meta_training={"data": DATA, "seed": 7}))
    assert card.data.datasets == ["org/data"]
    text = "org/data (revision: abc, splits: batches: train, evaluation: test, classes: [0, 1])"
    assert f"| data | {text}; digits (division_seed: 0) |" in card.text
    assert "somebody" not in str(card) and "outputs" not in str(card).split("meta-training -->")[1]


def test_data_of_the_run_that_it_started_from(config):
    earlier = {"data": DATA[:1], "seed": 7, "sigma": 0.05, "started_from": {"data": DATA[1:]}}
    card = generate_model_card(config.replace(meta_training={"data": DATA[1:], "seed": 7, "started_from": earlier}))
    assert card.data.datasets == ["org/data"]
    row = next(line for line in card.text.splitlines() if line.startswith("| started_from"))
    assert row.startswith("| started_from (where it differs) | data: org/data (")
    assert "sigma: 0.05" in row
    assert "seed: 7;" not in row
    assert "somebody" not in str(card)


@pytest.mark.parametrize("data", [3, "org/data", [], [3], [{}], [{"path": 3}], [{"path": "a", "hub_id": 3}], {"a": 1}])
def test_data_of_another_shape(config, data):
    card = generate_model_card(config.replace(meta_training={"data": data, "datasets": data, "started_from": data}))
    assert card.data.datasets is None


def test_figures_are_rounded(config):
    summary = {"loss": 0.21889556269161403, "seconds": 33194.64446, "steps": 416682, "off": None, "is": True}
    text = generate_model_card(config.replace(meta_training=summary)).text
    for row in ("loss | 0.2189", "seconds | 33195", "steps | 416682", "off | none", "is | yes"):
        assert f"| {row} |" in text


def test_diverged_runs_are_shown(config):
    entry = replace(RESULT, loss=math.inf, loss_stderr=None, baseline_loss=math.inf)
    card = generate_model_card(config, Results(RESULTS.fingerprint, (entry,)))
    assert "| 20 | diverged | 92.3 % | Adam | diverged |" in card.text
    assert [each.metric_type for each in card.data.eval_results] == ["accuracy"]


HOSTILE = (
    "x\n\n# Injected\n\n<script>alert(1)</script> ![image](https://evil.example/x.png) [link](https://evil.example)"
    " | bar `code` ```\n```\n<!-- hf_l3rs:end usage --> <!-- hf_l3rs:begin usage --> \x1b[31m \u202e {{ 7 * 7 }} \\|"
    ' "); evil('
)


def hostile(config):
    """Everything that may be any text is such a text."""
    entry = replace(
        RESULT, **dict.fromkeys(("dataset", "split", "command", "setting", "baseline"), HOSTILE), hub_id=None
    )
    changes = {"base_model": HOSTILE, "base_model_revision": "0" * 40, "model_type": HOSTILE}
    summary = {
        HOSTILE: HOSTILE,
        "datasets": [HOSTILE],
        "data": [{"path": HOSTILE, "hub_id": HOSTILE, HOSTILE: [HOSTILE]}],
    }
    config = config.replace(**changes, meta_training={**summary, "started_from": {"nested": {HOSTILE: HOSTILE}}})
    return config, Results(RESULTS.fingerprint, (entry,))


@pytest.mark.parametrize("changes", [{}, {"base_model": None}])
def test_no_value_does_anything(config, changes):
    config, results = hostile(config)
    config = config.replace(**changes)
    first = generate_model_card(config, results)
    plain = generate_model_card(config.replace(base_model="x", model_type="x", meta_training={}))
    lines = first.text.splitlines()
    headings = [line for line in lines if line.startswith("#")]
    assert headings[1:] == [line for line in plain.text.splitlines() if line.startswith("#")][1:]
    assert not any(line.startswith("# Injected") for line in lines)
    fences = [line for line in lines if line.lstrip().startswith("```")]
    assert len(fences) % 2 == 0 and len(fences) == 12
    assert first.text.count("<!-- hf_l3rs:") == 12
    assert "49" not in first.text
    assert not any(char in first.text for char in "\x1b\u202e")
    is_code = [sum(line in fences for line in lines[:index]) % 2 for index in range(len(lines))]
    prose = "\n".join(line for line, is_in_block in zip(lines, is_code) if not is_in_block)
    assert "alert(1)" in prose and "<script>" not in prose
    assert "](https://evil" not in prose
    assert "evil(" not in "".join(line for line in lines if "from_pretrained(" in line or "l3rs=" in line)
    bars = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines if line.startswith("| x # Injected")]
    assert bars == [12, 3]
    assert str(generate_model_card(config, results, existing=first)) == str(first)
    assert str(generate_model_card(config, results, existing=ModelCard(str(first)))) == str(first)


@pytest.mark.parametrize("repo_id", ["a b", 'x"); evil("', "a/b/c", "a\nb", "/home/somebody"])
def test_repo_id_that_none_is(config, repo_id):
    with pytest.raises(ArtifactError, match='not a Hub id of the form "user/name"'):
        generate_model_card(config, repo_id=repo_id)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- hf_l3rs:begin a -->" * 4000,
        "<!-- hf_l3rs:end a -->" * 4000,
        "<!-- hf_l3rs:begin a --><!-- hf_l3rs:end b -->" * 2000,
        "<!-- hf_l3rs:begin a --><!-- hf_l3rs:end a -->" * 2000,
        "<!-- hf_l3rs:begin " * 5000,
        "<!-- hf_l3rs:begin " + "a" * 96_000,
        "---\n" + "\n" * 96_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_time_is_linear_in_the_text(config, text):
    card = ModelCard(f"---\n{{}}\n---\n{text}")
    start = time.perf_counter()
    for call in (lambda: generate_model_card(config, existing=card), lambda: combine_cards(card, card)):
        try:
            call()
        except ArtifactError as error:
            assert "without its counterpart" in str(error)
    assert time.perf_counter() - start < 3  # a tenth of a second, where nothing else is running


def test_second_generation_is_identical(config):
    first = generate_model_card(config, RESULTS)
    assert str(generate_model_card(config, RESULTS)) == str(first)
    assert str(generate_model_card(config, RESULTS, existing=first)) == str(first)
    assert str(generate_model_card(config, RESULTS, existing=ModelCard(str(first)))) == str(first)


def test_person_written_parts_are_kept(config):
    content = str(generate_model_card(config))
    content = content.replace("license: apache-2.0", "license: mit\nthumbnail: me.png").replace(
        "tags:\n", "tags:\n- mine\n"
    )
    content = content.replace("<!-- hf_l3rs:begin usage -->", "Between sections.\n\n<!-- hf_l3rs:begin usage -->")
    edited = ModelCard(content + "\n## My notes\n")
    card = generate_model_card(config, RESULTS, existing=edited)
    assert card.data.license == "mit"
    assert card.data.thumbnail == "me.png"
    assert card.data.tags[0] == "mine"
    assert "Between sections.\n\n<!-- hf_l3rs:begin usage -->" in card.text
    assert card.text.endswith("\n## My notes\n")
    assert "0.222 ±" in card.text
    assert "No results stored yet." not in card.text
    assert str(generate_model_card(config, RESULTS, existing=card)) == str(card)


def test_removed_section_stays_removed(config):
    content = str(generate_model_card(config))
    start, end = content.index("<!-- hf_l3rs:begin citation -->"), content.index("<!-- hf_l3rs:end citation -->")
    edited = ModelCard(content[:start] + content[end + len("<!-- hf_l3rs:end citation -->") :])
    assert "bibtex" not in generate_model_card(config, existing=edited).text


def test_foreign_card_is_kept_above(config):
    card = generate_model_card(config, existing=ModelCard("---\nlanguage: en\n---\n# Mine\n"))
    assert card.text.startswith("# Mine\n\n<!-- hf_l3rs:begin summary -->")
    assert card.data.language == "en"
    assert str(generate_model_card(config, existing=card)) == str(card)


def test_marker_without_its_counterpart(config):
    broken = ModelCard(str(generate_model_card(config)).replace("<!-- hf_l3rs:end usage -->", ""))
    with pytest.raises(ArtifactError, match="begin usage.*without its counterpart; restore"):
        generate_model_card(config, existing=broken)


def test_only_generated_results_of_the_model_index_are_replaced(config):
    card = generate_model_card(config, RESULTS)
    card.data.eval_results.append(EvalResult("image-classification", "org/other", "Other", "f1", 0.5))
    card = generate_model_card(config, existing=ModelCard(str(card)))
    assert [(each.dataset_type, each.metric_type) for each in card.data.eval_results] == [("org/other", "f1")]


def test_values_cannot_break_out_of_the_table(config):
    hostile = {"note": "a | b\nc <!-- hf_l3rs:end meta-training -->"}
    first = generate_model_card(config.replace(meta_training=hostile))
    assert r"| note | a \| b c &lt;!-- hf_l3rs:end meta-training --> |" in first.text
    assert str(generate_model_card(config.replace(meta_training=hostile), existing=first)) == str(first)


def test_combined_cards(config):
    generated = generate_model_card(config)
    edited = ModelCard(str(generated).replace("tags:\n", "tags:\n- theirs\n") + "\nTheir text.\n")
    assert combine_cards(None, edited) is edited
    assert combine_cards(generated, None) is generated
    combined = combine_cards(generated, edited)
    assert "Their text." in combined.text
    assert "theirs" in combined.data.tags
    assert "Their text." not in combine_cards(ModelCard(str(generated) + "\nOur text.\n"), edited).text


def test_read_card(tmp_path):
    file = tmp_path / "README.md"
    assert read_card(file) is None
    file.write_text("# No metadata\n")
    assert read_card(file).text.strip() == "# No metadata"
    for content in ("---\ntags: [\n---\n", "---\n- a list\n---\n", "---\nmodel-index: 1\n---\n"):
        file.write_text(content)
        with pytest.raises(ArtifactError, match=r"not valid YAML of a model card; correct it\.$"):
            read_card(file)


def test_metadata_is_plain_yaml(config):
    block = str(generate_model_card(config, RESULTS)).split("---\n")[1]
    assert yaml.safe_load(block)["model-index"][0]["results"][0]["dataset"]["type"] == "org/data"


def test_an_l3rs_of_several_models_names_them(config):
    models = {"base_model": "recipes/one", "more_base_models": ["outputs/zoo/two"]}
    several = config.replace(base_model=None, base_model_revision=None, meta_training=models)
    card = generate_model_card(several, RESULTS, repo_id="me/name")
    text = " ".join(card.text.split())
    assert "fine-tunes models such as `one`, `two`." in text and "meta-trained on models such as" in text
    assert "outputs/zoo" not in text and card.data.base_model is None


def test_an_l3rs_that_knows_roles_is_for_any_architecture(config):
    roles = config.replace(layers=role_layers(config.layers))
    text = " ".join(generate_model_card(roles).text.split())
    assert "# l3rs-universal-start" in text and "fine-tunes image classifiers of any architecture." in text
    assert "it knows layers by role" in text and "by role" not in generate_model_card(config).text


@pytest.mark.parametrize(
    ("trainable", "words"),
    [
        ("head", "the head alone of"),
        ("last:1", "the last block and the head of"),
        ("last:2", "the last 2 blocks and the head of"),
        ("lora:8", "LoRA adapters of rank 8 and the head of"),
    ],
)
def test_what_is_fine_tuned_of_the_model(config, trainable, words):
    of_part = config.replace(meta_training={**config.meta_training, "trainable": trainable})
    text = generate_model_card(of_part).text
    assert f"fine-tunes {words} " in text and f'freeze(model, "{trainable}")' in text
    for value in ("all", 'head")\n```', ["head"], None):
        whole = generate_model_card(config.replace(meta_training={"trainable": value})).text
        assert "freeze" not in whole and "alone" not in whole


def test_a_card_keeps_its_name(config):
    named = generate_model_card(config, RESULTS, repo_id="user/my-l3rs")
    assert 'from_pretrained("my-l3rs")' in generate_model_card(config, RESULTS, existing=named).text
