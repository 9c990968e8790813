"""Parameters of a command."""

from torchship.runs.parameters import parameters, workers


def test_options_are_read_as_they_are_spelled():
    """With a value after a blank or an equals sign, or with none."""
    words = ["python", "main.py", "--epochs", "1", "--lr=0.5", "--deterministic", "-b", "64", "x"]
    assert parameters(words) == {"epochs": "1", "lr": "0.5", "deterministic": "true", "b": "64"}
    assert parameters(["python", "main.py"]) == {}
    assert parameters(["python", "--lr", "-3"]) == {"lr": "-3"}


def test_workers_are_found_under_their_usual_names():
    """They decide the order in which a data loader's workers draw."""
    assert workers({"num-workers": "4"}) == 4
    assert workers({"workers": "many"}) is None
    assert workers({}) is None
