"""Fetching, from real servers on loopback that behave as badly as real ones do."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.project.fetching import fetch
from tests.project.server import Handler, send, serve, status

from torchship.digest import Digest
from torchship.errors import FetchError, StoreError, UsageError
from torchship.progress import SILENT
from torchship.project.fetch.attempt import Wanted, attempt, exists, length
from torchship.project.fetch.mirrors import Mirrors

__all__ = ["serve"]

NOWHERE = Mirrors(())


def content(size: int, seed: int = 0) -> bytes:
    """Make bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def wants(data: bytes, *sources: str, filename: str = "a.whl") -> Wanted:
    """Want a file with this content."""
    return Wanted(filename=filename, digest=Digest.of(data), size=len(data), sources=sources)


def test_a_file_comes_verified_and_under_its_digest(serve, tmp_path: Path) -> None:
    """A file is filed under its digest with its own name, and the second time nothing is asked."""
    data = content(300_000)
    server = serve(lambda handler: send(handler, data))
    one = wants(data, f"{server.url}/a.whl")
    for _ in range(2):
        files = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
        path = files[one.digest]
        assert path == tmp_path / one.digest.hex[:2] / one.digest.hex / "a.whl"
        assert path.read_bytes() == data
    assert len(server.requests) == 1
    assert list((tmp_path / "partial").iterdir()) == []


def test_many_files_are_fetched_at_a_time(serve, tmp_path: Path) -> None:
    """Files are fetched in parallel: eight that take a while each take little more than one."""
    each = {f"/{i}": content(1000, i) for i in range(8)}

    def slowly(handler: Handler) -> None:
        time.sleep(0.5)
        send(handler, each[handler.path])

    server = serve(slowly)
    wanted = [wants(data, server.url + path) for path, data in each.items()]
    begun = time.monotonic()
    files = fetch(wanted, downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert len(files) == 8
    assert time.monotonic() - begun < 3


def test_a_damaged_download_is_fetched_again(serve, tmp_path: Path) -> None:
    """A file that was changed behind our back is noticed, thrown away and fetched again."""
    data = content(5000)
    server = serve(lambda handler: send(handler, data))
    one = wants(data, f"{server.url}/a")
    path = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)[one.digest]
    path.write_bytes(content(5000, 1))
    path = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)[one.digest]
    assert path.read_bytes() == data
    assert len(server.requests) == 2


def test_a_file_without_its_stamp_is_hashed_and_accepted(tmp_path: Path) -> None:
    """A file without its stamp is hashed, and accepted, and stamped again."""
    data = content(5000)
    (tmp_path / "a").write_bytes(data)
    one = wants(data, str(tmp_path / "a"))
    downloads = tmp_path / "downloads"
    path = fetch([one], downloads=downloads, mirrors=NOWHERE, progress=SILENT)[one.digest]
    stamp = path.with_name(".stamp")
    before = stamp.read_text()
    stamp.unlink()
    assert fetch([one], downloads=downloads, mirrors=NOWHERE, progress=SILENT)
    assert stamp.read_text() == before


def test_wrong_bytes_are_refused_and_the_next_source_is_tried(serve, tmp_path: Path) -> None:
    """A source whose file has another sha256 is left for the next one."""
    data, wrong = content(9000), content(9000, 1)
    server = serve(lambda handler: send(handler, wrong if handler.path == "/bad" else data))
    one = wants(data, f"{server.url}/bad", f"{server.url}/good")
    files = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert files[one.digest].read_bytes() == data


def test_the_error_lists_every_file_and_what_was_tried(serve, tmp_path: Path) -> None:
    """All failures come in one error: each file, each source, the reason, and no secrets."""
    one, two, good = content(900), content(901), content(902)

    def answer(handler: Handler) -> None:
        if handler.path.startswith("/good"):
            send(handler, good)
        elif handler.path.startswith("/bad"):
            send(handler, content(900, 7))
        else:
            status(handler, 404)

    server = serve(answer)
    secret = server.url.replace("//", "//me:hunter2@")
    wanted = [
        wants(one, f"{secret}/bad?token=hunter3", f"{secret}/gone", filename="one.whl"),
        wants(two, str(tmp_path / "nothing"), filename="two.whl"),
        wants(good, f"{server.url}/good", filename="good.whl"),
    ]
    with pytest.raises(FetchError) as caught:
        fetch(wanted, downloads=tmp_path / "d", mirrors=NOWHERE, progress=SILENT)
    text = str(caught.value)
    assert "one.whl" in text and "another sha256" in text and "404" in text
    assert "two.whl" in text and "no such file" in text
    assert "hunter" not in text and "good.whl" not in text
    assert server.url in text
    assert (tmp_path / "d" / Digest.of(good).hex[:2] / Digest.of(good).hex / "good.whl").exists()


def test_a_wrong_size_is_seen_before_the_download(serve, tmp_path: Path) -> None:
    """A server that states another size than the pin's is not listened to any further."""
    data = content(2_000_000)
    sent = []

    def answer(handler: Handler) -> None:
        send(handler, data)
        sent.append(len(data))

    server = serve(answer)
    one = Wanted(filename="a", digest=Digest.of(data), size=1_000_000, sources=(f"{server.url}/a",))
    outcome = attempt([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert "2000000 bytes, not 1000000" in str(outcome.failures[one.digest][0])


def test_too_many_bytes_stop_the_download(serve, tmp_path: Path) -> None:
    """An endless answer without a length ends at the first byte too many."""

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(4000):
            handler.wfile.write(bytes(1 << 16))

    server = serve(endless)
    one = wants(content(100_000), f"{server.url}/a")
    outcome = attempt([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert "more than the 100000 bytes" in str(outcome.failures[one.digest][0])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("ranges", [True, False])
def test_a_hang_up_in_mid_body_is_continued(serve, tmp_path: Path, ranges: bool) -> None:
    """A connection that breaks is taken up where it stopped, or from the start if need be."""
    data = content(700_000)
    hang_ups = [200_000, 450_000]

    def answer(handler: Handler) -> None:
        upto = hang_ups.pop(0) if hang_ups else None
        send(handler, data, ranges=ranges, upto=upto, etag='"v1"')

    server = serve(answer)
    one = wants(data, f"{server.url}/a")
    files = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert files[one.digest].read_bytes() == data
    starts = [headers.get("range") for _, _, headers in server.requests]
    assert starts == [None, "bytes=200000-", "bytes=450000-"]


def test_a_truncated_answer_without_a_length_is_continued(serve, tmp_path: Path) -> None:
    """A body that just ends early, with no length to show it, is not taken for the file."""
    data = content(100_000)
    first = [True]

    def answer(handler: Handler) -> None:
        if first.pop() if first else False:
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(data[:60_000])
            handler.close_connection = True
        else:
            send(handler, data)

    server = serve(answer)
    one = wants(data, f"{server.url}/a")
    assert fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert server.requests[1][2]["range"] == "bytes=60000-"


def test_a_bad_beginning_is_thrown_away(serve, tmp_path: Path) -> None:
    """Where the unfinished file does not fit what the server has, it is fetched afresh."""
    data = content(50_000)
    server = serve(lambda handler: send(handler, data))
    one = wants(data, f"{server.url}/a")
    partial = tmp_path / "partial" / one.digest.hex
    partial.parent.mkdir()
    for left in (bytes(20_000), bytes(50_000), bytes(60_000), data):
        partial.write_bytes(left)
        files = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
        assert files[one.digest].read_bytes() == data
        files[one.digest].unlink()
    ranges = [headers.get("range") for _, _, headers in server.requests]
    assert ranges == ["bytes=20000-", None, None, None]  # and nothing for a finished one


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(serve, tmp_path: Path, code: int) -> None:
    """Retry-After of 429 and 503 is honoured: no second request comes earlier."""
    data, moments = content(1000), []

    def answer(handler: Handler) -> None:
        moments.append(time.monotonic())
        if len(moments) == 1:
            status(handler, code, Retry_After="1")
        else:
            send(handler, data)

    server = serve(answer)
    one = wants(data, f"{server.url}/a")
    assert fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert moments[1] - moments[0] >= 0.99


def test_a_server_that_wants_an_hour_is_left(serve, tmp_path: Path) -> None:
    """A pause of an hour is not waited for: the next source is asked."""
    data = content(1000)

    def answer(handler: Handler) -> None:
        if handler.path == "/busy":
            status(handler, 503, Retry_After="3600")
        else:
            send(handler, data)

    server = serve(answer)
    one = wants(data, f"{server.url}/busy", f"{server.url}/free")
    begun = time.monotonic()
    assert fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert time.monotonic() - begun < 5


def test_credentials_do_not_follow_a_redirect_elsewhere(serve, tmp_path: Path) -> None:
    """User and password go to the host they were given for, and to no other."""
    data = content(1000)
    other = serve(lambda handler: send(handler, data))

    def answer(handler: Handler) -> None:
        if handler.path == "/start":
            status(handler, 302, Location="/same")
        else:
            status(handler, 302, Location=f"http://evil:pw@127.0.0.1:{other.port}/there")

    server = serve(answer)
    one = wants(data, f"http://me:p%40ss@127.0.0.1:{server.port}/start")
    assert fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert [headers.get("authorization") for _, _, headers in server.requests] == [login, login]
    assert "authorization" not in other.requests[0][2]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/loop", "http://[a/x"]
)
def test_redirects_lead_to_http_and_to_an_end(serve, tmp_path: Path, target: str) -> None:
    """A redirect to another kind of address, or in a circle, is not followed."""
    server = serve(lambda handler: status(handler, 302, Location=target))
    one = wants(content(10), f"{server.url}/loop")
    outcome = attempt([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert "redirected" in str(outcome.failures[one.digest][0])
    assert len(server.requests) <= 11


def test_netrc_is_read(serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's user and password are found in the netrc file, as pip and curl find them."""
    data = content(10)
    server = serve(lambda handler: send(handler, data))
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login you password secret\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    assert fetch(
        [wants(data, f"{server.url}/a")], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT
    )
    login = "Basic " + base64.b64encode(b"you:secret").decode()
    assert server.requests[0][2]["authorization"] == login


def test_the_proxy_of_the_environment_is_used(
    serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go through http_proxy, with its password, except for hosts of no_proxy."""
    data = content(10)
    proxy = serve(lambda handler: send(handler, data))
    address = proxy.url.replace("//", "//me:pw@")
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "elsewhere.invalid")
    one = wants(data, "http://files.invalid/a")
    assert fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    _, path, headers = proxy.requests[0]
    assert path == "http://files.invalid/a"
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()
    outcome = attempt(
        [wants(content(11), "http://elsewhere.invalid/b")],
        downloads=tmp_path,
        mirrors=NOWHERE,
        progress=SILENT,
    )
    assert "not known here" in str(next(iter(outcome.failures.values()))[0])
    assert len(proxy.requests) == 1


def test_an_unreachable_host_is_given_up_once(tmp_path: Path, serve) -> None:
    """Fifty files of a host where nobody listens fail together, not one after the other."""
    server = serve(lambda handler: status(handler, 404))
    url = server.url
    server.stop()
    wanted = [wants(content(10, i), f"{url}/{i}") for i in range(50)]
    begun = time.monotonic()
    outcome = attempt(wanted, downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert len(outcome.failures) == 50
    assert not any(one.gone for tried in outcome.failures.values() for one in tried)
    assert time.monotonic() - begun < 10


def test_mirrors_are_searched_by_sha256_first(serve, tmp_path: Path) -> None:
    """A local mirror's file is found whatever its name, and no server is asked."""
    data = content(4000)
    server = serve(lambda handler: send(handler, data))
    folder = tmp_path / "mirror" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.whl").write_bytes(content(4000, 1))  # the right name and size, wrong bytes
    (folder / "other.bin").write_bytes(data)
    (folder / "dangling").symlink_to("nowhere")
    one = wants(data, f"{server.url}/a.whl")
    mirrors = Mirrors([tmp_path / "mirror"])
    files = fetch([one], downloads=tmp_path / "d", mirrors=mirrors, progress=SILENT)
    assert files[one.digest].name == "a.whl"
    assert files[one.digest].read_bytes() == data
    assert server.requests == []


def test_a_mirror_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of TORCHSHIP_MIRRORS that does not exist is a mistake to be told."""
    monkeypatch.setenv("TORCHSHIP_MIRRORS", f"{tmp_path}:{tmp_path}/missing")
    with pytest.raises(UsageError, match="missing"):
        Mirrors.from_environment()


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_local_sources_are_taken_and_verified(tmp_path: Path, form: str) -> None:
    """A path or file: address is taken; if its owner changes it later, that is noticed."""
    data = content(4000)
    source = tmp_path / "a b.whl"
    source.write_bytes(data)
    text = str(source).replace(" ", "%20") if "file" in form else str(source)
    one = wants(data, form.format(text))
    downloads = tmp_path / "d"
    files = fetch([one], downloads=downloads, mirrors=NOWHERE, progress=SILENT)
    assert files[one.digest].read_bytes() == data
    with source.open("r+b") as stream:
        stream.write(b"changed")
    outcome = attempt([one], downloads=downloads, mirrors=NOWHERE, progress=SILENT)
    assert one.digest in outcome.files or "another sha256" in str(outcome.failures[one.digest][0])
    for path in outcome.files.values():  # a filesystem that copies: ours is as it was
        assert path.read_bytes() == data


def test_local_files_of_another_size_or_kind_are_refused(tmp_path: Path) -> None:
    """A folder, a file of another size and an odd address are no sources."""
    (tmp_path / "short").write_bytes(b"x")
    sources = (str(tmp_path), str(tmp_path / "short"), "ftp://x/y", "relative/path", "http://[")
    one = wants(content(10), *sources)
    outcome = attempt([one], downloads=tmp_path / "d", mirrors=NOWHERE, progress=SILENT)
    assert len(outcome.failures[one.digest]) == len(sources)


@pytest.mark.parametrize("name", ["../x", "", ".stamp", ".labels", "a/b", "x\n", "x" * 300])
def test_odd_file_names_stay_outside(tmp_path: Path, name: str) -> None:
    """A file whose name would leave its folder, or hide, is kept there under another one."""
    (tmp_path / "a").write_bytes(b"x")
    one = wants(b"x", str(tmp_path / "a"), filename=name)
    downloads = tmp_path / "downloads"
    for _ in range(2):
        files = fetch([one], downloads=downloads, mirrors=NOWHERE, progress=SILENT)
        path = files[one.digest]
        assert path == downloads / one.digest.hex[:2] / one.digest.hex / "file"
        assert path.read_bytes() == b"x"


def test_a_full_disk_is_told_with_path_and_size(serve, tmp_path: Path) -> None:
    """On a full disk the fetch ends with the path and the size, and keeps what it has."""
    data = content(3_000_000)
    server = serve(lambda handler: send(handler, data))
    small = tmp_path / "small"
    small.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m none {small}"
    try:
        subprocess.run([*inside, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets us make no small filesystem")
    program = f"""
        from pathlib import Path
        from torchship.digest import Digest
        from torchship.errors import StoreError
        from torchship.progress import SILENT
        from torchship.project.fetch.attempt import Wanted, attempt
        from torchship.project.fetch.mirrors import Mirrors
        one = Wanted(filename="a.whl", digest=Digest("{Digest.of(data).hex}"), size={len(data)},
                     sources=("{server.url}/a",))
        try:
            attempt([one], downloads=Path({str(small)!r}), mirrors=Mirrors(()), progress=SILENT)
        except StoreError as error:
            print(error.message, sum(p.stat().st_size for p in Path({str(small)!r}).rglob("*")))
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(program))
    command = [*inside, f'{mount} && exec "$0" "$1"', sys.executable, str(script)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "no space" in run.stdout and "a.whl" in run.stdout and "3000000" in run.stdout
    assert int(run.stdout.split()[-1]) > 500_000
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Downloads that are a file, not a folder, are an error of the store."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "downloads").write_bytes(b"not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        fetch(
            [wants(b"x", str(tmp_path / "a"))],
            downloads=tmp_path / "downloads",
            mirrors=NOWHERE,
            progress=SILENT,
        )


def _fetching(tmp_path: Path, data: bytes, url: str) -> subprocess.Popen[bytes]:
    program = f"""
        from pathlib import Path
        from torchship.digest import Digest
        from torchship.progress import SILENT
        from torchship.project.fetch.attempt import Wanted, attempt
        from torchship.project.fetch.mirrors import Mirrors
        attempt(
            [Wanted(filename="a", digest=Digest("{Digest.of(data).hex}"), size={len(data)},
                    sources=("{url}/a",))],
            downloads=Path({str(tmp_path)!r}), mirrors=Mirrors(()), progress=SILENT,
        )
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])


def test_a_killed_download_is_continued(serve, tmp_path: Path) -> None:
    """After kill -9 in the middle, the next process continues and the file is right."""
    data = content(4_000_000)

    def slowly(handler: Handler) -> None:
        if "Range" in handler.headers:
            send(handler, data)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:2_500_000])
        time.sleep(20)

    server = serve(slowly)
    process = _fetching(tmp_path, data, server.url)
    partial = tmp_path / "partial" / Digest.of(data).hex
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size > 2_000_000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    one = wants(data, f"{server.url}/a", filename="a")
    files = fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=SILENT)
    assert files[one.digest].read_bytes() == data
    start = int(server.requests[-1][2]["range"].removeprefix("bytes=").rstrip("-"))
    assert start > 2_000_000


def test_two_processes_share_one_download(serve, tmp_path: Path) -> None:
    """Two processes that want the same file at once download it once."""
    data = content(500_000)

    def slowly(handler: Handler) -> None:
        time.sleep(1)
        send(handler, data)

    server = serve(slowly)
    processes = [_fetching(tmp_path, data, server.url) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(server.requests) == 1
    path = tmp_path / Digest.of(data).hex[:2] / Digest.of(data).hex / "a"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == Digest.of(data).hex


def test_progress_counts_the_bytes_of_each_file(serve, tmp_path: Path) -> None:
    """Each file is one task of its size, and what is told to be done adds up to it."""
    data = content(300_000)
    hang_ups = [100_000]

    def answer(handler: Handler) -> None:
        send(handler, data, ranges=False, upto=hang_ups.pop() if hang_ups else None)

    class Counting:
        def __init__(self) -> None:
            self.tasks: list[Counting] = []
            self.label, self.total, self.done, self.finished = "", 0, 0, False

        def task(self, label: str, total: int | None = None) -> Counting:
            child = Counting()
            child.label, child.total = label, total or 0
            self.tasks.append(child)
            return child

        def advance(self, amount: int) -> None:
            self.done += amount

        def finish(self) -> None:
            self.finished = True

        def say(self, line: str) -> None:
            pass

    progress = Counting()
    server = serve(answer)
    fetch([wants(data, server.url + "/a")], downloads=tmp_path, mirrors=NOWHERE, progress=progress)
    (task,) = progress.tasks
    assert (task.label, task.total, task.done, task.finished) == ("a.whl", 300_000, 300_000, True)

    (tmp_path / "here").write_bytes(content(10))
    one = wants(content(10), str(tmp_path / "here"))
    fetch([one], downloads=tmp_path, mirrors=NOWHERE, progress=progress)
    assert progress.tasks[1].finished  # a file that is linked is done at once


def test_length_and_existence_are_asked_without_downloading(serve, tmp_path: Path) -> None:
    """The size is what HEAD states, or GET where HEAD is refused; a file's is its own."""
    data = content(1234)

    def answer(handler: Handler) -> None:
        if handler.path == "/gone":
            status(handler, 404)
        elif handler.path == "/nohead" and handler.command == "HEAD":
            status(handler, 405)
        elif handler.path == "/broken":
            status(handler, 403)
        else:
            send(handler, data)

    server = serve(answer)
    (tmp_path / "file").write_bytes(data)
    assert length(f"{server.url}/a") == 1234
    assert length(f"{server.url}/nohead") == 1234
    assert length(str(tmp_path / "file")) == 1234
    assert exists(f"{server.url}/a")
    assert not exists(f"{server.url}/gone")
    assert not exists((tmp_path / "missing").as_uri())
    with pytest.raises(FetchError, match="404"):
        length(f"{server.url}/gone")
    with pytest.raises(FetchError, match="403"):
        exists(f"{server.url}/broken")


@pytest.mark.unprivileged
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_source_that_may_not_be_read_is_no_source(tmp_path: Path) -> None:
    """A local file without read permission is reported as a source that failed."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0)
    one = wants(b"x", str(tmp_path / "a"))
    outcome = attempt([one], downloads=tmp_path / "d", mirrors=NOWHERE, progress=SILENT)
    assert "can be read" in str(outcome.failures[one.digest][0])
