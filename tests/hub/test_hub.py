"""The artefact on disk and on the Hub: what is saved is what is loaded, and what cannot be loaded is explained."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from hf_l3rs import L3RS, L3RSArtifact, L3RSConfig, L3RSNetwork, describe_layers
from hf_l3rs.errors import ArtifactError, ConfigError, L3RSError
from hf_l3rs.hub.artifact import CONFIG_NAME, README, RESULTS_NAME, WEIGHTS_NAME, load_network, save_network
from hf_l3rs.hub.hub import pull, push
from hf_l3rs.hub.results import Result, Results, read_results, write_results


REPO_ID = "me/l3rs-tiny"


def make_model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def make_network(seed=0):
    layers = describe_layers(make_model().named_parameters())
    network = L3RSNetwork(L3RSConfig(layers=layers, base_model="org/tiny", num_training_steps=20))
    generator = torch.Generator().manual_seed(seed)
    network.load_vector(0.3 * torch.randn(network.num_meta_parameters, generator=generator))
    return network


def make_results(network):
    entry = Result("L3RS", "org/data", "test", num_training_steps=20, num_tasks=12, loss=0.25, command="measure it")
    return Results(network.fingerprint(), (entry,))


def load(source, **options):
    artifact = L3RSArtifact.from_pretrained(source, **options)
    return artifact.network, artifact.commit_hash


def train(optimizer, model):
    generator = torch.Generator().manual_seed(1)
    optimizer.bind(model, num_training_steps=5)
    for _ in range(5):
        inputs = torch.randn(8, 4, generator=generator)
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step(loss.detach())
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


def change_config(folder, **changes):
    file = folder / CONFIG_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_tensors(folder, change):
    tensors = safetensors.torch.load_file(folder / WEIGHTS_NAME)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS_NAME)


def assert_one_sentence(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.fixture
def saved(tmp_path):
    save_network(make_network(), tmp_path / "saved")
    return tmp_path / "saved"


# On disk


def test_loaded_network_is_the_saved_one(saved):
    network = make_network()
    loaded = load_network(saved)
    assert loaded.fingerprint() == network.fingerprint()
    assert torch.equal(loaded.to_vector(), network.to_vector())
    assert loaded.config == network.config.replace(library_version=loaded.config.library_version)


def test_from_pretrained_takes_the_same_steps(saved):
    expected = train(L3RS(network=make_network()), make_model())
    for actual, value in zip(train(L3RS.from_pretrained(saved), make_model()), expected, strict=True):
        assert torch.equal(actual, value)


def test_from_pretrained_passes_its_arguments_on(saved):
    model = make_model()
    optimizer = L3RS.from_pretrained(str(saved), params=model, lr=0.5, num_training_steps=7)
    assert optimizer.is_bound
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["num_training_steps"] == 7
    assert optimizer.commit_hash is None


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        L3RS(network=make_network()).save_pretrained(tmp_path / name)
    for name in (CONFIG_NAME, WEIGHTS_NAME, README):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    L3RS.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before


def test_failing_write_leaves_the_old_files(saved, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def fail(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        L3RS(network=make_network(seed=1)).save_pretrained(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_a_loaded_optimizer_is_copyable(saved):
    optimizer = L3RS.from_pretrained(saved, params=make_model(), num_training_steps=5)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.network.fingerprint() == optimizer.network.fingerprint()


def test_save_pretrained_keeps_what_a_person_wrote(saved):
    optimizer = L3RS.from_pretrained(saved)
    optimizer.save_pretrained(saved)
    card = (saved / README).read_text()
    (saved / README).write_text(card.replace("tags:\n", "tags:\n- mine\n") + "\n## My notes\n")
    optimizer.save_pretrained(saved)
    assert "## My notes" in (saved / README).read_text()
    assert "- mine" in (saved / README).read_text()


def test_card_shows_results_of_these_meta_weights_only(saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    L3RS(network=make_network()).save_pretrained(saved)
    assert "0.2500" in (saved / README).read_text()
    L3RS(network=make_network(seed=1)).save_pretrained(saved)
    assert "0.2500" not in (saved / README).read_text()
    assert "No results stored yet." in (saved / README).read_text()


# What is not an L3RS


def test_missing_folder():
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(Path("no/such/folder"))
    assert_one_sentence(error, "no/such/folder", "does not exist", "pass the folder")


def test_file_in_place_of_folder(saved):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(str(saved / WEIGHTS_NAME))
    assert_one_sentence(error, "not a folder", "pass the folder")


def test_folder_of_a_transformers_model(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}')
    with pytest.raises(ArtifactError) as error:
        load_network(tmp_path)
    assert_one_sentence(error, "a transformers model, not an L3RS", "pass the folder or Hub id")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_missing_file(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, str(saved), f"has no {name}")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format_version": 1}{'])
def test_config_that_is_not_json(saved, content):
    (saved / CONFIG_NAME).write_bytes(content)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "is not JSON", "save or download")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format_version": 99}, ["format_version 99", "pip install -U hf_l3rs"]),
        ({"surplus": 1}, ["Unknown fields", "surplus"]),
        ({"directions": ["newton"]}, ["directions", "newton"]),
        ({"layers": [{"name": "x"}]}, ["name, shape, role and block"]),
    ],
)
def test_invalid_config(saved, changes, words):
    change_config(saved, **changes)
    with pytest.raises(ConfigError) as error:
        load_network(saved)
    assert_one_sentence(error, str(saved), *words)


def test_config_value_of_a_wrong_type(saved):
    change_config(saved, layers=[{"name": "x", "shape": ["wide"], "role": "linear.weight", "block": ""}])
    with pytest.raises(L3RSError) as error:
        load_network(saved)
    assert_one_sentence(error, CONFIG_NAME)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    data = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(data[:keep])
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "truncated or not a safetensors file", "save or download")


def test_pickled_weights_are_not_opened(saved):
    torch.save(make_network().state_dict(), saved / WEIGHTS_NAME)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, "not a safetensors file")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensors: tensors.pop("embeddings"), ["missing ['embeddings']", "same save"]),
        (lambda tensors: tensors.update(more=torch.zeros(1)), ["surplus ['more']", "same save"]),
        (lambda tensors: tensors.update(embeddings=torch.zeros(1, 8)), ["has shape (1, 8)", "same save"]),
        (lambda tensors: tensors["embeddings"].fill_(float("nan")), ["'embeddings'", "not finite"]),
        (lambda tensors: tensors["weights.0"].fill_(float("inf")), ["'weights.0'", "not finite"]),
    ],
)
def test_tensors_that_do_not_fit(saved, change, words):
    change_tensors(saved, change)
    with pytest.raises(ArtifactError) as error:
        load_network(saved)
    assert_one_sentence(error, WEIGHTS_NAME, str(saved), *words)


# On the Hub


def test_push_is_one_commit_and_from_pretrained_gives_it_back(hub):
    network = make_network()
    url = L3RS(network=network).push_to_hub(REPO_ID, commit_message="First")
    repository = hub.repositories[REPO_ID]
    assert repository.messages == ["First"]
    assert set(repository.trees[repository.branches["main"]]) == {README, CONFIG_NAME, WEIGHTS_NAME}
    assert not repository.is_private
    optimizer = L3RS.from_pretrained(REPO_ID)
    assert optimizer.network.fingerprint() == network.fingerprint()
    assert optimizer.commit_hash == repository.branches["main"]
    assert url.endswith(optimizer.commit_hash)
    for actual, value in zip(train(optimizer, make_model()), train(L3RS(network=network), make_model()), strict=True):
        assert torch.equal(actual, value)


def test_revisions(hub):
    first, second = make_network(), make_network(seed=1)
    L3RS(network=first).push_to_hub(REPO_ID)
    first_commit = hub.repositories[REPO_ID].branches["main"]
    L3RS(network=second).push_to_hub(REPO_ID)
    L3RS(network=first).push_to_hub(REPO_ID, revision="stable")
    assert load(REPO_ID)[0].fingerprint() == second.fingerprint()
    network, commit_hash = load(REPO_ID, revision=first_commit)
    assert (network.fingerprint(), commit_hash) == (first.fingerprint(), first_commit)
    assert load(REPO_ID, revision="stable")[0].fingerprint() == first.fingerprint()
    assert L3RS.from_pretrained(REPO_ID, revision="stable").commit_hash == hub.repositories[REPO_ID].branches["stable"]


def test_config_and_weights_are_of_one_commit(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    download = sys.modules["hf_l3rs.hub.hub"].hf_hub_download

    def push_in_between(repo_id, filename, **options):
        file = download(repo_id, filename, **options)
        if filename == CONFIG_NAME:
            repository.commit("main", {WEIGHTS_NAME: b"of another commit"}, "In between")
        return file

    monkeypatch.setattr("hf_l3rs.hub.hub.hf_hub_download", push_in_between)
    assert load(REPO_ID)[0].fingerprint() == make_network().fingerprint()


def test_second_push_keeps_what_a_person_wrote(hub):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    repository = hub.repositories[REPO_ID]
    card = repository.trees[repository.branches["main"]][README].decode()
    card = (
        card.replace("license: apache-2.0", "license: mit\nthumbnail: me.png") + "\n## My notes\n\nHandle with care.\n"
    )
    repository.commit("main", {README: card.encode(), "figure.png": b"png"}, "By hand")
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    for kept in ("license: mit", "thumbnail: me.png", "## My notes\n\nHandle with care."):
        assert kept in tree[README].decode()
    assert tree["figure.png"] == b"png"
    assert len(repository.messages) == 3


def test_push_of_a_folder_takes_its_text_and_the_metadata_of_both(hub, saved):
    L3RS(network=make_network()).save_pretrained(saved)
    push(saved, REPO_ID)
    repository = hub.repositories[REPO_ID]
    card = repository.trees[repository.branches["main"]][README].decode()
    repository.commit("main", {README: card.replace("tags:\n", "tags:\n- theirs\n").encode()}, "By hand")
    (saved / README).write_text((saved / README).read_text() + "\n## From the folder\n")
    push(saved, REPO_ID)
    card = repository.trees[repository.branches["main"]][README].decode()
    assert "- theirs" in card
    assert "## From the folder" in card
    assert f'from_pretrained("{REPO_ID}")' in card


def test_results_stay_with_the_meta_weights_that_they_are_of(hub, saved):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    push(saved, REPO_ID)
    repository = hub.repositories[REPO_ID]
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    assert RESULTS_NAME in tree
    assert "0.2500" in tree[README].decode()
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    tree = repository.trees[repository.branches["main"]]
    assert RESULTS_NAME not in tree
    assert "0.2500" not in tree[README].decode()
    assert len(repository.messages) == 3


def test_push_refuses_results_of_other_meta_weights(hub, saved):
    write_results(make_results(make_network(seed=1)), saved / RESULTS_NAME)
    with pytest.raises(ArtifactError) as error:
        push(saved, REPO_ID)
    assert_one_sentence(error, "measured with meta-weights", "measure again, or remove the file")
    assert not hub.repositories


def test_save_pretrained_can_push(hub, tmp_path):
    url = L3RS(network=make_network()).save_pretrained(
        tmp_path / "out", repo_id=REPO_ID, push_to_hub=True, private=True
    )
    assert hub.repositories[REPO_ID].is_private
    assert url == f"{hub.url}/{REPO_ID}/commit/{hub.repositories[REPO_ID].branches['main']}"


def test_pull_copies_one_revision(hub, saved, tmp_path):
    write_results(make_results(make_network()), saved / RESULTS_NAME)
    push(saved, REPO_ID)
    first_commit = hub.repositories[REPO_ID].branches["main"]
    L3RS(network=make_network(seed=1)).push_to_hub(REPO_ID)
    assert pull(REPO_ID, tmp_path / "pulled", revision=first_commit) == first_commit
    tree = hub.repositories[REPO_ID].trees[first_commit]
    assert {file.name: file.read_bytes() for file in (tmp_path / "pulled").iterdir()} == tree
    assert read_results(tmp_path / "pulled" / RESULTS_NAME) == make_results(make_network())
    with pytest.raises(ArtifactError) as error:
        pull(REPO_ID, tmp_path / "pulled")
    assert_one_sentence(error, "differs", "pull into another folder")
    assert load_network(tmp_path / "pulled").fingerprint() == make_network().fingerprint()
    pull(REPO_ID, tmp_path / "pulled", overwrite=True)
    assert load_network(tmp_path / "pulled").fingerprint() == make_network(seed=1).fingerprint()


def test_cache_serves_while_offline(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    commit_hash = L3RS.from_pretrained(REPO_ID).commit_hash
    hub.repositories.clear()
    assert load(REPO_ID, local_files_only=True)[1] == commit_hash
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(REPO_ID)[1] == commit_hash
    assert load(REPO_ID, revision=commit_hash)[0].fingerprint() == make_network().fingerprint()


# What the Hub refuses


def test_local_typo():
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained("./outputs/l3rs/typo")
    assert_one_sentence(error, "neither a local folder nor a Hub id", "check it for a typo")


def test_no_such_repository(hub):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained("outputs/typo")
    assert_one_sentence(error, "neither a local folder 'outputs/typo' nor a Hub repository", "check it for a typo")


def test_private_repository_without_token(hub, monkeypatch):
    L3RS(network=make_network()).push_to_hub(REPO_ID, private=True)
    token = os.environ["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "hf auth login")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, token=True)
    assert_one_sentence(error, "hf auth login")
    assert load(REPO_ID, token=token)[0].fingerprint() == make_network().fingerprint()


def test_gated_repository(hub):
    hub.create(REPO_ID, is_gated=True)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, "is gated", f"{hub.url}/{REPO_ID}", "hf auth login")


def test_no_such_revision(hub):
    L3RS(network=make_network()).push_to_hub(REPO_ID)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, revision="v9")
    assert_one_sentence(error, REPO_ID, "no revision 'v9'", "branch, tag or commit")


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_repository_without_a_file(hub, saved, name):
    files = {file.name: file.read_bytes() for file in saved.iterdir() if file.name != name}
    hub.create(REPO_ID).commit("main", files, "Something else")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, f"has no {name}", "pass the id of a learned optimizer")


def test_repository_of_a_transformers_model(hub):
    hub.create(REPO_ID).commit("main", {CONFIG_NAME: b'{"model_type": "vit"}', WEIGHTS_NAME: b""}, "A model")
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "a transformers model, not an L3RS")


def test_offline_and_not_cached(hub, monkeypatch):
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, local_files_only=True)
    assert_one_sentence(error, REPO_ID, "not in the cache", "load it once while online")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID)
    assert_one_sentence(error, REPO_ID, "not in the cache", "load it once while online")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, "HF_HUB_OFFLINE", "unset it")


def test_unreachable_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its attempts
    with pytest.raises(ArtifactError) as error:
        L3RS.from_pretrained(REPO_ID, cache_dir=tmp_path)
    assert_one_sentence(error, constants.ENDPOINT, "cannot be reached", "check the connection")
    with pytest.raises(ArtifactError) as error:
        L3RS(network=make_network()).push_to_hub(REPO_ID)
    assert_one_sentence(error, constants.ENDPOINT, "cannot be reached", "check the connection")


def test_import_is_light():
    code = (
        "import sys, hf_l3rs.cli; hf_l3rs.cli.make_parser(); assert 'torch' not in sys.modules;"
        "import hf_l3rs.hub.hub; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
