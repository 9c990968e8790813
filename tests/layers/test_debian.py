"""A base out of Debian packages."""

import tarfile

import pytest

from torchship.errors import PackageError
from torchship.layers.debian import DebianRecipe
from torchship.layers.layer import key

DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def recipe(*pins):
    """Return the recipe of a base."""
    return DebianRecipe(suite="bookworm", packages=pins)


def test_old_paths_land_behind_the_merged_links(cook, debs, member_of):
    """/bin, /sbin, /lib and /lib64 are links, and what packages ship there is in /usr."""
    pin = debs.make(
        "a",
        [
            member_of("./bin/", type=DIR),
            member_of("./bin/a", b"a", mode=0o755),
            member_of("./lib64/ld.so", b"l"),
            member_of("./usr/sbin/b", b"b"),
        ],
    )
    made = cook(recipe(pin), debs.files)
    for link in ("bin", "sbin", "lib", "lib64"):
        assert made.members[link].linkname == f"usr/{link}"
    assert made.read("usr/bin/a") == b"a"
    assert made.read("usr/lib64/ld.so") == b"l"
    assert list(made.members).index("bin") < list(made.members).index("usr/bin/a")


def test_paths_through_a_packages_own_links_follow_them(cook, debs, member_of):
    """A file below a folder that is a link lands where the link leads, never outside."""
    pin = debs.make(
        "a",
        [
            member_of("./usr/share/real/", type=DIR),
            member_of("./usr/share/alias", type=LINK, target="../../../../usr/share/real"),
            member_of("./usr/share/alias/f", b"f"),
            member_of("./var/run/pid", b"p"),
        ],
    )
    made = cook(recipe(pin), debs.files)
    assert made.read("usr/share/real/f") == b"f"
    assert made.read("run/pid") == b"p"


def test_folders_of_several_packages_stand_once(cook, debs, member_of):
    """The first to name a folder decides its mode; the skeleton's are first."""
    both = [member_of("./opt/x/", type=DIR, mode=0o750), member_of("./tmp/", type=DIR, mode=0o755)]
    other = [member_of("./opt/x/", type=DIR, mode=0o777), member_of("./opt/x/b", b"")]
    made = cook(recipe(debs.make("a", both), debs.make("b", other)), debs.files)
    assert made.members["opt/x"].mode == 0o750
    assert made.members["tmp"].mode == 0o1777
    assert made.members["root"].mode == 0o700


def test_a_file_of_two_packages_is_an_error(cook, debs, member_of):
    """Which one wins would depend on their order: both are named."""
    pins = [debs.make(name, [member_of("./usr/bin/x", name.encode())]) for name in ("a", "b")]
    with pytest.raises(PackageError, match=r"b 1.0 and a 1.0 both hold usr/bin/x"):
        cook(recipe(*pins), debs.files)


def test_the_order_of_the_pins_changes_nothing(cook, debs, member_of):
    """The same packages give the same key and the same bytes."""
    one = debs.make("one", [member_of("./usr/one", b"1")])
    two = debs.make("two", [member_of("./usr/two", b"2")])
    assert key(recipe(one, two)) == key(recipe(two, one))
    assert cook(recipe(one, two), debs.files).data == cook(recipe(two, one), debs.files).data


def test_documentation_stays_out_and_licences_stay_in(cook, debs, member_of):
    """Manual pages, changelogs and translations are left out; copyright files never."""
    pin = debs.make(
        "a",
        [
            member_of("./usr/share/doc/a/", type=DIR),
            member_of("./usr/share/doc/a/changelog.gz", b"c"),
            member_of("./usr/share/doc/a/copyright", b"GPL"),
            member_of("./usr/share/doc/a/copyright\n", b"c"),
            member_of("./usr/share/doc/b", type=LINK, target="a"),
            member_of("./usr/share/man/man1/a.1.gz", b"m"),
            member_of("./usr/share/locale/de/a.mo", b"l"),
            member_of("./usr/share/info/a.info", b"i"),
            member_of("./usr/share/lintian/", type=DIR),
            member_of("./usr/share/manual/kept", b"k"),
        ],
    )
    made = cook(recipe(pin), debs.files)
    assert [name for name in made.members if name.startswith("usr/share/")] == [
        "usr/share/doc",
        "usr/share/doc/a",
        "usr/share/doc/a/copyright",
        "usr/share/doc/b",
        "usr/share/manual",
        "usr/share/manual/kept",
    ]


def test_files_lose_their_set_id_bits(cook, debs, member_of):
    """No program of an image gains rights; folders keep the bit that means something else."""
    pin = debs.make(
        "a",
        [
            member_of("./usr/bin/su", b"s", mode=0o4755),
            member_of("./var/local/", type=DIR, mode=0o2775, gid=50),
        ],
    )
    members = cook(recipe(pin), debs.files).members
    assert members["usr/bin/su"].mode == 0o755
    assert (members["var/local"].mode, members["var/local"].gid) == (0o2775, 50)


def test_hard_links_lead_to_a_file_of_the_layer(cook, debs, member_of):
    """A hard link is redirected as its target is, and one to nothing is an error."""
    pin = debs.make(
        "a", [member_of("./bin/a", b"a"), member_of("./bin/b", type=HARD, target="./bin/a")]
    )
    assert cook(recipe(pin), debs.files).members["usr/bin/b"].linkname == "usr/bin/a"
    pin = debs.make("bad", [member_of("./bin/b", type=HARD, target="./etc/passwd")])
    with pytest.raises(PackageError, match=r"bad 1\.0: bin/b"):
        cook(recipe(pin), debs.files)


def test_a_circle_of_links_is_an_error(cook, debs, member_of):
    """Links that lead to each other end in an error that names the package."""
    pin = debs.make(
        "a",
        [
            member_of("./x", type=LINK, target="y"),
            member_of("./y", type=LINK, target="x"),
            member_of("./x/f", b""),
        ],
    )
    with pytest.raises(PackageError, match="circle"):
        cook(recipe(pin), debs.files)


def test_a_file_below_a_file_is_an_error(cook, debs, member_of):
    """No tree has a file inside a file."""
    pin = debs.make("a", [member_of("./usr/x", b"x"), member_of("./usr/x/y", b"y")])
    with pytest.raises(PackageError, match="usr/x"):
        cook(recipe(pin), debs.files)


def test_users_and_authorities_are_made_without_scripts(cook, debs, member_of):
    """The user files hold Debian's users and ours, the CA bundle all authorities, sorted."""
    pin = debs.make(
        "a",
        [
            member_of(
                "./usr/share/base-passwd/passwd.master", b"root:*:0:0:root:/root:/bin/bash\n"
            ),
            member_of("./usr/share/base-passwd/group.master", b"root:*:0:\n"),
            member_of("./usr/share/ca-certificates/mozilla/Z.crt", b"Z\n"),
            member_of("./usr/share/ca-certificates/mozilla/A.crt", b"A"),
            member_of("./usr/bin/mawk", b"", mode=0o755),
            member_of("./bin/dash", b"", mode=0o755),
        ],
    )
    made = cook(recipe(pin), debs.files)
    assert made.read("etc/passwd").splitlines() == [
        b"root:*:0:0:root:/root:/bin/bash",
        b"user:*:1000:1000::/home/user:/bin/bash",
    ]
    assert made.read("etc/group") == b"root:*:0:\nuser:*:1000:\n"
    assert made.read("etc/ssl/certs/ca-certificates.crt") == b"A\nZ\n"
    assert made.members["usr/lib/ssl/cert.pem"].linkname == "/etc/ssl/certs/ca-certificates.crt"
    assert made.members["usr/bin/awk"].linkname == "mawk"
    assert made.members["usr/bin/sh"].linkname == "dash"


def test_scanners_find_the_packages(cook, debs, member_of):
    """The database of dpkg has each package as installed, its files and their checksums."""
    control = "Package: liba\nStatus-Of-Nothing: x\nMulti-Arch: same\nArchitecture: amd64\n"
    pins = [
        debs.make(
            "liba",
            [member_of("./usr/lib/a.so", b"a"), member_of("./usr/share/man/a", b"m")],
            control=control,
        ),
        debs.make("b", []),
    ]
    made = cook(recipe(*pins), debs.files)
    paragraphs = made.read("var/lib/dpkg/status").decode().split("\n\n")
    assert [text.splitlines()[:2] for text in paragraphs] == [
        ["Package: b", "Status: install ok installed"],
        ["Package: liba", "Status: install ok installed"],
    ]
    assert made.read("var/lib/dpkg/info/liba:amd64.list") == b"/.\n/usr/lib/a.so\n"
    assert made.read("var/lib/dpkg/info/liba:amd64.md5sums").endswith(b"  usr/lib/a.so\n")
    assert b"/man/" not in made.read("var/lib/dpkg/info/liba:amd64.md5sums")


def test_nothing_of_the_machine_is_in_the_layer(cook, debs, member_of):
    """Times are zero, owners are numbers alone."""
    pin = debs.make("a", [member_of("./usr/a", b"a")])
    members = cook(recipe(pin), debs.files).members.values()
    assert {(info.mtime, info.uname, info.gname) for info in members} == {(0, "", "")}


def test_the_run_user_has_a_name_on_every_base(cook, debs, member_of):
    """Nothing depends on base-passwd, so without it the users that every Debian has are written."""
    made = cook(recipe(debs.make("a", [member_of("./usr/bin/a", b"")])), debs.files)
    rows = [line.split(":") for line in made.read("etc/passwd").decode().splitlines()]
    assert {(row[0], row[2], row[5]) for row in rows} >= {
        ("root", "0", "/root"),
        ("nobody", "65534", "/nonexistent"),
        ("user", "1000", "/home/user"),
    }
    assert all(len(row) == 7 for row in rows)
    groups = dict(line.split(":")[0:3:2] for line in made.read("etc/group").decode().splitlines())
    assert all(row[3] in groups.values() for row in rows)
    assert groups["user"] == "1000"
