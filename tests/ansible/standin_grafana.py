"""A small package `grafana`, laid out as the real one, that no registry here has.

Its server reads what the real one reads of grafana.ini, of the provisioning files and of its environment, and answers
the parts of the HTTP API that role grafana asks. It draws nothing.
"""

import subprocess
from pathlib import Path

VERSION = "11.6.0"

CONTROL = """\
Package: grafana
Version: {version}
Architecture: all
Maintainer: wslab
Description: stand-in for Grafana
"""

UNIT = """\
[Unit]
Description=Grafana instance
After=network-online.target

[Service]
EnvironmentFile=/etc/default/grafana-server
User=grafana
Group=grafana
Type=simple
Restart=on-failure
WorkingDirectory=/usr/share/grafana
ExecStart=/usr/share/grafana/bin/grafana server --config=${CONF_FILE} cfg:default.paths.data=${DATA_DIR}
UMask=0027

[Install]
WantedBy=multi-user.target
"""

DEFAULTS = """\
GRAFANA_USER=grafana
DATA_DIR=/var/lib/grafana
CONF_FILE=/etc/grafana/grafana.ini
PROVISIONING_CFG_DIR=/etc/grafana/provisioning
"""

POSTINST = """\
#!/bin/sh
set -e
getent group grafana >/dev/null || groupadd --system grafana
id grafana >/dev/null 2>&1 || useradd --system --gid grafana --home-dir /usr/share/grafana --shell /bin/false grafana
mkdir -p /var/lib/grafana
chown -R grafana:grafana /var/lib/grafana
chown -Rh root:grafana /etc/grafana/*
find /etc/grafana -type f -exec chmod 640 {} ';'
find /etc/grafana -type d -exec chmod 755 {} ';'
"""

PROGRAM = r"""#!/usr/bin/python3
import base64, configparser, http.server, json, os, pathlib, re, string, sys

options = dict(word.lstrip("-").split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
ini = configparser.ConfigParser(interpolation=None)
ini.read_string(pathlib.Path(options["config"]).read_text())
database = pathlib.Path(ini["paths"]["data"], "grafana.db")


def value(text):
    named = re.fullmatch(r"\$__file\{(.*)\}", text)
    return pathlib.Path(named[1]).read_text().strip() if named else text


if sys.argv[1] == "cli":
    assert sys.argv[-3:] == ["admin", "reset-admin-password", "--password-from-stdin"], sys.argv
    database.write_text(json.dumps(sys.stdin.readline().strip()))
    sys.exit(0)
if not database.exists():  # the first start
    database.write_text(json.dumps(value(ini["security"]["admin_password"])))

provisioned = pathlib.Path(ini["paths"]["provisioning"])


def said(kind, key):
    texts = [file.read_text() for file in sorted((provisioned / kind).glob("*.yml"))]
    found = re.findall(rf"^\s+{key}: (\S+)", "\n".join(texts), re.MULTILINE)
    return [string.Template(text).substitute(os.environ) for text in found]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        login = "Basic " + base64.b64encode(f"admin:{json.loads(database.read_text())}".encode()).decode()
        path = self.path.partition("?")[0]
        if path == "/api/health":
            self.answer(200, {"database": "ok", "version": "stand-in"})
        elif self.headers.get("Authorization") != login and ini["auth.anonymous"]["enabled"] != "true":
            self.answer(401, {"message": "Invalid username or password"})
        elif path == "/api/search":
            files = [file for folder in said("dashboards", "path") for file in pathlib.Path(folder).glob("*.json")]
            self.answer(200, [{"uid": json.loads(file.read_text())["uid"]} for file in files])
        elif path == "/api/datasources":
            self.answer(200, [{"url": url} for url in said("datasources", "url")])
        else:
            self.answer(404, {})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


server = ini["server"]
http.server.ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Handler).serve_forever()
"""


def build(folder: Path, version: str = VERSION) -> Path:
    """The package in `folder`, made by dpkg-deb.

    Raises:
        subprocess.CalledProcessError: dpkg-deb fails.
    """
    root = folder / f"grafana-{version}"
    texts = {
        "DEBIAN/control": CONTROL.format(version=version),
        "DEBIAN/conffiles": "/etc/default/grafana-server\n/etc/grafana/grafana.ini\n",
        "DEBIAN/postinst": POSTINST,
        "etc/default/grafana-server": DEFAULTS,
        "etc/grafana/grafana.ini": "; the package's own\n",
        "usr/lib/systemd/system/grafana-server.service": UNIT,
        "usr/share/grafana/bin/grafana": PROGRAM,
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if path.name in {"postinst", "grafana"} else 0o644)
    deb = folder / f"grafana_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, deb], check=True, stdout=subprocess.DEVNULL)
    return deb
