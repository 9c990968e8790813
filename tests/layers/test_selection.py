import pytest

from torchship.layers.selection import MARK, MARKED, Selection, left_out

TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"
RECORD = '{"_type":"https://in-toto.io/Statement/v1","predicate":{}}'


def paths(root, *, exclude=(), folders=False):
    """Return which files go in, or which folders that hold nothing else."""
    selection = Selection(root, exclude=exclude)
    return sorted(path for entry, path in selection if entry.is_dir() == folders)


def test_what_tools_leave_behind_stays_out(project):
    """Version control, caches, environments, runs and outputs are no source."""
    root = project(
        dict.fromkeys(
            [
                "main.py", ".git/HEAD", "sub/.git", "__pycache__/a.pyc", "pkg/__pycache__/b.pyc",
                "old.pyc", ".venv/pyvenv.cfg", ".venv/lib/x.py", "envs/mine/pyvenv.cfg",
                "envs/mine/secret/.env", "conda/conda-meta/history", ".mypy_cache/x",
                ".ruff_cache/x", ".pytest_cache/x", ".ipynb_checkpoints/a", "a/.DS_Store",
                "runs/20260101T000000Z-abc/output/m.json", "output/a", "outputs/b", "wandb/c",
                "mlruns/d", "lightning_logs/e", "pkg/runs/kept.py", "pkg.egg-info/PKG-INFO",
                "torchship.lock", "Dockerfile", ".dockerignore",
            ],
            "",
        )
    )  # fmt: skip
    project({"cache/CACHEDIR.TAG": TAG, "cache/x": ""})
    project({"tagged/CACHEDIR.TAG": "something else"})
    assert paths(root, folders=True) == ["a", "envs", "sub"]  # now empty
    assert paths(root) == [
        ".dockerignore",
        "Dockerfile",
        "main.py",
        "pkg/runs/kept.py",
        "tagged/CACHEDIR.TAG",
    ]


def test_dockerignore_then_exclude_are_honoured(project):
    """The patterns are one list: a later one decides, and may take back a default."""
    root = project(
        {
            ".dockerignore": "\ufeff# comment\n*.csv\n!keep.csv\n!outputs\nbig\n!big/one/small\n",
            **dict.fromkeys(
                ["a.csv", "keep.csv", "sub/a.csv", "outputs/x", "big/a", "big/one/small", "n/b"], ""
            ),
        }
    )
    assert paths(root, exclude=["n/", ".dockerignore"]) == [
        "big/one/small",
        "keep.csv",
        "outputs/x",
        "sub/a.csv",
    ]


def test_run_directories_stay_out_wherever_they_are(project):
    """What `run -o DIR` and `record` wrote into the project is no source of the next image."""
    root = project(
        {
            "main.py": "",
            "mine/record.json": RECORD,
            "mine/stdout.log": "",
            "mine/output/model.pt": "",
            "many/record.json": RECORD,
            "many/seed-1/stdout.log": "",
            "many/seed-1/output/model.pt": "",
            "music/record.json": RECORD,
            "music/stdout.log": "",
            "trials/record.json": '{"trials": 1}',
            "trials/run-1/data.csv": "",
        }
    )
    others = ["music/record.json", "music/stdout.log"]
    others += ["trials/record.json", "trials/run-1/data.csv"]
    assert paths(root) == ["main.py", *others]
    (root / ".dockerignore").write_text("!mine\n")
    mine = ["mine/output/model.pt", "mine/record.json", "mine/stdout.log"]
    assert paths(root) == [".dockerignore", "main.py", *mine, *others]


def test_a_run_directory_that_says_so_itself_stays_out(project):
    """From the moment it is made: a run that fails, or is stopped, leaves no record."""
    root = project(
        {
            "main.py": "",
            f"bad/{MARK}": MARKED.decode(),
            "bad/seed-1/stdout.log": "",
            f"other/{MARK}": "somebody else's",
            f"runs/1/{MARK}": MARKED.decode(),
        }
    )
    assert paths(root) == ["main.py", f"other/{MARK}"]
    assert left_out(root) == ()
    assert f"bad/{MARK}" in paths(root, exclude=["!bad"])


def test_a_cache_goes_in_where_an_exception_names_it(project):
    """As a folder of models does, which its library calls a cache; one of its parent is not it."""
    root = project(
        {
            "main.py": "",
            "src/models/CACHEDIR.TAG": TAG,
            "src/models/bert/config.json": "{}",
            "src/models/gpt/config.json": "{}",
            "src/models/env/pyvenv.cfg": "",
            "src/models/inner/CACHEDIR.TAG": TAG,
        }
    )
    bert, gpt = "src/models/bert/config.json", "src/models/gpt/config.json"
    tagged = ["src/models/CACHEDIR.TAG", bert, gpt]

    def given(*patterns):
        selection = Selection(root, exclude=patterns)
        files = [path for entry, path in selection if not entry.is_dir()]
        return sorted(files), tuple(selection.caches)

    assert given() == (["main.py"], ("src/models",))
    assert given("!src") == (["main.py"], ("src/models",))
    assert given("*", "!src") == ([], ("src/models",))
    assert given("!src/models") == (["main.py", *tagged], ("src/models/inner",))
    assert given("**/gpt", "!src/models/") == (["main.py", *tagged], ("src/models/inner",))
    assert given("!src/models/bert") == (["main.py", bert], ())
    assert given("!src/models", "**/gpt")[0] == ["main.py", *tagged[:2]]
    assert given("src/models") == (["main.py"], ())
    assert given("!src/models", "src") == (["main.py"], ())


LEFT_BEHIND = (
    *("src/__pycache__/a.pyc", "src/.ipynb_checkpoints/a.ipynb", "src/x.egg-info/PKG-INFO"),
    *("src/sub/.git", "src/.mypy_cache/deep/er/x", "src/old.pyc", "src/.DS_Store", "src/.git/HEAD"),
)


@pytest.mark.parametrize(
    "patterns",
    [
        *(("*", "!src", "!main.py"), ("*", "!src/", "!main.py"), ("*", "!src/**", "!main.py")),
        *(("!src",), ("**", "!src", "!main.py"), ("*", "!src/*", "!main.py"), ()),
    ],
    ids=" ".join,
)
def test_a_list_of_what_goes_in_takes_no_cache_with_it(project, patterns):
    """An exception is for what tools leave behind where it names that, not where it is around."""
    root = project(dict.fromkeys(["main.py", "src/a.py", "src/sub/b.py", *LEFT_BEHIND], ""))
    assert paths(root, exclude=patterns) == ["main.py", "src/a.py", "src/sub/b.py"]


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (["!src/__pycache__"], ["src/__pycache__/a.pyc"]),
        (["*", "!src/__pycache__/a.pyc"], ["src/__pycache__/a.pyc"]),
        (["*", "!src", "!**/.git"], ["src/.git/HEAD", "src/sub/.git"]),
        (["*", "!src/.git", "src/.git/HEAD"], []),
        (["*", "!src/*.pyc"], ["src/old.pyc"]),
        (["!src/.mypy_cache"], ["src/.mypy_cache/deep/er/x"]),
        (["!src/.mypy_cache/deep/*/x"], ["src/.mypy_cache/deep/er/x"]),
    ],
    ids=str,
)
def test_what_tools_leave_behind_goes_in_by_its_name(project, patterns, taken):
    """A bundled repository, say, that the program reads: with all that is in it."""
    root = project(dict.fromkeys(["src/a.py", *LEFT_BEHIND], ""))
    assert [path for path in paths(root, exclude=patterns) if path in LEFT_BEHIND] == taken


def test_results_that_stay_out_by_default_are_told(project):
    """Of folders of results it is said that they stay out, unless the project decides it."""
    root = project(
        {
            "main.py": "",
            "outputs/pretrained.pt": "",
            "wandb/a": "",
            "mlruns/a": "",
            "runs/1/record.json": RECORD,
            "runs/1/stdout.log": "",
            "runs/1/output/a": "",
            "pkg/outputs/a": "",
        }
    )
    assert left_out(root) == ("mlruns", "outputs", "wandb")
    (root / ".dockerignore").write_text("wandb/\n!outputs/pretrained.pt\n")
    assert left_out(root, exclude=["mlruns"]) == ()
