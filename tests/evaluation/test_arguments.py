import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_tasks": 0}, "num_tasks must be in [1, inf), got 0"),
        ({"num_tasks": 1.5}, "num_tasks must be a whole number, got 1.5"),
        ({"num_tasks": "16"}, "num_tasks must be a whole number, got '16'"),
        ({"num_search_tasks": 0}, "num_search_tasks must be in [1, inf), got 0"),
        ({"horizons": [10, 0]}, "horizons must be in [1, inf), got 0"),
        ({"horizons": []}, "horizons must be at least one, each once, got none"),
        ({"horizons": [10, 20, 10]}, "horizons must be at least one, each once, got 10 twice"),
        ({"horizons": 10}, "horizons must be a list"),
        ({"evaluate_every": 0}, "evaluate_every must be in [1, inf), got 0"),
        ({"evaluate_every": -5}, "evaluate_every must be in [1, inf), got -5"),
        ({"seed": -1}, "seed must be in [0, "),
        ({"seed": 2**70}, "seed must be in [0, "),
        ({"seed": True}, "seed must be a whole number"),
        ({"baselines": ["Lion"]}, "baselines must be one of 50 names such as "),
        ({"baselines": []}, "baselines must be at least one, each once, got none"),
        ({"baselines": ["Adam cosine", "Adam cosine"]}, "got Adam cosine twice"),
        ({"baselines": "Adam cosine"}, "baselines must be a list"),
        ({"include_untrained": 1}, "include_untrained must be true or false"),
        ({"l3rs": None}, "l3rs must be text"),
        ({"output_dir": 3}, "output_dir must be text"),
        ({"search_dir": 3}, "search_dir must be text or null"),
        ({"l3rs": " "}, "l3rs must be text that is not empty, got ' '"),
        ({"output_dir": ""}, "output_dir must be text that is not empty, got ''"),
        ({"search_dir": ""}, "search_dir must be text that is not empty, got ''"),
        ({"baselines": ["Data limit, 8 passes"]}, "baselines must be one of 50 names such as "),
        ({"data_limit_max_steps": -1}, "data_limit_max_steps must be in [0, inf), got -1"),
        ({"data_limit_max_steps": None}, "data_limit_max_steps must be a whole number, got None"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(changes, words):
    with pytest.raises(ConfigError) as error:
        EvaluationArguments(**{"l3rs": "x", **changes})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_defaults_are_allowed():
    assert EvaluationArguments("x").baselines == ["Adam constant", "Adam cosine"]
