"""A second registry for tests, by other people in another language: django-oci, from PyPI.

It lives in a virtual environment of its own, made once for a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from tests.integration.registry import free_port

_PINS = ("django-oci==0.0.17", "django==4.2.30")
_SETTINGS = """
SECRET_KEY = "only for tests" * 5
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "registry_urls"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes",
    "rest_framework", "rest_framework.authtoken", "django_oci",
]
MIDDLEWARE = []
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": "registry.sqlite3", "OPTIONS": {"timeout": 30},
}}
MEDIA_ROOT = "."
DATA_UPLOAD_MAX_MEMORY_SIZE = None
APPEND_SLASH = False
DJANGO_OCI = {
    "DISABLE_AUTHENTICATION": True, "MEDIA_ROOT": "images", "VIEW_RATE_LIMIT": "1000000/s",
    "DOMAIN_URL": "http://%s",
}
"""
_URLS = """
from django.urls import include, path
urlpatterns = [path("", include("django_oci.urls", namespace="django_oci"))]
"""


def _python() -> Path:
    """Return the Python of an environment that has the registry; skip where there is none."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "torchship-tests"
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "-".join(("django-oci", *map(str, sys.version_info[:2])))
    python = environment / "bin" / "python"
    with FileLock(f"{environment}.lock"):
        if not (environment / "ready").exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(environment)],
                [str(python), "-m", "pip", "install", "--quiet", "setuptools<81", *_PINS],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode and os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1":
                    pytest.fail(f"{_PINS[0]} cannot be installed:\n{done.stderr[-3000:]}")
                if done.returncode:
                    pytest.skip(f"{_PINS[0]} cannot be installed here")
            (environment / "ready").touch()
    return python


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the registry with its files in ``folder``; gives its host."""
    python = _python()
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    (folder / "registry_settings.py").write_text(_SETTINGS % host)
    (folder / "registry_urls.py").write_text(_URLS)
    more = {
        "cwd": folder,
        "env": {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "registry_settings"},
    }
    # Its checks find fault with a folder of its own that no test uses.
    django = [python, "-c", "import sys; sys.path.insert(0, '.')\n" + _MAIN]
    done = subprocess.run(
        [*django, "migrate", "--run-syncdb", "--skip-checks"],
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(done.stderr[-3000:])
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*django, host], stdout=log, stderr=log, **more)
    try:
        _wait(process, host, folder / "server.log")
        yield host
    finally:
        process.terminate()
        process.wait()


_MAIN = """
if sys.argv[1] == "migrate":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
else:
    import socketserver
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
    from django.core.wsgi import get_wsgi_application
    class Server(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True
    host, _, port = sys.argv[1].partition(":")
    server = Server((host, int(port)), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    server.serve_forever()
"""


def _wait(process, host: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            opener.open(f"http://{host}/v2/", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"django-oci did not start:\n{log.read_text()[-2000:]}")
