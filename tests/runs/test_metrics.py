"""Metrics of a run: from its files and from what it printed."""

import json
import time

import pytest

from torchship.errors import ManifestError, MetricsError, ProjectError
from torchship.oci.assemble import METRICS
from torchship.project.project import Metric
from torchship.runs import metrics
from torchship.runs.metrics import LARGEST, announced, collect, declared


@pytest.fixture
def run(tmp_path):
    """Make an output directory and a log, both empty."""
    (tmp_path / "output").mkdir()
    (tmp_path / "log").write_text("")
    return tmp_path


def found(run, *metrics):
    """Collect from that run."""
    return collect(metrics, output=run / "output", log=run / "log").values


def test_every_number_of_metrics_json_is_a_metric(run):
    """Undeclared numbers count too; strings, booleans and nested values do not."""
    document = {"test_accuracy": 0.99, "epochs": 1, "note": "x", "ok": True, "more": [1]}
    (run / "output/metrics.json").write_text(json.dumps(document))
    assert found(run) == {"epochs": 1.0, "test_accuracy": 0.99}


def test_the_last_match_on_stdout_counts(run):
    """Programs print a metric once an epoch."""
    (run / "log").write_text("Accuracy: 9800/10000\nAccuracy: 9917/10000\n")
    metric = Metric(name="correct", pattern=r"Accuracy: (\d+)/10000")
    assert found(run, metric) == {"correct": 9917.0}


def test_two_groups_are_a_fraction(run):
    """The stock example prints its accuracy as one."""
    (run / "log").write_text("Accuracy: 9917/10000 (99%)\n")
    metric = Metric(name="test_accuracy", pattern=r"Accuracy: (\d+)/(\d+)")
    assert found(run, metric) == {"test_accuracy": 0.9917}


def test_a_metric_that_was_not_given_is_left_out(run):
    """That is for the verdict to judge."""
    assert found(run, Metric(name="a"), Metric(name="b", pattern="b=([0-9.]+)")) == {}


def test_infinities_and_nan_are_no_metrics(run):
    """Python writes them into JSON; nothing can be compared with them."""
    (run / "output/metrics.json").write_text('{"a": NaN, "b": Infinity, "c": 1e999, "d": 2}')
    assert found(run) == {"d": 2.0}


def test_an_integer_too_long_for_a_float_is_no_metric(run):
    """A number of four hundred digits does not end the run with a traceback."""
    (run / "output/metrics.json").write_text('{"a": 1' + "0" * 400 + "}")
    assert found(run) == {}


@pytest.mark.parametrize("text", ["[]", "{", '"x"', "[" * 100_000])
def test_a_file_that_holds_something_else_is_an_error_with_its_path(run, text):
    """The program's own fault is told as such."""
    (run / "output/metrics.json").write_text(text)
    with pytest.raises(ProjectError, match=r"metrics\.json"):
        found(run)


def test_a_huge_metrics_file_is_not_read(run):
    """A program cannot fill our memory."""
    (run / "output/metrics.json").write_text(" " * (LARGEST + 1))
    with pytest.raises(ProjectError, match="larger"):
        found(run)


def test_a_metrics_file_that_links_out_of_the_output_is_not_read(run):
    """What a container wrote cannot make us read the host's files."""
    (run / "secret.json").write_text('{"a": 1}')
    (run / "output/metrics.json").symlink_to(run / "secret.json")
    assert found(run) == {}


def test_a_match_that_is_no_number_is_an_error(run):
    """The message shows pattern and match as they are written."""
    (run / "log").write_text("Accuracy: 12,345\n")
    with pytest.raises(ProjectError) as caught:
        found(run, Metric(name="a", pattern=r"Accuracy: (\S+)"))
    told = r"metrics.a: the pattern Accuracy: (\S+) matched 12,345, which is no number"
    assert caught.value.message == told


def test_a_fraction_of_nothing_is_an_error(run):
    """Both of its parts are shown."""
    (run / "log").write_text("Accuracy: 0/0\n")
    with pytest.raises(ProjectError, match="matched 0/0, which is no number"):
        found(run, Metric(name="a", pattern=r"Accuracy: (\d+)/(\d+)"))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_loss_that_diverged_is_no_metric(run, text):
    """The last value counts, and nothing can be compared with it."""
    (run / "log").write_text(f"loss 0.3\nloss {text}\n")
    assert found(run, Metric(name="loss", pattern=r"loss (\S+)")) == {}


def test_a_metrics_file_may_stand_in_a_folder_of_the_output(run):
    """But not in a folder that links out of it."""
    (run / "output/a").mkdir()
    (run / "output/a/m.json").write_text('{"loss": 1}')
    (run / "output/b").symlink_to(run)
    (run / "m.json").write_text('{"secret": 1}')
    inside, outside = Metric(name="loss", file="a/m.json"), Metric(name="secret", file="b/m.json")
    assert found(run, inside, outside) == {"loss": 1.0}


def test_a_name_that_a_terminal_would_obey_is_no_metric(run):
    """Nor is one that UTF-8 has no words for."""
    (run / "output/metrics.json").write_text('{"\\u001b[2J": 1, "\\ud800": 2, "loss": 3}')
    assert found(run) == {"loss": 3.0}


def test_what_is_measured_is_told_beforehand():
    """Where it is looked for, patterns as they are written; a stranger's words stay one line."""
    many = [Metric(name=f"m{n}", file="a/m.json") for n in range(9)]
    assert announced(()) == (
        "the image declares no metrics: the numbers of metrics.json in /output are read"
    )
    assert announced([Metric(name="acc", pattern=r"n (\S+)"), *many[:1]]) == (
        r"metrics that the image declares: acc (pattern n (\S+)), m0 (a/m.json in /output)"
    )
    assert announced(many).endswith("m7 (a/m.json in /output) and 1 more")
    assert announced([Metric(name="a\nb\x1b[2J", file="c")]).isprintable()


def labels(file):
    """Return the labels of an image that declares one metric in that file."""
    return {METRICS: json.dumps({"loss": {"name": "loss", "file": file}})}


def test_what_an_image_declares_is_read_from_its_label():
    """A file in a folder of the output is as good as one at its top."""
    assert declared(labels("a/m.json")) == (Metric(name="loss", file="a/m.json"),)
    assert declared({}) == ()


@pytest.mark.parametrize("file", ["/etc/m.json", "../m.json", "a/../../m.json", "a\0"])
def test_a_label_that_names_a_file_outside_the_output_is_refused(file):
    """The image may be a stranger's."""
    with pytest.raises(ManifestError, match="outside the output"):
        declared(labels(file))


HOSTILE = {
    "nested repeats": (r"(a+)+$", "a" * 60 + "b"),
    "nested stars": (r"(.*)*x(\d)", "a" * 60 + "b"),
    "alternatives": (r"^(?:a|a|aa)+(\d)", "a" * 60 + "b"),
    "back references": (r"^(a+)+\1b(\d)", "a" * 60),
    "a long line": (r"(\d*)*(\d)*x", "1" * 3_000_000),
}


@pytest.mark.parametrize(("pattern", "text"), HOSTILE.values(), ids=HOSTILE)
def test_a_pattern_that_takes_for_ever_is_given_up(run, monkeypatch, pattern, text):
    """A stranger's label can hold a pattern that would be matched for years: that is an error."""
    monkeypatch.setattr(metrics, "SECONDS", 0.3)
    (run / "log").write_text(text)
    began = time.process_time()
    with pytest.raises(MetricsError, match=r"metrics\.a: searching .*log for"):
        found(run, Metric(name="a", pattern=pattern))
    assert time.process_time() - began < 3


def test_many_patterns_share_the_time(run, monkeypatch):
    """However many a label holds, they take no longer than one may."""
    monkeypatch.setattr(metrics, "SECONDS", 0.3)
    (run / "log").write_text("loss 1\n" * 300_000)
    many = [Metric(name=f"m{n}", pattern=rf"loss (\d){{{n}}}") for n in range(1, 100)]
    with pytest.raises(MetricsError, match="takes more than"):
        found(run, *many)


def test_a_pattern_of_endless_length_is_refused():
    """A label's pattern is as long as one that a person wrote."""
    label = json.dumps({"a": {"name": "a", "pattern": "(a|b)" * 1000}})
    with pytest.raises(ManifestError, match="over 1000 characters"):
        declared({METRICS: label})


def test_a_line_without_an_end_is_searched_in_pieces(run):
    """A program that prints no line ends costs no more memory than another."""
    (run / "log").write_text("x" * 200_000 + " loss=0.5\n")
    assert found(run, Metric(name="loss", pattern=r"loss=([\d.]+)")) == {"loss": 0.5}
