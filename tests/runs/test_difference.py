"""Where runs part, and what could be the cause."""

from dataclasses import replace

from tests.runs.records import accuracies, record, run, whole

from torchship.digest import Digest
from torchship.runs.curve import (
    MOST_STEPS,
    kept,
    places,
    read,
    share,
    step_name,
    thinned,
    thinnest,
)
from torchship.runs.difference import environment, first_difference
from torchship.runs.record import Curve, DataUsed, Gpu
from torchship.runs.wording import where


def logged(*losses: float, source: str = "metrics.jsonl", seed: int = 1):
    """Return a record of one run with that loss in each epoch."""
    steps = tuple({"epoch": float(n), "loss": loss} for n, loss in enumerate(losses, start=1))
    curve = Curve(source=source, count=len(steps), steps=steps)
    return record(replace(run(seed, test_accuracy=0.9), curve=curve))


def test_the_first_step_that_differs_is_named():
    """With both values in full, and the last step that was still the same."""
    found = first_difference(logged(1.0, 0.5, 0.25), logged(1.0, 0.5000000000000001, 0.1))
    assert (found.step, found.name, found.same) == ("epoch 2", "loss", "epoch 1")
    assert where(found) == (
        "first difference of seed 1 in metrics.jsonl: epoch 2, loss: "
        "0.5 and 0.5000000000000001; epoch 1 is still the same"
    )


def test_equal_curves_do_not_part():
    """Nor do those of other seeds, or of other logs, which nobody can compare."""
    assert first_difference(logged(1.0, 0.5), logged(1.0, 0.5)) is None
    assert first_difference(logged(1.0), logged(2.0, seed=2)) is None
    assert first_difference(logged(1.0), logged(2.0, source="stdout")) is None
    assert first_difference(accuracies(1.0), accuracies(0.5)) is None


def test_a_log_that_ends_early_is_a_difference():
    """Though all its steps are the same."""
    found = first_difference(logged(1.0, 0.5), logged(1.0))
    assert (found.name, found.author, found.reproducer) == ("number of steps", 2, 1)


def write(folder, name, lines):
    """Write a log; return output directory and stdout's log."""
    (folder / "output").mkdir(exist_ok=True)
    (folder / "log").touch()
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return {"output": folder / "output", "log": folder / "log"}


def test_a_curve_is_read_from_metrics_jsonl(tmp_path):
    """Times are not compared, and lines that are no objects say nothing."""
    lines = ['{"epoch": 1, "loss": 0.5, "seconds": 3.1, "note": "x", "nan": NaN}', "{", "[1]", "5"]
    found = read(**write(tmp_path, "output/metrics.jsonl", lines))
    assert found == Curve(source="metrics.jsonl", count=1, steps=({"epoch": 1.0, "loss": 0.5},))
    assert step_name(found) == "epoch"


def test_a_curve_is_read_from_the_lines_of_an_unmodified_program(tmp_path):
    """PyTorch's MNIST example prints labelled numbers."""
    lines = [
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.300039",
        "nothing",
        "Test set: Average loss: 0.0512, Accuracy: 9830/10000 (98%)",
        "14 epochs, time: 3.25, at 12:30:15",
    ]
    found = read(**write(tmp_path, "log", lines))
    assert found.source == "stdout"
    assert found.steps == (
        {"line": 1.0, "Train Epoch": 1.0, "Loss": 2.300039},
        {"line": 3.0, "Average loss": 0.0512, "Accuracy": 9830.0},
    )


def test_nothing_logged_is_no_curve(tmp_path):
    """None, rather than a curve without steps."""
    assert read(**write(tmp_path, "log", ["hello"])) is None


def test_a_long_log_keeps_every_few_steps_and_the_last(tmp_path):
    """Two logs of one length keep the same places, so that they can be compared."""
    for count in (1, MOST_STEPS, MOST_STEPS + 1, 3 * MOST_STEPS, 9999):
        lines = [f'{{"step": {place}}}' for place in range(count)]
        found = read(**write(tmp_path, "output/metrics.jsonl", lines))
        assert found.count == count
        assert [step["step"] for step in found.steps] == list(places(found))
        assert len(found.steps) == kept(found.count, found.every) <= MOST_STEPS + 1
        assert found.steps[-1]["step"] == count - 1


def test_of_many_runs_each_keeps_fewer_steps(tmp_path):
    """A record has to hold them all: what a run of many keeps, one of few keeps, too."""
    assert [share(runs) for runs in (1, 10, 40, 1000)] == [MOST_STEPS, MOST_STEPS, 500, 20]
    for count in (1, 19, 500, 501, 9999):
        lines = [f'{{"step": {place}}}' for place in range(count)]
        files = write(tmp_path, "output/metrics.jsonl", lines)
        whole, fewer = read(**files), read(**files, most=share(40))
        assert len(fewer.steps) == kept(count, fewer.every) <= 501
        assert set(places(fewer)) <= set(places(whole))
        assert fewer.steps[-1] == whole.steps[-1]


def test_a_thinned_curve_is_one_that_a_record_can_have():
    """Its steps are where its `every` says, down to the first and the last."""
    for count in (1, 2, 3, 4, 7, 8, 100):
        steps = tuple({"step": float(place)} for place in range(count))
        whole = Curve(source="metrics.jsonl", count=count, steps=steps)
        found = thinned(whole)
        assert len(found.steps) == (count if count <= 2 else count // 2 + 1)
        for each in (found, thinned(found), thinnest(whole), thinnest(found)):
            assert [step["step"] for step in each.steps] == list(places(each))
            assert len(each.steps) == kept(each.count, each.every)
        assert [step["step"] for step in thinnest(whole).steps] == sorted({0, count - 1})


def test_the_most_likely_cause_stands_first():
    """Threads, then the processor, then torch's build, GPU, driver, data; the unchanged follow."""
    one = whole()
    other = replace(
        one,
        determinism=replace(one.determinism, threads=8),
        hardware=replace(
            one.hardware, vendor="GenuineIntel", driver="580.2", gpus=(Gpu(name="A100"),)
        ),
        software=replace(one.software, torch_build="PyTorch built with: clang", kernel="6.2"),
        data=(DataUsed(name="/data/x", digest=Digest.of(b"y"), size=1),),
    )
    facts = environment(one, other)
    names = [fact.name for fact in facts if fact.changed]
    assert names == [
        "threads",
        "CPU vendor",
        "torch's build",
        "GPUs",
        "GPU driver",
        "data /data/x",
        "kernel",
    ]
    assert [fact.changed for fact in facts] == sorted((f.changed for f in facts), reverse=True)
    assert (facts[0].author, facts[0].reproducer) == ("2", "8")


def test_what_only_one_side_looked_at_is_no_difference():
    """A record of `torchship run` knows nothing of the hardware."""
    assert not any(fact.changed for fact in environment(whole(), whole()))
    blind = replace(whole(), hardware=None, software=None)
    assert not any(fact.changed for fact in environment(whole(), blind))
