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

from diffbench import finished, results
from diffbench.errors import DiffbenchError
from diffbench.report import live
from tests import made_rows


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
    folder = made_rows.folder(tmp_path / "run", made_rows.rows(others=False)[:6])
    with live.server(folder, 0) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield folder, found.server_address[1]
        found.shutdown()


def ask(port, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
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
    (folder / results.RECORDS / f"{row['cell_id']}.json").write_text(json.dumps(row))
    assert ask(port, "/state")[1].startswith("running 7 ") and ask(port, "/state")[1] != before
    assert row["cell_id"] in (folder / results.RECORDS / f"{row['cell_id']}.json").name and "3 configurations" in ask(port)[1]
    finished.note(folder, "x")
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
    (folder / results.RECORDS / "torn.json").write_text("{")
    assert ask(port)[0] == 503
    (folder / results.RECORDS / "torn.json").unlink()
    assert ask(port)[0] == 200


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
