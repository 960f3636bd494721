"""An archive of a run from a stranger: what is not as it must be brings nothing."""

import hashlib
import json
import os
import stat
import zipfile

import pytest

from diffbench.errors import DiffbenchError
from diffbench.results import importing
from diffbench.results.exporting import INDEX
from diffbench.results.importing import import_run
from diffbench.store.artefacts import Store
from tests.helpers.runs import files


def rewritten(archive, target, change, index=True):
    """An archive with changed members: `change({name: (ZipInfo, data)})`; its index made to match, or left as it was."""
    with zipfile.ZipFile(archive) as source:
        members = {info.filename: (info, source.read(info)) for info in source.infolist()}
    change(members)
    if index:
        info, data = members[INDEX]
        listing = {name: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for name, (_, d) in members.items() if name != INDEX}
        members[INDEX] = info, json.dumps({**json.loads(data), "files": listing}).encode()
    with zipfile.ZipFile(target, "w") as written:
        for info, data in members.values():
            written.writestr(info, data)


def fresh(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.filename = name                                  # as it is, null bytes included
    info.external_attr = mode << 16
    return info


def member(name, mode=0o100644, data=b"{}"):
    return lambda members: members.update({name: (fresh(name, mode), data)})


def first(members, end):
    return next(name for name in members if name.endswith(end))


def replaced(end, change):
    def apply(members):
        name = first(members, end)
        members[name] = members[name][0], change(members[name][1])
    return apply


def dropped(end):
    return lambda members: members.pop(first(members, end))


def renamed_artefact(members):
    """An artefact under a key that its content does not have, consistent in itself."""
    for name in [n for n in members if n.startswith("store/train/")]:
        info, data = members.pop(name)
        old = name.split("/")[2]
        members[name.replace(old, "0" * 64)] = fresh(name.replace(old, "0" * 64)), data.replace(old.encode(), b"0" * 64)
    plan = members["run/plan.json"]
    members["run/plan.json"] = plan[0], plan[1].replace(old.encode(), b"0" * 64)
    manifest = f"store/train/{'0' * 64}/manifest.json"
    content = json.loads(members[manifest][1])
    task = members[f"store/train/{'0' * 64}/task.json"][1]
    content["files"]["task.json"] = {"size": len(task), "sha256": hashlib.sha256(task).hexdigest()}
    members[manifest] = members[manifest][0], json.dumps(content).encode()


HEX = "ab" * 32
HOSTILE = {
    "leads up": (member("run/../../x.json"), "nothing that a run has"),
    "leads up from the store": (member(f"store/train/{HEX}/../x"), "nothing that a run has"),
    "absolute": (member("/etc/cron.d/x.json"), "nothing that a run has"),
    "drive letter": (member("run/C:\\x.json"), "nothing that a run has"),
    "null byte": (member("run/x.json\0.exe"), "nothing that a run has"),
    "program": (member("run/setup.py"), "nothing that a run has"),
    "page": (member("run/report.html"), "nothing that a run has"),
    "hidden": (member("run/.bashrc.json"), "nothing that a run has"),
    "device of Windows": (member("run/con.json"), "nothing that a run has"),
    "device in an artefact": (member(f"store/train/{HEX}/NUL"), "nothing that a run has"),
    "record of no cell": (member("run/cells/ba9876543210.json"), "its plan names no cell ba9876543210"),
    "picture of no cell": (member("run/samples/ba9876543210-trajectory.png"), "its plan names no cell ba9876543210"),
    "mark of an import": (member(f"store/train/{HEX}/imported.json"), "nothing that a run has"),
    "60,000 files": (lambda members: [member(f"run/events/{i}.jsonl", data=b"")(members) for i in range(60_000)], "run has 60,00"),
    "deep": (member("run/cells/below/x.json"), "nothing that a run has"),
    "no key": (member("store/train/abc/x.json"), "nothing that a run has"),
    "upper case key": (member(f"store/train/{HEX.upper()}/x.json"), "nothing that a run has"),
    "folder": (member("run/cells/", 0o040755, b""), "nothing that a run has"),
    "not a regular file": (member("run/x.json", stat.S_IFIFO | 0o644, b""), "is a link, a device"),
    "link": (member("run/x.json", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link"),
    "link in an artefact": (member(f"store/train/{HEX}/x.json", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link"),
    "two that are one on some systems": (member("run/FID.md"), "is in it twice"),
    "stage the plan does not name": (member(f"store/train/{HEX}/task.json"), "its plan names no stage"),
    "no manifest": (dropped("manifest.json"), "has no manifest.json"),
    "no task": (dropped("task.json"), "has no task.json"),
    "no plan": (dropped("plan.json"), "has no run/plan.json"),
    "no index": (dropped(INDEX), "has no " + INDEX),
    "file missing in an artefact": (dropped("facts.json"), "facts.json is gone"),
    "other content": (replaced("facts.json", lambda d: d.replace(b"0.125", b"0.126")), "facts.json does not match its checksum"),
    "other manifest": (replaced("manifest.json", lambda d: b"[" * 100_000), "its manifest is no manifest"),
    "manifest leads out": (replaced("manifest.json", lambda d: d.replace(b'"facts.json"', b'"../facts.json"')), "wrongly"),
    "plan is no plan": (replaced("plan.json", lambda d: b"[]"), "not the plan of a run"),
    "plan is deep": (replaced("plan.json", lambda d: b"[" * 100_000), "run/plan.json"),
    "plan with other names": (replaced("plan.json", lambda d: b'{"cells": [], "stages": {"../x": {"name": "train", "label": "l", "parents": {}}}}'), "expected a key"),
    "under another key": (renamed_artefact, "is not what its key names"),
}


def assert_nothing_came(tmp_path, home):
    store = Store(home)
    assert not list((store.root / "store").rglob("*")) and not list((store.root / "staging").iterdir()) and not list((store.root / "runs").iterdir())
    assert not (tmp_path / "there").exists() and not list(tmp_path.glob(".there*"))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_brings_nothing(archived, tmp_path, what):
    change, said = HOSTILE[what]
    rewritten(archived[3], tmp_path / "bad.zip", change, index=what != "no index")
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(DiffbenchError, match="refused") as found:
        import_run(tmp_path / "bad.zip", Store(tmp_path / "victim"), tmp_path / "there")
    assert said in str(found.value)
    assert_nothing_came(tmp_path, tmp_path / "victim")
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "victim")} == before


def test_a_member_that_is_in_it_twice(archived, tmp_path):
    with zipfile.ZipFile(archived[3]) as source, zipfile.ZipFile(tmp_path / "bad.zip", "w") as target:
        for info in source.infolist():
            target.writestr(info, source.read(info))
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("run/fid.md", "another table")
    with pytest.raises(DiffbenchError, match="twice"):
        import_run(tmp_path / "bad.zip", Store(tmp_path / "victim"), tmp_path / "there")
    assert_nothing_came(tmp_path, tmp_path / "victim")


def test_what_unpacks_to_more_than_it_should(archived, tmp_path):
    rewritten(archived[3], tmp_path / "bomb.zip", lambda members: members.update({"run/big.csv": (packed("run/big.csv"), bytes(30_000_000))}))
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    for limit, said in ((10**11, "no run is squeezed like that"), (10**6, "the limit is 1.0 MB")):
        with pytest.raises(DiffbenchError, match=said):
            import_run(tmp_path / "bomb.zip", Store(tmp_path / "victim"), tmp_path / "there", limit=limit)
    assert_nothing_came(tmp_path, tmp_path / "victim")


def packed(name):
    info = fresh(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize("lie", [10, 5 * 10**9], ids=["too small", "too large"])
def test_declared_sizes_that_lie(archived, tmp_path, lie):
    """In the zip's own directory and in the index alike; the data are longer or shorter."""
    name, data = "run/big.csv", bytes(1000)
    rewritten(archived[3], tmp_path / "bad.zip", lambda members: members.update({name: (packed(name), data)}))
    with zipfile.ZipFile(tmp_path / "bad.zip") as source:
        members = {info.filename: (info, source.read(info)) for info in source.infolist()}
    index = json.loads(members[INDEX][1])
    index["files"][name]["size"] = lie
    members[INDEX] = members[INDEX][0], json.dumps(index).encode()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as target:
        for info, content in members.values():
            target.writestr(info, content)
        target.getinfo(name).file_size = lie              # the central directory is written at the end
    with pytest.raises(DiffbenchError, match="refused"):
        import_run(tmp_path / "bad.zip", Store(tmp_path / "victim"), tmp_path / "there")
    assert_nothing_came(tmp_path, tmp_path / "victim")


def test_an_index_that_names_other_files(archived, tmp_path):
    rewritten(archived[3], tmp_path / "bad.zip", member("run/extra.json"), index=False)
    with pytest.raises(DiffbenchError, match="does not hold what its .* lists: run/extra.json"):
        import_run(tmp_path / "bad.zip", Store(tmp_path / "victim"), tmp_path / "there")


def test_a_cut_or_flipped_archive_is_refused_or_the_same(archived, tmp_path):
    import random

    whole = archived[3].read_bytes()
    rng, refused, flips = random.Random(0), 0, 60
    for i in range(flips):
        data = bytearray(whole)
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.zip").write_bytes(data)
        home, there = tmp_path / f"home-{i}", tmp_path / f"there-{i}"
        try:
            import_run(tmp_path / "bad.zip", Store(home), there)
        except DiffbenchError:
            refused += 1
            assert not there.exists() and not list((home / "store").rglob("*"))
        else:
            assert files(there) == files(archived[1]), "a flip in what nobody reads, such as a date"
    assert refused > flips / 2
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "bad.zip").write_bytes(whole[:length])
        with pytest.raises(DiffbenchError):
            import_run(tmp_path / "bad.zip", Store(tmp_path / "victim"), tmp_path / "there")
    assert_nothing_came(tmp_path, tmp_path / "victim")


def test_a_name_from_a_stranger_is_no_path(archived, tmp_path, monkeypatch):
    rewritten(archived[3], tmp_path / "bad.zip", replaced(INDEX, lambda d: d.replace(b'"name": "made"', b'"name": "../../up"')))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert import_run(tmp_path / "bad.zip", Store(tmp_path / "other")).folder.as_posix() == "runs/imported"


def test_a_plan_that_would_fill_the_memory_is_refused_before_it_is_read(archived, tmp_path, monkeypatch):
    """Inside the limits on the whole archive, which is padded with what cannot be squeezed."""
    many = b"[]," * 2_000_000
    plan = b'{"stages": {}, "cells": [], "x": [' + many + b"[]]}"
    monkeypatch.setattr(importing, "ALWAYS_FINE", 1_000_000)

    def padded(members):
        members["run/plan.json"] = members["run/plan.json"][0], plan
        members["run/pad.png"] = fresh("run/pad.png"), os.urandom(200_000)
        members["run/plan.json"][0].compress_type = zipfile.ZIP_DEFLATED
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda *a, **k: pytest.fail("it is parsed") if len(a[0]) > 10**6 else loads(*a, **k))
    for most, said in ((importing.MOST_VALUES, "run/plan.json is squeezed from 6.0 MB to "), (1000, "it holds more than 1,000 values")):
        rewritten(archived[3], tmp_path / "bomb.zip", padded)
        monkeypatch.setattr(importing, "MOST_VALUES", most)
        if most == 1000:
            monkeypatch.setattr(importing, "MOST_SQUEEZED", 10**6)
        with pytest.raises(DiffbenchError, match=said):
            import_run(tmp_path / "bomb.zip", Store(tmp_path / "other"), tmp_path / "there")


def test_more_files_than_any_run_has(archived, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "MOST_MEMBERS", 10)
    with pytest.raises(DiffbenchError, match=r"it holds \d+ files, and 10 are the most"):
        import_run(archived[3], Store(tmp_path / "other"), tmp_path / "there")
    monkeypatch.setattr(importing, "MOST_MEMBERS", 1000)
    monkeypatch.setattr(importing, "MOST_OF_ARTEFACT", 2)
    with pytest.raises(DiffbenchError, match=r"store/extractor/[0-9a-f]{64} has \d files, and 2 are the most"):
        import_run(archived[3], Store(tmp_path / "other"), tmp_path / "there")
