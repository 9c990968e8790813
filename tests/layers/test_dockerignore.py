"""Docker's rules for what stays out: the cases of moby's own tests, and of its documentation."""

import pytest

from torchship.errors import ProjectError
from torchship.layers.dockerignore import Patterns


def matches(path, *lines):
    """Say whether the patterns leave the path out."""
    return Patterns.parse(lines, origin="test").matches(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**", "file"), ("**/", "file"), ("**", "dir/file"), ("**/", "dir/file"),
        ("**/**", "dir/file"), ("dir/**", "dir/file"), ("dir/**", "dir/dir2/file"),
        ("**/dir", "dir"), ("**/dir", "dir/file"), ("**/dir2/*", "dir/dir2/file"),
        ("**/dir2/*", "dir/dir2/file/below"), ("**/dir2/**", "dir/dir2/dir3/file"),
        ("**file", "file"), ("**file", "dir/file"), ("**file", "dir/dir/file"),
        ("**file", "dir/anyfile"), ("**/file", "dir/dir/file"), ("**/file*", "dir/dir/file.txt"),
        ("**/file*txt", "dir/dir/file.txt"), ("**/file*.txt", "dir/dir/file.txt"),
        ("**/file*.txt*", "dir/dir/file.txt"), ("**/**/*.txt", "dir/dir/file.txt"),
        ("**/*.txt", "file.txt"), ("**/**/*.txt", "file.txt"), ("a**/*.txt", "a/file.txt"),
        ("a**/*.txt", "a/dir/file.txt"), ("a**/*.txt", "a/dir/dir/file.txt"),
        ("a/*.txt", "a/file.txt"), ("a/*.txt**", "a/file.txt"), ("a[b-d]e", "ace"),
        ("a[^b-d]e", "aze"), (".*", ".foo"), ("abc.def", "abc.def"), ("abc?def", "abcZdef"),
        (r"a\\", "a\\"), (r"a\*b", "a*b"), ("**/foo/bar", "foo/bar"),
        ("**/foo/bar", "dir/dir2/foo/bar"), ("abc/**", "abc/def"), ("abc/**", "abc/def/ghi"),
        ("**/.foo", ".foo"), ("a(b)c/def", "a(b)c/def"), ("a.|)$(}+{bc", "a.|)$(}+{bc"),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"),
        # Go's own cases of filepath.Match
        ("abc", "abc"), ("*", "abc"), ("*c", "abc"), ("a*", "a"), ("a*", "ab/c"),
        ("a*/b", "abc/b"), ("a*b*c*d*e*/f", "axbxcxdxexxx/f"), ("a*b?c*x", "abxbbxdbxebxczzx"),
        ("ab[c]", "abc"), ("ab[b-d]", "abc"), ("ab[^e-g]", "abc"), ("a?b", "a☺b"),
        ("a[^a]b", "a☺b"), ("[a-ζ]*", "α"), (r"[\]a]", "]"), (r"[\-]", "-"), (r"[x\-]", "-"),
        (r"[\-x]", "x"), ("*x", "xxx"),
        # Docker's documentation
        ("*/temp*", "somedir/temporary.txt"), ("*/temp*", "somedir/temp/below"),
        ("*/*/temp*", "a/b/temporary"), ("temp?", "tempa"), ("/foo/bar", "foo/bar"),
        ("foo/bar/", "foo/bar"), ("./foo/../bar", "bar"), ("  spaced  ", "spaced"),
        ("**/*.go", "a/b/c.go"), ("a//b", "a/b"),
    ],
)  # fmt: skip
def test_what_docker_matches(pattern, path):
    """Each pair is matched by moby too: by itself or by a parent."""
    assert matches(path, pattern)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/**/*.txt2", "dir/dir/file.txt"), ("a/*.txt", "a/dir/file.txt"), ("a[b-d]e", "ae"),
        ("a[b-d]e", "aae"), (".*", "foo"), ("abc.def", "abcdef"), ("abc.def", "abcZdef"),
        ("abc?def", "abcdef"), ("abc/**", "abc"), ("**/.foo", "bar.foo"),
        ("a(b)c/def", "a(b)c/xyz"), ("a*/b", "a/c/b"), ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f"),
        ("a*b?c*x", "abxbbxdbxebxczzy"), ("ab[e-g]", "abc"), ("ab[^c]", "abc"),
        (r"a\*b", "ab"), ("a???b", "a☺b"), ("*[a-ζ]", "A"), ("a?b", "a/b"), ("a*b", "a/b"),
        (r"[x\-]", "z"), (r"[\-x]", "a"), ("abc", "dir/abc"), ("*.log", "logs/a.log"),
        (".", "anything"), ("..", "anything"), ("../x", "x"), ("/", "anything"),
        ("#comment", "#comment"), ("temp?", "temp"), ("*/temp*", "temporary"),
        ("foo", "foobar"), ("foo", "Foo"),
    ],
)  # fmt: skip
def test_what_docker_does_not_match(pattern, path):
    """Unlike gitignore's, a pattern without a slash matches at the top only."""
    assert not matches(path, pattern)


@pytest.mark.parametrize(
    ("lines", "path", "left_out"),
    [
        (["!fileutils.go", "*.go"], "fileutils.go", True),
        (["*.go", "!fileutils.go"], "fileutils.go", False),
        (["docs", "!docs/README.md"], "docs/README.md", False),
        (["docs/", "!docs/README.md"], "docs/README.md", False),
        (["docs/*", "!docs/README.md"], "docs/README.md", False),
        (["docs/*", "!docs/README.md"], "docs/other.md", True),
        (["**", "!util/docker/web"], "util/docker/web/foo", False),
        (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
        (["**", "!dist/*.whl"], "dist/a-1.0+cpu-py3-none-any.whl", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README.md", False),
        (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
        (["*", "! main.py"], "main.py", False),
        (["*", "!/main.py"], "main.py", False),
        (["*", "!src"], "src/deep/er.py", False),
        (["  # no comment"], "# no comment", True),
    ],
)
def test_the_last_pattern_that_matches_decides(lines, path, left_out):
    """Exceptions take back, and later patterns leave out again."""
    assert matches(path, *lines) is left_out


@pytest.mark.parametrize(
    "pattern",
    [
        "!", "! ", "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[b-a]",
        "a\\",
    ],
)  # fmt: skip
def test_what_docker_refuses_is_refused(pattern):
    """A malformed pattern is an error that names the file and the line."""
    with pytest.raises(ProjectError, match=r"^\.dockerignore:2: "):
        Patterns.parse(["fine", pattern], origin=".dockerignore")


@pytest.mark.parametrize(
    ("lines", "folder", "must_look"),
    [
        (["a"], "a", False),
        (["a", "!a/b"], "a", True),
        (["a", "!a/b/c"], "a/b", True),
        (["a", "!b/c"], "a", False),
        (["*", "!**/keep"], "any/where", True),
        (["*", "!a/*/keep"], "a/b", True),
        (["*", "!a/*/keep"], "b", False),
        (["*", "!main.py"], "data", False),
    ],
)
def test_a_folder_is_skipped_where_nothing_below_can_come_back(lines, folder, must_look):
    """A data folder of a million files is not walked for an exception that is elsewhere."""
    assert Patterns.parse(lines, origin="test").may_take_back(folder) is must_look
