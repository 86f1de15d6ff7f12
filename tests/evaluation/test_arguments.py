import pytest

from hf_l3rs.errors import ConfigError
from hf_l3rs.evaluation.evaluation_arguments import EvaluationArguments


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_tasks": 0}, "num_tasks must be in"),
        ({"num_tasks": 1.5}, "num_tasks must be a whole number"),
        ({"num_search_tasks": 0}, "num_search_tasks must be in"),
        ({"horizons": [10, 0]}, "horizons must be in"),
        ({"horizons": []}, "horizons must be at least one"),
        ({"horizons": [10, 20, 10]}, "10 twice"),
        ({"horizons": 10}, "horizons must be a list"),
        ({"evaluate_every": 0}, "evaluate_every must be in"),
        ({"seed": -1}, "seed must be in"),
        ({"seed": 2**70}, "seed must be in"),
        ({"baselines": ["Lion"]}, "got 'Lion'"),
        ({"baselines": ["torch.optim."]}, "got 'torch.optim.'"),
        ({"baselines": []}, "baselines must be at least one"),
        ({"baselines": ["Adam cosine", "Adam cosine"]}, "Adam cosine twice"),
        ({"baselines": "Adam cosine"}, "baselines must be a list"),
        ({"l3rs": None}, "l3rs must be text"),
        ({"l3rs": " "}, "l3rs must be text that is not empty"),
        ({"output_dir": ""}, "output_dir must be text that is not empty"),
        ({"search_dir": 3}, "search_dir must be text"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(changes, words):
    with pytest.raises(ConfigError) as error:
        EvaluationArguments(**{"l3rs": "x", **changes})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_baselines_are_names_or_dotted_paths():
    """Nothing is imported to check them: the machine that writes settings may not have what is named."""
    names = ["Schedule-free AdamW at 2.5e-3", "Linear probe", "absent_package.module.Kind"]
    assert EvaluationArguments("x", baselines=names).baselines == names
