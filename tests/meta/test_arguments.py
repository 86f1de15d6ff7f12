"""Settings of a run: every value of a wrong type or range is named, with what is allowed."""

import dataclasses

import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.meta.evolution import ESConfig
from hf_l3rs.meta.meta_arguments import L3RSArguments, MetaTrainingArguments


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": 32},
        {"hidden_sizes": [32, 0]},
        {"hidden_sizes": ["wide"]},
        {"directions": "adam"},
        {"directions": ["adam", "lion"]},
        {"embedding_size": -1},
        {"embedding_size": 2.5},
        {"base_step": 0},
        {"base_step": float("nan")},
        {"adam_betas": 0.9},
        {"adam_betas": [0.9, 1.0]},
        {"step_reference": "mean"},
        {"max_grad_norm": 0},
        {"max_grad_norm": "none"},
        {"layers_by": "block"},
        {"layers_by": None},
        {"initial_l3rs": 3},
        {"output_dir": None},
        {"task_per_pair": "perhaps"},
        {"validation_interval": -1},
        {"validation_interval": 0.5},
        {"early_stopping_patience": -1},
        {"checkpoint_interval": None},
        {"keep_checkpoints": 0},
        {"num_threads": 0},
        {"num_threads": 10**9},
        {"report_to": ["wandb", "tensorboard"]},
        {"project": 7},
    ],
    ids=str,
)
def test_values_of_the_wrong_type_or_range_are_named_with_what_is_allowed(changes):
    ((name, value),) = changes.items()
    kind = (
        L3RSArguments if name in {spec.name for spec in dataclasses.fields(L3RSArguments)} else MetaTrainingArguments
    )
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{name} must be .*, got ") as error:
        kind(**changes)
    assert "\n" not in str(error.value)


def test_whole_numbers_and_yaml_lists_are_taken_where_they_fit():
    arguments = L3RSArguments(base_step=1, adam_betas=[0.9, 0.99], directions=["sgd"])
    assert arguments.base_step == 1.0 and isinstance(arguments.base_step, float)
    assert ESConfig(sigma=1, final_sigma=None).final_sigma is None
