"""`diffbench report --live`: on this machine alone, read-only, with the rows there are."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from diffbench.errors import DiffbenchError
from diffbench.report import live
from diffbench.results import rows, unchanged
from tests.helpers import made_rows


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
    folder = made_rows.folder(tmp_path / "run", made_rows.rows(others=False)[:6])
    with live.server(folder, 0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield folder, found.server_address[1]
        found.shutdown()


def ask(port, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_the_page_and_its_state(served):
    folder, port = served
    status, text, headers = ask(port)
    assert status == 200 and "data-live" in text and "connect-src &#39;self&#39;" in text and headers["Cache-Control"] == "no-store"
    before = ask(port, "/state")[1]
    assert before.startswith("running 6 ")
    row = made_rows.rows(others=False)[7]
    (folder / rows.RECORDS / f"{row['cell_id']}.json").write_text(json.dumps(row))
    assert ask(port, "/state")[1].startswith("running 7 ") and ask(port, "/state")[1] != before
    assert row["cell_id"] in (folder / rows.RECORDS / f"{row['cell_id']}.json").name and "3 configurations" in ask(port)[1]
    unchanged.note(folder, "x")
    assert ask(port, "/state")[1].startswith("ended 7 ")


def test_it_is_read_only_and_for_this_machine(served):
    _, port = served
    assert ask(port, method="HEAD")[:2] == (200, "")
    assert [ask(port, method=method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
    assert [ask(port, path)[0] for path in ("/../../etc/passwd", "/cells", "/?x")] == [404] * 3
    assert [ask(port, host=host)[0] for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example")] == [403] * 3
    assert [ask(port, host=host)[0] for host in (f"localhost:{port}", "127.0.0.1")] == [200] * 2
    assert live.ADDRESS == "127.0.0.1"


def test_a_folder_that_cannot_be_read_now_is_said_and_asked_again(served):
    folder, port = served
    (folder / "matrix.json").rename(folder / "away")
    status, said, headers = ask(port)
    assert status == 503 and "matrix.json is not there" in said and headers["Content-Type"] == "text/plain; charset=utf-8"
    (folder / "away").rename(folder / "matrix.json")
    assert ask(port)[0] == 200


@pytest.mark.parametrize("content", ["{", "[1]", "7", "", '{"cell_id": "torn", "status": "ok", "seed": "x"}', "[" * 100_000])
def test_a_record_that_is_none_is_a_failed_row_of_the_page(served, content):
    folder, port = served
    (folder / rows.RECORDS / "torn.json").write_text(content)
    status, said, _ = ask(port)
    assert status == 200 and "cells/torn.json is no record of a cell" in said and "6 ok, 1 failed" in said


def test_a_folder_of_any_name_and_any_error_is_answered(tmp_path, monkeypatch, capfd):
    folder = made_rows.folder(tmp_path / "прогон \u65e5 \udce9", made_rows.rows(others=False)[:2])
    with live.server(folder, 0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        assert ask(found.server_address[1])[0] == 200
        monkeypatch.setattr(live.Page, "state", lambda self: 1 / 0)
        assert ask(found.server_address[1], "/state")[:2] == (503, "ZeroDivisionError: division by zero")
        found.shutdown()
    assert capfd.readouterr() == ("", "")
    (folder / "matrix.json").unlink()
    with live.server(folder, 0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        assert ask(found.server_address[1])[0] == 503, "its message names the folder"
        found.shutdown()


def test_a_reader_that_goes_away_or_says_nothing_costs_nothing(served, monkeypatch, capfd):
    _, port = served
    with socket.create_connection((live.ADDRESS, port)) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")       # a reset instead of a farewell
        gone.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert ask(port, "/state")[0] == 200
    with live.server(served[0], 0) as found:
        monkeypatch.setattr(found.RequestHandlerClass, "timeout", 0.05)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        with socket.create_connection(found.server_address, timeout=30) as silent:
            silent.sendall(b"GET / HT")
            assert silent.recv(1) == b"", "closed by the server"
        found.shutdown()
    assert capfd.readouterr() == ("", "") and 0 < live.IDLE_SECONDS < 60


def test_what_cannot_be_served_is_refused(served, tmp_path):
    folder, _ = served
    with pytest.raises(DiffbenchError, match=r"no folder of a run: there is no plan\.json in it; name the folder that `diffbench run` writes to"):
        live.server(tmp_path, 0)
    with socket.socket() as taken:
        taken.bind((live.ADDRESS, 0))
        taken.listen()
        with pytest.raises(DiffbenchError, match="--port .*; leave it out for a free one"):
            live.server(folder, taken.getsockname()[1])


def test_ctrl_c_ends_it_well(served):
    folder, _ = served
    child = subprocess.Popen([sys.executable, "-m", "diffbench", "report", "--live", str(folder)], stdout=subprocess.PIPE, text=True)
    assert f"shows {folder} as its rows arrive; Ctrl-C ends it" in child.stdout.readline()
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(30) == 0
