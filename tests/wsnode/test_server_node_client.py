"""A Node.js client, as the demo before this one used, finds what it expects."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.wsnode.serving import serving

CLIENT = """
const WebSocket = require('ws');
const url = process.argv[2];
const replies = [];
const socket = new WebSocket(url);
socket.on('open', () => { socket.send('grüße'); socket.send(Buffer.from([0, 255])); socket.ping('p'); });
socket.on('pong', (data) => replies.push({pong: data.toString()}));
socket.on('message', (data, binary) => {
  replies.push({binary, hex: data.toString('hex')});
  if (replies.filter((reply) => reply.hex).length === 2) socket.close(1000, 'done');
});
socket.on('close', (code) => { console.log(JSON.stringify({code, replies})); });
socket.on('error', (error) => { console.log(JSON.stringify({error: error.message})); process.exit(1); });
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Runs the client. `ws` comes from the registry into a temporary folder."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    folder = tmp_path_factory.mktemp("node")
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "ws@8"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm cannot install ws: {installed.stderr.strip()[-200:]}")
    (folder / "client.js").write_text(CLIENT)

    def run(url: str):
        done = subprocess.run(
            ["node", "client.js", url], cwd=folder, capture_output=True, text=True, check=True, timeout=30
        )
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(
    ("options", "path"), [(["--workers", "2"], "/"), (["--workers", "1", "--compression"], "/echo")]
)
def test_a_node_client_gets_its_messages_back_and_closes_normally(node, options, path):
    with serving(*options) as server:
        said = node(server.url(path))
        server.value_becomes("websocket_connections_closed_total", 1, code="1000")
        assert server.metrics().total("websocket_connection_errors_total") == 0
    assert said["code"] == 1000
    messages = [reply for reply in said["replies"] if "hex" in reply]
    assert messages == [{"binary": False, "hex": "grüße".encode().hex()}, {"binary": True, "hex": "00ff"}]
    assert {"pong": "p"} in said["replies"]
